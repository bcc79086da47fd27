"""The dispatcher of a bridge that is observed.

While nothing observes a bridge, its dispatcher is a plain `Dispatcher`, whose passes have no line about observers.
`Observation.add` makes it an `ObservedDispatcher`: the same object, with all that it has in hand, as another class.
That class hands the core's own `_dispatch` and `_fire` a round's events one at a time, each as a round of its own.  So
it knows when each callback began and ended, while the code that keeps every rule (what was removed meanwhile, nested
passes, the budget) is the code that keeps it otherwise.  The exchange is made between two passes, on the loop thread,
which also has the host call the other `run_pass`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any

from eventbridge.errors import HostUnavailable

from .affinity import DEBUG
from .binding import Berth
from .dispatcher import CAREFUL_PASSES, Dispatcher
from .handles import Handle
from .host import on_loop
from .masks import TOLD
from .observer import Observer
from .origin import FREES, Origin, origin
from .timers import Timer

REMEMBERED = 10_000
_lock = threading.RLock()  # guards who observes what, and which exchange is under way; a signal handler may enter
_exchanging: list[Dispatcher] = []


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


class Observation:
    """The observers of one bridge.  Any thread.

    ``watch_anew()`` has the bridge's host watch the poller's fd with the dispatcher's present ``run_pass``;
    ``closed()`` says whether the bridge is closed; ``changed(observers)`` is called with each change of them.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        binding: Berth,
        watch_anew: Callable[[], None],
        closed: Callable[[], bool],
        changed: Callable[[tuple[Observer, ...]], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._binding = binding
        self._watch_anew = watch_anew
        self._closed = closed
        self._changed = changed

    def add(self, observer: Observer) -> None:
        """Call the observer from now on; of callbacks, from the next pass on."""
        self._change(lambda observers: (*observers, observer))

    def remove(self, observer: Observer) -> None:
        """Stop calling the observer.  Idempotent."""
        self._change(lambda observers: tuple(other for other in observers if other is not observer))

    def _change(self, change: Callable[[tuple[Observer, ...]], tuple[Observer, ...]]) -> None:
        with _lock:
            observers = self._dispatcher.observers = change(self._dispatcher.observers)
            self._changed(observers)
        self._soon()

    def _soon(self) -> None:
        with contextlib.suppress(HostUnavailable):  # its loop is closed for good: nothing more can be observed
            on_loop(self._binding.serving, self._exchange)

    def _exchange(self) -> None:
        """Exchange the dispatcher's class; between two passes, on the thread that makes them."""
        dispatcher, host = self._dispatcher, self._binding.serving
        if dispatcher.in_pass:
            dispatcher.after_pass(self._soon)
            return
        if not host.is_loop_thread():  # the bridge has moved meanwhile
            self._soon()
            return
        with _lock:
            if dispatcher in _exchanging:
                return  # another thread exchanges it (any may while nobody runs the loop), and looks once more
            _exchanging.append(dispatcher)
        while _next_class(dispatcher, self._closed()):
            try:
                if self._binding.is_served:  # else it is on its way, and is watched anew where it arrives
                    self._watch_anew()
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
