"""How a bridge is watched at its work: who is told what, and the dispatcher that tells it.

While nobody observes, the bridge's dispatcher is a plain `Dispatcher`, whose passes have no line about any of this.
`observe` makes it an `ObservedDispatcher`: the same object, with all that it has in hand, as another class.  That one
hands the core's own `_dispatch` and `_fire` a round's events one at a time, each as a round of its own, and so knows
when each callback began and ended while every rule (what was removed meanwhile, nested passes, the budget) is kept by
the very code that keeps it otherwise.  The exchange is made between two passes, on the loop's thread, which also has
the host call the other `run_pass`.

The hooks of passes are called on the loop's thread, inside the pass; those of calls and connections on any.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from eventbridge.errors import HostUnavailable

from .affinity import DEBUG
from .dispatcher import CAREFUL_PASSES, Dispatcher
from .handles import Handle
from .host import on_loop
from .masks import TOLD
from .origin import FREES, Origin, origin
from .timers import Timer

if TYPE_CHECKING:
    from eventbridge.bridge import Bridge
    from eventbridge.connection.call import Call
    from eventbridge.connection.invocation import Ask
    from eventbridge.connection.supervisor import Link

REMEMBERED = 10_000
_lock = threading.RLock()  # over who observes whom, and who exchanges what; a signal's handler may come in
_exchanging: list[Dispatcher] = []


class Observer:
    """What can be heard of a bridge; each does nothing here.  Short, and raises nothing.  Times are nanoseconds of
    `time.monotonic_ns`.
    """

    def passed(self, began: int, ended: int, depth: int, callbacks: int) -> None:
        """A pass is over; ``depth`` 0: an outermost one."""

    def called(self, whose: Origin, began: int, ended: int, events: int, deadline: int) -> None:
        """A callback has returned.  ``events``: what a handle was told; ``deadline``: of a timeout, 0 for one of every
        pass.
        """

    def freed(self, began: int, ended: int, count: int) -> None:
        """So many ``free`` that were owed have been called."""

    def failed(self, error: BaseException, whose: Origin) -> None:
        """A callback or a free has raised."""

    def asked(self, ask: Ask) -> None:
        """A call has set out."""

    def begun(self, ask: Ask) -> None:
        """It is handed to the hypervisor's session."""

    def answered(self, ask: Ask, error: BaseException | None) -> None:
        """The hypervisor is done with it."""

    def settled(self, call: Call[Any]) -> None:
        """A call has ended for whoever made it."""

    def linked(self, link: Link, why: str) -> None:
        """A connection is made, or (`supervisor.state`) has come into another state."""


class ObservedDispatcher(Dispatcher):
    """A dispatcher that tells `observers`.  Its attributes may be read by any thread."""

    __slots__ = ()  # its base has them

    running: int
    """Since when a callback is running, or is about to; 0: none is."""
    calling: Origin
    """Whose it is."""
    thread: int
    """Who makes the passes; 0: nobody yet."""
    origins: dict[int, Origin]
    """Of those called lately: by id, a timeout's negative (H1: never used again)."""

    def run_pass(self) -> None:
        self.thread = threading.get_ident()
        before = self.callbacks
        began = monotonic_ns()
        try:
            super().run_pass()
        finally:
            ended = monotonic_ns()
            for observer in self.observers:
                observer.passed(began, ended, self._depth, self.callbacks - before)

    def _fire(self, timeouts: Iterator[Timer], room: int, limit: float) -> int:
        for timer in timeouts:
            deadline = timer.deadline
            outer = self._about_to_call(self.origin(timer))
            try:
                room = super()._fire(iter((timer,)), room, limit)
            finally:
                self._has_called(outer, 0, deadline)
            if not room:
                return 0
        if self._timeouts is timeouts:  # as the base's, of which each was one
            self._timeouts = None
        return room

    def _call_lone(self, events: list[tuple[int, int]]) -> bool:
        return False  # by way of `_dispatch`, as all others

    def _dispatch(self, events: Iterator[tuple[int, int]], room: int, before: float, limit: float) -> bool:
        for event in events:
            handle = self._table.fds.get(event[0])
            if handle is None:
                outer, told = self._about_to_call(FREES), 0
            else:
                outer, told = self._about_to_call(self.origin(handle)), TOLD[handle.mask][event[1]]
            called = self.callbacks
            try:
                finished = super()._dispatch(iter((event,)), room, self.running / 1e9, limit)
            finally:
                self._has_called(outer, told, 0)
            if not finished:
                return False
            room -= self.callbacks > called
        return True

    def _about_to_call(self, whose: Origin) -> tuple[Origin, int]:
        """Returns what is under way further out."""
        assert not (DEBUG and _is_held(self._registry.lock)), f"{whose} would be called with the registry's lock held"
        outer = self.calling, self.running
        self._careful = CAREFUL_PASSES  # the clock is looked at after each
        self._current = None
        self.calling, self.running = whose, monotonic_ns()
        return outer

    def _has_called(self, outer: tuple[Origin, int], events: int, deadline: int) -> None:
        whose, began = self.calling, self.running
        self.calling, self.running = outer
        if self._current is not None:  # it was called
            ended = monotonic_ns()
            for observer in self.observers:
                observer.called(whose, began, ended, events, deadline)

    def run_frees(self, most: int) -> None:
        owed = len(self._registry.frees)
        outer = self.calling, self.running
        began = monotonic_ns()
        self.calling, self.running = FREES, began
        try:
            super().run_frees(most)
        finally:
            self.calling, self.running = outer
            count = owed - len(self._registry.frees)
            if count > 0:
                ended = monotonic_ns()
                for observer in self.observers:
                    observer.freed(began, ended, count)

    def _contain(self, error: BaseException, item: Handle | Timer) -> None:
        for observer in self.observers:
            observer.failed(error, self.origin(item))
        super()._contain(error, item)

    def origin(self, item: Handle | Timer) -> Origin:
        """Looked at before the call: a timeout that its own callback removes has forgotten it afterwards."""
        key = item.id if isinstance(item, Handle) else -item.id
        found = self.origins.get(key)
        if found is None:
            if len(self.origins) >= REMEMBERED:
                self.origins.clear()
            found = origin(item)
            if key:  # 0: the bridge's own, of which there are several
                self.origins[key] = found
        return found


def _is_held(lock: Any) -> bool:
    """By this thread; what threading's own Condition asks."""
    return bool(lock._is_owned())


def observe(bridge: Bridge, observer: Observer) -> None:
    """Have it told from now on; of callbacks from the next pass on.  Any thread."""
    _change(bridge, lambda observers: (*observers, observer))


def leave(bridge: Bridge, observer: Observer) -> None:
    """Have it told no more.  Any thread; idempotent."""
    _change(bridge, lambda observers: tuple(other for other in observers if other is not observer))


def _change(bridge: Bridge, change: Any) -> None:
    with _lock:
        bridge.observers = bridge._dispatcher.observers = change(bridge.observers)
    _soon(bridge)


def _soon(bridge: Bridge) -> None:
    with contextlib.suppress(HostUnavailable):  # its loop is closed for good: there is nothing to be seen
        on_loop(bridge._berth.serving, lambda: _exchange(bridge))


def _exchange(bridge: Bridge) -> None:
    """The dispatcher's class for the one that it is to have; between two passes, on the thread that makes them."""
    dispatcher, host = bridge._dispatcher, bridge._berth.serving
    if dispatcher.in_pass:
        dispatcher.after_pass(lambda: _soon(bridge))
        return
    if not host.is_loop_thread():  # it has moved meanwhile
        _soon(bridge)
        return
    with _lock:
        if dispatcher in _exchanging:
            return  # another thread is at it (while nobody runs the loop any may be), and looks once more
        _exchanging.append(dispatcher)
    while _next_class(dispatcher, bridge.closed):
        try:
            if bridge._berth._serving is not None:  # else it is on its way, and is watched anew where it arrives
                bridge._watch_anew()
        except BaseException:
            _exchanging.remove(dispatcher)
            raise


def _next_class(dispatcher: Dispatcher, closed: bool) -> bool:
    """Exchange it; False, and nobody is at it any more, where it is as it is to be."""
    with _lock:
        wanted = ObservedDispatcher if dispatcher.observers else Dispatcher
        if type(dispatcher) is wanted or closed:
            _exchanging.remove(dispatcher)
            return False
        if wanted is ObservedDispatcher:
            dispatcher.origins, dispatcher.calling = {}, FREES  # type: ignore[attr-defined]  # which it is about to be
            dispatcher.running = dispatcher.thread = 0  # type: ignore[attr-defined]  # likewise
        dispatcher.__class__ = wanted
        return True


def _after_fork() -> None:
    """In the child: a thread of the parent's may have held it."""
    global _lock
    _lock = threading.RLock()
    _exchanging.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
