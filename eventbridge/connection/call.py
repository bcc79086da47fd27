"""What whoever asks a hypervisor holds: a call, which ends once, with a value or an error.

``await call`` in a task of the bridge's loop, `Call.on_done` on any loop, `Call.result` on a thread of one's own.  A
call is under way from the moment it is made; none of its methods but `result` waits, and that one refuses to on the
loop's thread.  Any thread.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

from eventbridge.bridge import Bridge
from eventbridge.core.host import SwitchingHost, can_switch
from eventbridge.core.host_lookup import awaiting
from eventbridge.core.mailbox import Mailbox
from eventbridge.core.waker import Bell
from eventbridge.errors import BridgeForked, HostUnavailable, HypervisorError
from eventbridge.jobs import JobAborted, Progress

T = TypeVar("T")
Step: TypeAlias = Callable[[], None]


class Call(Generic[T]):
    """``what`` says it in words, as "info of web-1"; it is part of every error."""

    def __init__(self, bridge: Bridge, mailbox: Mailbox, what: str) -> None:
        self.what = what
        self.bridge = bridge
        self._mailbox = mailbox
        self._lock = threading.Lock()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Step] = []
        self._waiters: list[threading.Event] = []
        self._canceller: Step = _nothing

    @property
    def done(self) -> bool:
        """Has it ended?"""
        return self._done

    @property
    def error(self) -> BaseException | None:
        """Why it failed; None where it did not, or goes on."""
        return self._error

    def on_done(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback(call)`` called on the loop's thread when it has ended; soon, if it has."""

        def step() -> None:
            callback(self)

        with self._lock:
            if not self._done:
                self._callbacks.append(step)
                return
        self._post(step)

    def result(self, timeout: float | None = None) -> T:
        """Wait until it has ended, ``timeout`` seconds at most, and return its value, or raise its error.

        TimeoutError where it goes on then; `HypervisorError` on the loop's own thread, which is needed to end it.  On
        gevent any greenlet may wait so, but for the hub.
        """
        if not self._done:
            self._wait(timeout)
        return self._outcome()

    def cancel(self) -> None:
        """Give it up: nobody waits any more.  What has not begun never does; what a hypervisor is at it ends, and
        holds its domain until then.  Something that takes long is aborted.
        """
        if not self._done:
            self._canceller()

    def __await__(self) -> Generator[Any, None, T]:
        return self._awaited().__await__()

    def __repr__(self) -> str:
        state = "goes on" if not self._done else "failed" if self._error else "done"
        return f"<{type(self).__name__} {self.what}: {state}>"

    # -- for whoever ends it

    def settle(self, value: Any, error: BaseException | None = None) -> bool:
        """It has ended; False where it had already.  Hook side."""
        with self._lock:
            if self._done:
                return False
            self._value, self._error = value, error
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set()
        for observer in self.bridge.observers:
            observer.settled(self, error)
        self._let_go()
        if not callbacks and not self.bridge.is_loop_thread():
            callbacks = [_nothing]  # a pass, after which `Bridge.run` looks at what it runs until
        for callback in callbacks:
            self._post(callback)
        return True

    def _let_go(self) -> None:
        """Of who did it, who refers to it."""
        self._canceller = _nothing

    def soon(self, step: Step) -> None:
        """Have ``step()`` called on the loop's thread.  Any thread."""
        self._post(step)

    def _post(self, step: Step) -> None:
        """On the loop's thread, also where the connection is closed by now."""
        if self._mailbox.put(step):
            return
        if self.bridge.forked:  # nobody runs the loop here, and it is not to be woken in the parent
            step()
        else:
            with contextlib.suppress(HostUnavailable):  # then there is nobody to be told
                self.bridge.host.call_soon_threadsafe(step)

    def cancels(self, canceller: Step) -> None:
        """What `cancel` does."""
        self._canceller = canceller

    # -- waiting

    def _wait(self, timeout: float | None) -> None:
        self._check_process()
        if can_switch(self.bridge.host):
            self._switch(self.bridge.host, timeout)
            return
        if self.bridge.is_running_here():
            raise self._in_the_way()
        waiter = threading.Event()
        with self._lock:
            if self._done:
                return
            self._waiters.append(waiter)
        if not waiter.wait(timeout):
            with self._lock, contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            if not self._done:
                raise TimeoutError(f"{self.what}: goes on after {timeout} s")

    def _in_the_way(self) -> HypervisorError:
        return HypervisorError(
            f"{self.what}: this thread runs the loop, which is needed to end it: await it, use on_done(), or wait for "
            "its result() on a thread of its own (on gevent: in a greenlet)",
            operation=self.what,
        )

    def _switch(self, host: SwitchingHost, timeout: float | None) -> None:
        """A greenlet waits, and the loop goes on; one that is killed meanwhile gives the call up, as a task does."""
        try:
            ended = host.switch_until(lambda done: self.on_done(lambda call: done()), timeout)
        except HostUnavailable as error:
            raise self._in_the_way() from error
        except BaseException:
            self.cancel()
            raise
        if not ended and not self._done:
            raise TimeoutError(f"{self.what}: goes on after {timeout} s")

    async def _awaited(self) -> T:
        if not self._done:
            self._check_process()
            host = awaiting(self.bridge.host, "use on_done()")
            try:
                await host.wait_for(lambda done: self.on_done(lambda call: done()), None)
            except BaseException:
                self.cancel()
                raise
        return self._outcome()

    def _check_process(self) -> None:
        if self.bridge.forked:
            raise BridgeForked(
                f"{self.what}: it is the parent process that waits for it: open a connection of your own"
            )

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]  # whoever settles it keeps the promise of T


class LongCall(Call[T]):
    """Something that takes as long as it takes: with progress, and a way to cut it short.

    ``async with`` it to be sure that it has ended afterwards: leaving waits for the end and raises its error; leaving
    by an exception aborts it first.
    """

    def __init__(self, bridge: Bridge, mailbox: Mailbox, what: str) -> None:
        super().__init__(bridge, mailbox, what)
        self.progress: Progress | None = None
        """How far it is; None where nothing was told yet."""
        self._aborter: Step = _nothing
        self._listeners: list[Callable[[Progress], object]] = []

    def abort(self) -> Abort:
        """Cut it short: what it was done to is left as it was before, and the call fails with `JobAborted`; nothing
        happens where it has ended.  Returns at once; ``await call.abort()`` waits for the end.
        """
        if not self._done:
            self._aborter()
        return Abort(self)

    def on_progress(self, callback: Callable[[Progress], object]) -> None:
        """Have ``callback(progress)`` called on the loop's thread whenever more is known."""
        self._listeners.append(callback)

    async def __aenter__(self) -> LongCall[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self
        else:
            await self.abort()

    def __aiter__(self) -> AsyncIterator[Progress]:
        return _Progresses(self)

    # -- for whoever does it

    def progressed(self, progress: Progress) -> None:
        """Hook side."""
        self.progress = progress
        for listener in list(self._listeners):
            self._post(_Told(listener, progress))

    def aborts(self, aborter: Step) -> None:
        """What `abort` does."""
        self._aborter = aborter

    def _let_go(self) -> None:
        super()._let_go()
        self._aborter = _nothing


class _Progresses(AsyncIterator[Progress]):
    """What a long call tells, every one, until it has ended; its error is the call's own to raise.

    An object, not a generator: one whose ``async for`` is left early is the loop's to close, which trio warns of.
    """

    def __init__(self, call: LongCall[Any]) -> None:
        self._call = call
        self._queue: collections.deque[Progress | None] = collections.deque()  # None: it has ended
        self._bell = Bell()
        queue, bell = self._queue, self._bell

        def told(progress: Progress | None) -> None:
            queue.append(progress)
            bell.ring()

        call.on_progress(told)
        call.on_done(lambda call: told(None))  # by the same way as its progress, so after the last of it
        weakref.finalize(self, call._listeners.remove, told).atexit = False

    async def __anext__(self) -> Progress:
        while not self._queue:
            await awaiting(self._call.bridge.host, "use on_progress()").wait_for(self._wait, None)
        progress = self._queue.popleft()
        if progress is None:
            self._queue.append(None)  # for who asks again
            raise StopAsyncIteration
        return progress

    def _wait(self, done: Step) -> None:
        self._bell.wait(done, lambda: bool(self._queue))


class Abort:
    """The end of a call that was asked to end early: True where it was cut short, False where it was done before, the
    call's own error where it failed by itself.
    """

    def __init__(self, call: LongCall[Any]) -> None:
        self._call = call

    def result(self, timeout: float | None = None) -> bool:
        """As `Call.result`."""
        try:
            self._call.result(timeout)
        except JobAborted:
            return True
        return False

    def __await__(self) -> Generator[Any, None, bool]:
        try:
            yield from self._call.__await__()
        except JobAborted:
            return True
        return False


class _Told:
    def __init__(self, listener: Callable[[Progress], object], progress: Progress) -> None:
        self._listener = listener
        self._progress = progress

    def __call__(self) -> None:
        self._listener(self._progress)


def _nothing() -> None:
    pass
