"""libuv: a ``pyuv.Loop``, or, where pyuv is not installed, libuv's own library through cffi (`uv_cffi`).

Facts it rests on: of all libuv's calls only ``uv_async_send`` may be made from another thread; an exception that
leaves a callback is printed and forgotten, so KeyboardInterrupt and SystemExit are kept and raised by
`LibuvHost.run`; a loop asleep in C does not run Python's signal handlers, so while `run` runs in the main thread a
signal wakes it.  A Poll handle must be closed before its fd is (libuv aborts otherwise).
"""

from __future__ import annotations

from typing import Any, ClassVar

from eventbridge.core.loop_host import Callback, LoopHost

try:
    import pyuv as uv
except ImportError:
    from . import uv_cffi as uv


class LibuvHost(LoopHost):
    """``LibuvHost(loop)`` on a loop of yours; without one on a new loop of its own.  Make it before the loop runs, or
    on its thread.
    """

    name = "libuv"
    library: ClassVar[Any] = uv

    def __init__(self, loop: Any = None) -> None:
        super().__init__()
        if loop is not None and not isinstance(loop, self.library.Loop):
            raise TypeError(f"loop must be a {self.library.__name__}.Loop, not {loop!r}")
        self._ours = loop is None
        self.loop = self.library.Loop() if loop is None else loop
        self._polls: dict[int, Any] = {}
        self._async = self.library.Async(self.loop, lambda _: self._woken())
        self._async.ref = False  # it alone must not keep the loop running
        self._async.send()  # the first thing the loop does is to tell us its thread

    @classmethod
    def running(cls) -> LibuvHost | None:
        """A libuv loop cannot be seen from outside."""
        return None

    def watch(self, fd: int, callback: Callback) -> None:
        poll = self.library.Poll(self.loop, fd)
        poll.start(self.library.UV_READABLE, lambda *_: self.call(callback))
        self._polls[fd] = poll

    def unwatch(self, fd: int) -> None:
        poll = self._polls.pop(fd, None)
        if poll is not None and not poll.closed:
            poll.close()

    def wake(self) -> None:
        bell = self._async
        if bell is not None:
            bell.send()

    def report(self, exception: BaseException, context: str) -> None:
        hook = getattr(self.loop, "excepthook", None)
        if hook is not None:
            hook(type(exception), exception, exception.__traceback__)
        else:
            super().report(exception, context)

    def _woken(self) -> None:
        self.call(self.run_soon)

    # -- RunnableHost

    def run_loop(self) -> None:
        with self.minding_signals():
            self.loop.run()

    def stop(self) -> None:
        if self._running:
            super().stop()
        else:  # you run it
            self.loop.stop()

    def stop_loop(self) -> None:
        self.loop.stop()

    def give_back(self) -> None:
        for fd in list(self._polls):
            self.unwatch(fd)
        self._async.close()
        if self._ours:
            self.loop.run()  # libuv frees a handle in the turn after its close
            if hasattr(self.loop, "close"):
                self.loop.close()
            # pyuv closes a loop, and its four fds, when nobody holds it: that must not wait for a garbage collection.
            self.loop = self._async = None
