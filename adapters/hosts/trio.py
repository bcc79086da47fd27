"""trio: each fd is watched by a task, which waits for it to be readable, makes a pass, and waits again.

Which task: `attach()` inside ``trio.run`` makes it a system task.  It then outlives the main task, so what cleans up
there, cancelled or not, still has its calls answered; a task in a nursery would die with that nursery's first
cancellation.  ``TrioHost(nursery)`` is for whoever wants just that: the bridge's passes end with the nursery.

Facts it rests on: an exception that leaves a system task, or a call of ``run_sync_soon``, ends ``trio.run`` with
TrioInternalError, so that is how KeyboardInterrupt and SystemExit of a callback come out of a system task (as their
cause); out of a nursery they come as they are, in its exception group.  ``trio.run`` cannot be nested.  It makes an
epoll and a socket pair for each run: a run costs 0.4 ms.  A task that was woken for its fd runs even if it is
cancelled meanwhile.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import trio

from eventbridge.core.loop_host import Callback, LoopHost
from eventbridge.errors import HostUnavailable


class TrioHost(LoopHost):
    """``TrioHost()`` on the ``trio.run`` that this is called in; outside of any, on one of its own, which `run` begins
    and ends.  ``nursery``: whose task watches.
    """

    name = "trio"

    def __init__(self, nursery: trio.Nursery | None = None) -> None:
        super().__init__()
        self._token = _here()
        if nursery is not None and self._token is None:
            raise HostUnavailable("a nursery is of a trio.run: call this inside it")
        self._ours = self._token is None
        self._nursery = nursery
        self._watched: dict[int, Callback] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._main_scope = trio.CancelScope()

    @classmethod
    def running(cls) -> TrioHost | None:
        return None if _here() is None else cls()

    @property
    def loop(self) -> trio.lowlevel.TrioToken | None:
        """Which ``trio.run`` it is on; None while it is on none."""
        return self._token

    def watch(self, fd: int, callback: Callback) -> None:
        self._watched[fd] = callback
        if self._token is not None:
            self._spawn(fd, callback)

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)
        scope = self._scopes.pop(fd, None)
        if scope is not None and _here() is not None:  # else its task has gone with its run
            scope.cancel()

    def wake(self) -> None:
        token = self._token
        if token is None:
            return  # the next run begins with them
        try:
            token.run_sync_soon(self.run_soon, idempotent=True)
        except trio.RunFinishedError as error:
            if not self._ours:
                raise HostUnavailable("this trio.run has ended") from error

    def is_loop_thread(self) -> bool:
        return self._token is None or _here() is self._token

    def _spawn(self, fd: int, callback: Callback) -> None:
        scope = self._scopes[fd] = trio.CancelScope()
        start = trio.lowlevel.spawn_system_task if self._nursery is None else self._nursery.start_soon
        try:
            start(self._watching, fd, callback, scope)
        except RuntimeError as error:  # it is closed to new arrivals
            raise HostUnavailable("this trio.run, or nursery, has ended") from error

    @trio.lowlevel.enable_ki_protection  # Ctrl-C is for the main task: not in the middle of a pass
    async def _watching(self, fd: int, callback: Callback, scope: trio.CancelScope) -> None:
        with scope:
            while self._scopes.get(fd) is scope:  # scope.cancel_called reads the clock: half a microsecond a wake
                await trio.lowlevel.wait_readable(fd)
                if self._scopes.get(fd) is scope:
                    self.call(callback)

    # -- RunnableHost

    def run_loop(self) -> None:
        if not self._ours:
            raise HostUnavailable("this trio.run is running already: await something in it instead")
        if _here() is not None:
            raise HostUnavailable("trio cannot be run inside trio.run: attach() to that, and await something in it")
        try:
            trio.run(self._main)
        finally:
            self._token = None
            self._scopes.clear()

    async def _main(self) -> None:
        with trio.CancelScope() as self._main_scope:
            self._token = trio.lowlevel.current_trio_token()
            for fd, callback in self._watched.items():
                self._spawn(fd, callback)
            self.run_soon()
            await trio.sleep_forever()

    def stop_loop(self) -> None:
        self._main_scope.cancel()

    def give_back(self) -> None:
        """Each run gives back its own."""

    def close(self) -> None:
        if self._ours:  # else somebody's trio.run, which goes on
            super().close()

    # -- AwaitingHost

    async def wait_for(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
        token = _here()
        if token is None:
            raise HostUnavailable("this is no task of a trio.run: await it in one")
        event = trio.Event()

        def done() -> None:
            if _here() is token:
                event.set()
            else:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(event.set)

        subscribe(done)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await event.wait()
        return event.is_set()


def _here() -> trio.lowlevel.TrioToken | None:
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
