"""asyncio: the standard library's loop and every loop compatible with it: uvloop, rloop, tornado's, gbulb, qasync.

Facts it rests on: `add_reader` is level-triggered on all of them; `call_soon_threadsafe` works before the loop first
runs; a loop that was closed, as ``asyncio.run`` does at its end, refuses everything with RuntimeError.  asyncio and
uvloop let KeyboardInterrupt and SystemExit of a callback out of their run; rloop 0.5.0 logs them, qasync 0.28.0 prints
them and goes on, and under gbulb 0.6.6 SystemExit ends the process: there they are kept for `run` to raise.  qasync's
loop is the application's own, and so the main thread's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable

from eventbridge.errors import HostUnavailable

LETS_OUT = ("asyncio", "uvloop")
"""Packages whose loops let KeyboardInterrupt and SystemExit out."""


class AsyncioHost:
    """``AsyncioHost(loop)``; without a loop the one that is running in this thread, and where none is, a new one of
    its own, to be run by `eventbridge.Bridge.run`.
    """

    name = "asyncio"

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._ours = False
        self._closed = False
        self._stopping: bool | None = None  # None while it is not `run` that runs the loop
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                loop = asyncio.new_event_loop()
                self._ours = True
        elif not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop must be an asyncio event loop, not {loop!r}")
        if loop.is_closed():
            raise HostUnavailable(f"{loop!r} is closed: attach to one that is yet to run, or is running")
        self.loop = loop
        self._keeps = _runner(type(loop)) not in LETS_OUT
        self._raised: BaseException | None = None

    @classmethod
    def running(cls) -> AsyncioHost | None:
        try:
            return cls(asyncio.get_running_loop())
        except RuntimeError:
            return None

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        if self.loop.is_closed():
            raise HostUnavailable(f"{self.loop!r} is closed")
        try:
            self.loop.add_reader(fd, functools.partial(self._kept, callback) if self._keeps else callback)
        except NotImplementedError as error:  # Windows' proactor loop
            raise HostUnavailable(f"{self.loop!r} cannot watch file descriptors") from error

    def unwatch(self, fd: int) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(fd)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError as error:
            raise HostUnavailable(f"{self.loop!r} is closed") from error

    def is_loop_thread(self) -> bool:
        if not self.loop.is_running():
            return True
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def report(self, exception: BaseException, context: str) -> None:
        self.loop.call_exception_handler({"message": f"exception {context}", "exception": exception})

    def _kept(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except (KeyboardInterrupt, SystemExit) as error:
            if self._stopping is None:
                raise  # somebody else runs the loop, and knows it
            self._raised = error
            self.stop()

    # -- RunnableHost

    def run(self) -> None:
        if self.loop.is_running() or self._stopping is not None:  # qasync's does not run any more once it was stopped
            raise HostUnavailable("this asyncio loop is running already: await something in it instead")
        self._stopping = False
        try:
            self.loop.run_forever()
        finally:
            self._stopping = None
            if self._closed:
                self.close()
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def stop(self) -> None:
        if self._stopping:
            return  # uvloop would keep a second stop for the next run
        begun = self._stopping is False
        if begun:
            self._stopping = True
        if begun and not self.loop.is_running():  # who is about to run it: gbulb's forgets it until then
            self.loop.call_soon_threadsafe(self.loop.stop)
        else:
            self.loop.stop()

    def close(self) -> None:
        self._closed = True
        if self._stopping is not None:
            self.stop()  # there is nothing left to run for; `run` closes the loop
        elif self._ours and not self.loop.is_running():
            self.loop.close()

    # -- AwaitingHost

    async def wait_for(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
        loop = asyncio._get_running_loop()
        if loop is None:
            raise HostUnavailable("this is no task of an asyncio loop: await it in one")
        future: asyncio.Future[bool] = loop.create_future()

        def end(in_time: bool = True) -> None:
            if not future.done():
                future.set_result(in_time)

        def done() -> None:
            if asyncio._get_running_loop() is loop:
                end()
            else:
                with contextlib.suppress(RuntimeError):  # it is closed, and the task with it
                    loop.call_soon_threadsafe(end)

        subscribe(done)
        # Not asyncio.wait_for: from Python 3.12 on it raises RuntimeError in a coroutine that is no task.
        timer = None if timeout is None else loop.call_later(timeout, end, False)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()


def _runner(kind: type) -> str:
    """The package that runs such a loop."""
    return next(base.__module__.partition(".")[0] for base in kind.__mro__ if "run_forever" in vars(base))
