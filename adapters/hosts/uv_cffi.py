"""As much of pyuv's interface as `libuv` uses, over libuv's own shared library: no compiler and no headers are
needed, only cffi and libuv.so.1.

Sizes of libuv's structures are asked of libuv itself.  A handle's memory must live until its close callback: `_open`
keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cffi

UV_READABLE = 1  # uv.h: enum uv_poll_event
_RUN_DEFAULT = 0

_ffi = cffi.FFI()
_ffi.cdef(
    """
    size_t uv_loop_size(void);
    size_t uv_handle_size(int);
    const char *uv_handle_type_name(int);
    const char *uv_strerror(int);
    int uv_loop_init(void *);
    int uv_loop_close(void *);
    int uv_run(void *, int);
    void uv_stop(void *);
    int uv_poll_init(void *, void *, int);
    int uv_poll_start(void *, int, void (*)(void *, int, int));
    int uv_async_init(void *, void *, void (*)(void *));
    int uv_async_send(void *);
    void uv_close(void *, void (*)(void *));
    int uv_is_closing(void *);
    void uv_unref(void *);
    void uv_ref(void *);
    """
)
try:
    _uv: Any = _ffi.dlopen("libuv.so.1")
except OSError as _error:
    raise ImportError(f"neither pyuv nor libuv.so.1 is here ({_error}): apt-get install libuv1") from _error

_open: dict[int, _Handle] = {}  # by address, until libuv has closed them


def _text(chars: Any) -> str:
    text: bytes = _ffi.string(chars)  # type: ignore[assignment]  # of a char *, it is bytes
    return text.decode()


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, _text(_uv.uv_strerror(result)))


def _size(kind: str) -> int:
    """libuv numbers its handle types from 1 and knows their names (uv.h: UV_HANDLE_TYPE_MAP)."""
    for number in range(1, 32):
        name = _uv.uv_handle_type_name(number)
        if name != _ffi.NULL and _text(name) == kind:
            return int(_uv.uv_handle_size(number))
    raise ImportError(f"this libuv has no handle type {kind!r}")


class Loop:
    """``pyuv.Loop``."""

    excepthook: Callable[..., object] | None = None

    def __init__(self) -> None:
        self._memory = _ffi.new("char[]", _uv.uv_loop_size())
        self.address = _ffi.cast("void *", self._memory)
        _check(_uv.uv_loop_init(self.address))

    def run(self) -> bool:
        return bool(_uv.uv_run(self.address, _RUN_DEFAULT))

    def stop(self) -> None:
        _uv.uv_stop(self.address)

    def close(self) -> None:
        """Every handle must have been closed, and the loop have turned since."""
        _check(_uv.uv_loop_close(self.address))


class _Handle:
    def __init__(self, loop: Loop, kind: str) -> None:
        self._memory = _ffi.new("char[]", _size(kind))
        self.address = _ffi.cast("void *", self._memory)
        self._key = int(_ffi.cast("intptr_t", self.address))
        self._loop = loop
        self.callback: Callable[..., object] = lambda *_: None

    @property
    def closed(self) -> bool:
        return self._key not in _open or bool(_uv.uv_is_closing(self.address))

    @property
    def ref(self) -> bool:
        raise AttributeError("write only, as far as eventbridge needs it")

    @ref.setter
    def ref(self, value: bool) -> None:
        (_uv.uv_ref if value else _uv.uv_unref)(self.address)

    def close(self) -> None:
        if not self.closed:
            _uv.uv_close(self.address, _on_close)

    def opened(self) -> None:
        _open[self._key] = self


class Poll(_Handle):
    """``pyuv.Poll``."""

    def __init__(self, loop: Loop, fd: int) -> None:
        super().__init__(loop, "poll")
        _check(_uv.uv_poll_init(loop.address, self.address, fd))
        self.opened()

    def start(self, events: int, callback: Callable[[Any, int, int | None], object]) -> None:
        self.callback = callback
        _check(_uv.uv_poll_start(self.address, events, _on_poll))


class Async(_Handle):
    """``pyuv.Async``."""

    def __init__(self, loop: Loop, callback: Callable[[Any], object]) -> None:
        super().__init__(loop, "async")
        self.callback = callback
        _check(_uv.uv_async_init(loop.address, self.address, _on_async))
        self.opened()

    def send(self) -> None:
        if not self.closed:
            _uv.uv_async_send(self.address)


def _handle_at(address: Any) -> _Handle:
    return _open[int(_ffi.cast("intptr_t", address))]


@_ffi.callback("void(void *)")
def _on_close(address: Any) -> None:
    del _open[int(_ffi.cast("intptr_t", address))]


@_ffi.callback("void(void *, int, int)")
def _on_poll(address: Any, status: int, events: int) -> None:
    handle = _handle_at(address)
    handle.callback(handle, events, status or None)


@_ffi.callback("void(void *)")
def _on_async(address: Any) -> None:
    handle = _handle_at(address)
    handle.callback(handle)
