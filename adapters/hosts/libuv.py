"""libuv: a ``pyuv.Loop``, or, where pyuv is not installed, libuv's own library through cffi (`uv_cffi`).

Facts it rests on: of all libuv's calls only ``uv_async_send`` may be made from another thread; an exception that
leaves a callback is printed and forgotten, so KeyboardInterrupt and SystemExit are kept and raised by
`LibuvHost.run`; a loop asleep in C does not run Python's signal handlers, so while `run` runs in the main thread a
signal wakes it through ``signal.set_wakeup_fd``.  A Poll handle must be closed before its fd is (libuv aborts
otherwise).
"""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from eventbridge.errors import HostUnavailable

try:
    import pyuv as uv
except ImportError:
    from . import uv_cffi as uv

Callback = Callable[[], None]


class LibuvHost:
    """``LibuvHost(loop)`` on a loop of yours; without one on a new loop of its own.  Make it before the loop runs, or
    on its thread.
    """

    name = "libuv"
    library: ClassVar[Any] = uv

    def __init__(self, loop: Any = None) -> None:
        if loop is not None and not isinstance(loop, self.library.Loop):
            raise TypeError(f"loop must be a {self.library.__name__}.Loop, not {loop!r}")
        self._ours = loop is None
        self.loop = self.library.Loop() if loop is None else loop
        self._thread: int | None = None  # who runs the loop, once it does
        self._running = 0
        self._raised: BaseException | None = None
        self._closed = False
        self._soon: collections.deque[Callback] = collections.deque()
        self._polls: dict[int, Any] = {}
        self._async = self.library.Async(self.loop, self._run_soon)
        self._async.ref = False  # it alone must not keep the loop running
        self._async.send()  # the first thing the loop does is to tell us its thread

    @classmethod
    def running(cls) -> LibuvHost | None:
        """A libuv loop cannot be seen from outside."""
        return None

    def watch(self, fd: int, callback: Callback) -> None:
        poll = self.library.Poll(self.loop, fd)
        poll.start(self.library.UV_READABLE, lambda *_: self._call(callback))
        self._polls[fd] = poll

    def unwatch(self, fd: int) -> None:
        poll = self._polls.pop(fd, None)
        if poll is not None and not poll.closed:
            poll.close()

    def call_soon_threadsafe(self, callback: Callback) -> None:
        if self._closed:
            raise HostUnavailable("this libuv loop is closed")
        self._soon.append(callback)
        self._async.send()

    def is_loop_thread(self) -> bool:
        return self._thread is None or self._thread == threading.get_ident()

    def report(self, exception: BaseException, context: str) -> None:
        hook = getattr(self.loop, "excepthook", None)
        if hook is not None:
            hook(type(exception), exception, exception.__traceback__)
        else:
            print(f"exception {context}:", file=sys.stderr)
            traceback.print_exception(exception, file=sys.stderr)

    def _call(self, callback: Callback) -> None:
        self._thread = threading.get_ident()
        try:
            callback()
        except BaseException as error:
            if not self._running:
                raise  # whoever runs the loop has its excepthook
            self._raised = error
            self.loop.stop()

    def _run_soon(self, _: Any) -> None:
        self._thread = threading.get_ident()
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft())

    # -- RunnableHost

    def run(self) -> None:
        self._running += 1
        outer, self._thread = self._thread, threading.get_ident()
        try:
            with self._signals_wake():
                self.loop.run()
        finally:
            self._running -= 1
            self._thread = outer if self._running else None
            raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def stop(self) -> None:
        self.loop.stop()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for fd in list(self._polls):
            self.unwatch(fd)
        self._async.close()
        if self._ours and not self._running:
            self.loop.run()  # libuv frees a handle in the turn after its close
            if hasattr(self.loop, "close"):
                self.loop.close()
            # pyuv closes a loop, and its four fds, when nobody holds it: that must not wait for a garbage collection.
            self.loop = self._async = None

    @contextlib.contextmanager
    def _signals_wake(self) -> Iterator[None]:
        """Python's signal handlers run in the loop's next turn; have a signal make it turn."""
        if threading.current_thread() is not threading.main_thread() or self._running > 1:
            yield
            return
        ours, libuvs = socket.socketpair()
        with ours, libuvs:
            ours.setblocking(False)
            libuvs.setblocking(False)
            before = signal.set_wakeup_fd(libuvs.fileno(), warn_on_full_buffer=False)
            self.watch(ours.fileno(), lambda: _drain(ours))
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                self.unwatch(ours.fileno())


def _drain(reader: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        reader.recv(4096)
