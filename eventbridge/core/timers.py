"""Deadlines: which timeouts are due, and when the next one will be.  Rules T1-T6.

A binary heap of (deadline, timer) with two kinds of laziness.  A timer moved *later*, as libvirt does to its
keepalive at every packet, keeps its place in the heap and is looked at again when that comes up.  A timer moved
*earlier*, disabled or removed leaves its old entry behind as litter, recognised by ``timer.queued`` and swept when
there is more litter than heap.  All times are integers: nanoseconds on CLOCK_MONOTONIC, so that "never early" (T3)
has no rounding in it.

Nothing here locks: the registry does, around every call.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

NEVER = 1 << 63
"""The deadline of a timer that is disabled or removed: later than any clock will say."""

_BY_DEADLINE = operator.attrgetter("deadline", "id")


def _gone(*given: object) -> None:
    """In the place of a removed timer's callback; never called."""


class Timer:
    """One timeout.  ``deadline`` 0 means every pass; ``queued`` is the deadline of its live heap entry, or 0 where it
    has none.
    """

    __slots__ = ("callback", "deadline", "free", "id", "interval", "opaque", "queued", "unpack")

    def __init__(
        self, callback: Callable[..., object], opaque: Any, free: Callable[[Any], object] | None, unpack: bool = False
    ) -> None:
        self.id = 0  # given by the registry
        self.interval = 0  # ns; 0 for a timer of every pass or a disabled one
        self.deadline = NEVER
        self.queued = 0
        self.callback = callback
        self.opaque = opaque
        self.free = free
        self.unpack = unpack  # call it with the first two of opaque, not with opaque

    def let_go(self) -> None:
        """Removed: the heap may refer to it until it would be due, and is not to keep alive what it would call."""
        self.callback, self.opaque = _gone, (None, None)

    def __lt__(self, other: Timer) -> bool:
        return self.id < other.id  # equal deadlines fire in the order of their making


class Timers:
    """The heap, and beside it the timers of every pass (a timeout of 0)."""

    def __init__(self) -> None:
        self.every_pass: dict[int, Timer] = {}
        self.heap: list[tuple[int, Timer]] = []
        self._litter = 0

    def set(self, timer: Timer, milliseconds: int) -> None:
        """Re-arm from now: -1 disables, 0 is every pass, n is every n ms with the first after n."""
        if milliseconds > 0:
            timer.interval = milliseconds * 1_000_000
            deadline = monotonic_ns() + timer.interval
            if timer.deadline and 0 < timer.queued <= deadline:
                timer.deadline = deadline  # later: as nearly always
                return
            if not timer.deadline:
                self.every_pass.pop(timer.id, None)
            self.schedule(timer, deadline)
        elif milliseconds == 0:
            timer.interval = timer.deadline = 0
            self.every_pass[timer.id] = timer
        else:
            self.disable(timer)

    def schedule(self, timer: Timer, deadline: int) -> None:
        """Due at ``deadline``; its heap entry is renewed only when that has become earlier."""
        timer.deadline = deadline
        queued = timer.queued
        if queued and queued <= deadline:
            return
        timer.queued = deadline
        heapq.heappush(self.heap, (deadline, timer))
        if queued:
            self._drop_one()

    def disable(self, timer: Timer) -> None:
        """Not due until it is set again.  Its heap entry stays, to be dropped or used again when it comes up."""
        if not timer.deadline:
            self.every_pass.pop(timer.id, None)
        timer.interval = 0
        timer.deadline = NEVER

    def forget(self, timer: Timer) -> None:
        """Removed for good."""
        self.disable(timer)
        if timer.queued:
            timer.queued = 0
            self._drop_one()

    def due(self, now: int) -> list[Timer]:
        """Take from the heap what is due, in the order of the deadlines; then the timers of every pass."""
        taken: list[Timer] = []
        heap = self.heap
        while heap and heap[0][0] <= now:
            queued, timer = heapq.heappop(heap)
            if timer.queued != queued:
                self._litter -= 1
                continue
            timer.queued = 0
            if 0 < timer.deadline <= now:
                taken.append(timer)
            elif now < timer.deadline < NEVER:  # it was moved later meanwhile
                timer.queued = timer.deadline
                heapq.heappush(heap, (timer.deadline, timer))
        if len(taken) > 1:
            taken.sort(key=_BY_DEADLINE)  # one that was moved later came off the heap in the order of its old place
        if self.every_pass:
            taken.extend(self.every_pass.values())
        return taken

    def _drop_one(self) -> None:
        """One more heap entry has become litter; sweep when there is more of it than of the rest."""
        self._litter += 1
        if self._litter <= 64 or self._litter <= len(self.heap) // 2:
            return
        old, self.heap[:] = list(self.heap), []  # in place: the dispatcher keeps a reference
        self._litter = 0
        for queued, timer in old:  # one by one: the handler of a signal may come in, and push its own
            if timer.queued == queued:
                heapq.heappush(self.heap, (queued, timer))
