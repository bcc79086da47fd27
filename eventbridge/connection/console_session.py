"""A console's bytes, both ways, as one handle on the dispatcher.

The tty is opened here and is ours: raw, non-blocking, closed when the stream is.  What the guest writes is handed on as
it comes; what is written to the guest waits until its tty takes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any, TypeAlias

from eventbridge.core.affinity import hook_side
from eventbridge.core.masks import Events
from eventbridge.core.models import CallbackModel
from eventbridge.errors import BridgeClosed, HypervisorError, UnknownHandle
from eventbridge.hypervisor.model import ConsoleInfo

OnData: TypeAlias = Callable[[bytes], object]
OnEnd: TypeAlias = Callable[[OSError | None], object]

CHUNK = 65536
BACKLOG = 1 << 20
"""Bytes that may wait for a guest that does not read."""


class ConsoleStream:
    """One open console.

    ``on_data(bytes)`` is called on the loop's thread with what the guest wrote; ``on_end(error)`` once, when the other
    end has hung up (None) or the tty has failed, unless `close` came first.
    """

    def __init__(self, bridge: CallbackModel, path: str, on_data: OnData, on_end: OnEnd = lambda error: None) -> None:
        """Open the tty or unix socket at ``path``.  `HypervisorError` with an errno where that is not possible."""
        self.path = path
        self._bridge = bridge
        self._on_data = on_data
        self._on_end = on_end
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._open = True
        self._fd = _opened(path)
        try:
            self._handle = bridge.add_handle(self._fd, Events.READABLE, self._ready, self._fd, os.close)
        except BaseException:
            os.close(self._fd)
            raise

    @hook_side
    def write(self, data: bytes) -> None:
        """Have ``data`` written, in order, as the guest takes it.  Any thread.

        `BufferError` where more than `BACKLOG` bytes would wait, and nothing of ``data`` is written; `HypervisorError`
        (EPIPE) where the console is closed or has hung up.
        """
        with self._lock:
            if not self._open:
                raise HypervisorError(f"{self.path}: the console is closed", code=errno.EPIPE, operation="write")
            if len(self._waiting) + len(data) > BACKLOG:
                raise BufferError(
                    f"{self.path}: the guest does not read: {len(self._waiting)} bytes wait for it, and {len(data)} "
                    f"more would be above {BACKLOG}"
                )
            self._waiting += data
            if data:
                self._bridge.update_handle(self._handle, Events.READABLE | Events.WRITABLE)

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Nothing is called after this, and what still waits is dropped.  Any thread; idempotent."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        with contextlib.suppress(UnknownHandle, BridgeClosed):
            self._bridge.remove_handle(self._handle)

    def __enter__(self) -> ConsoleStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- the loop's thread

    def _ready(self, id: int, fd: int, events: int, opaque: Any) -> None:
        try:
            if events & Events.WRITABLE:
                self._write(fd)
            if events & ~Events.WRITABLE and not self._read(fd):
                self._end(None)
        except OSError as error:
            # A pty whose master is gone answers EIO (tty_ioctl(2)): its way of saying end of file.
            self._end(None if error.errno == errno.EIO else error)

    def _read(self, fd: int) -> bool:
        """False at the end of it."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:  # somebody else has read it
            return True
        if data and self._open:
            self._on_data(data)
        return bool(data)

    def _write(self, fd: int) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            del self._waiting[: os.write(fd, self._waiting[:CHUNK])]
            if not self._waiting and self._open:
                self._bridge.update_handle(self._handle, Events.READABLE)

    def _end(self, error: OSError | None) -> None:
        if self._open:
            self.close()
            self._on_end(error)


def open_console(
    bridge: CallbackModel, info: ConsoleInfo, on_data: OnData, on_end: OnEnd = lambda error: None
) -> ConsoleStream:
    """A console's stream.  `HypervisorError` (ENOENT) where it has no tty: it is not served yet, or goes to a file."""
    if info.tty is None:
        goes = "" if info.output is None else f"; its output goes to {info.output}"
        raise HypervisorError(
            f"domain {info.frontend_domid}: its {info.kind} console {info.devid} has no tty{goes}",
            code=errno.ENOENT,
            operation="open_console",
        )
    return ConsoleStream(bridge, info.tty, on_data, on_end)


def _opened(path: str) -> int:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            return _connected(path)
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HypervisorError(
            f"cannot open the console at {path}: {error.strerror or error}", code=error.errno, operation="open_console"
        ) from error
    if os.isatty(fd):
        # Or it would echo the guest's own words back to it.  At once: setraw's own TCSAFLUSH drops what the guest has
        # written before anybody listened.
        tty.setraw(fd, termios.TCSANOW)
    return fd


def _connected(path: str) -> int:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    connection.setblocking(False)
    return connection.detach()
