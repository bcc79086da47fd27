"""The heap of deadlines against a plain model, with a clock that the test turns."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from eventbridge import Bridge
from eventbridge.core import timers
from eventbridge.core.timers import NEVER, Timer, Timers
from eventbridge.testing import SteppingHost

MS = 1_000_000


def nothing(*_: Any) -> None:
    """A callback."""


class TimersAgainstAModel(RuleBasedStateMachine):
    """T1, T2, T3, T6: whatever is set, moved, disabled and forgotten, just what is due is given out, earliest first."""

    living = Bundle("living")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.now = 1_000 * MS
        self.patch.setattr(timers, "monotonic_ns", lambda: self.now)
        self.timers = Timers()
        self.model: dict[Timer, int] = {}  # when it is due; 0: every pass; NEVER: not
        self.count = 0

    def teardown(self) -> None:
        self.patch.undo()

    def put(self, timer: Timer, ms: int) -> None:
        self.timers.set(timer, ms)
        self.model[timer] = NEVER if ms < 0 else 0 if not ms else self.now + ms * MS

    times = st.integers(-1, 20)

    @rule(target=living, ms=times)
    def add(self, ms: int) -> Timer:
        timer = Timer(nothing, None, None)
        self.count += 1
        timer.id = self.count
        self.put(timer, ms)
        return timer

    @rule(timer=living, ms=times)
    def update(self, timer: Timer, ms: int) -> None:
        self.put(timer, ms)

    @rule(timer=consumes(living))
    def remove(self, timer: Timer) -> None:
        self.timers.forget(timer)
        del self.model[timer]

    @rule(ms=st.integers(0, 30))
    def time_passes_and_what_is_due_is_taken(self, ms: int) -> None:
        self.now += ms * MS
        taken = self.timers.due(self.now)
        due = sorted((when, timer.id) for timer, when in self.model.items() if 0 < when <= self.now)
        every = [timer.id for timer, when in self.model.items() if not when]
        assert [timer.id for timer in taken[: len(due)]] == [id for _, id in due]
        assert sorted(timer.id for timer in taken[len(due) :]) == sorted(every)
        for timer in taken:
            if timer.deadline:
                self.timers.schedule(timer, self.now + timer.interval)
                self.model[timer] = self.now + timer.interval

    @invariant()
    def the_earliest_in_the_heap_is_never_later_than_the_earliest_due(self) -> None:
        """Or the poller would be armed too late."""
        armed = [when for when in self.model.values() if 0 < when < NEVER]
        if armed:
            assert self.timers.heap[0][0] <= min(armed)


TestTimers = TimersAgainstAModel.TestCase
TestTimers.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_ten_thousand_removed_leave_no_litter() -> None:
    """T6: the heap is swept when more of it is litter than not."""
    heap = Timers()
    timers_ = [Timer(nothing, None, None) for _ in range(10_000)]
    for timer in timers_:
        heap.set(timer, 3_600_000)
    for timer in timers_:
        heap.forget(timer)
    assert len(heap.heap) <= 200


def test_a_timer_refreshed_a_million_times_has_one_entry() -> None:
    """T6: later is lazy."""
    heap = Timers()
    timer = Timer(nothing, None, None)
    for _ in range(1000):
        heap.set(timer, 3_600_000)
    assert len(heap.heap) == 1


def test_a_timer_moved_earlier_again_and_again_is_swept() -> None:
    """T6: each move leaves an entry behind, not for ever."""
    heap = Timers()
    timer = Timer(nothing, None, None)
    for ms in range(10_000, 0, -1):
        heap.set(timer, ms)
    assert len(heap.heap) <= 200


def test_a_removed_timeout_keeps_nothing_alive() -> None:
    """T5: its place in the heap may stay until it would be due, which may be in an hour."""

    class Thing:
        def due(self, id: int, opaque: object) -> None:
            raise AssertionError("it was removed")

    with Bridge(SteppingHost()) as bridge:
        thing, opaque = Thing(), Thing()
        ends = [weakref.ref(thing), weakref.ref(opaque)]
        id = bridge.add_timeout(3_600_000, thing.due, opaque)
        bridge.remove_timeout(id)
        del thing, opaque
        gc.collect()
        assert [end() for end in ends] == [None, None]
