"""The timeouts' rules, to the nanosecond, and the pass's two milliseconds: under the fake clock, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from eventbridge import Bridge
from eventbridge.testing import FakeClock, ScriptedFd, SteppingHost

MS = 1_000_000


class Watched:
    """A bridge on a stepping host, and when its timeouts fire: in ns since it was made."""

    def __init__(self, clock: FakeClock, host: SteppingHost) -> None:
        self.clock, self.host, self.start = clock, host, clock.now
        self.bridge = Bridge(host)
        self.fired: list[int] = []

    def fire(self, id: int, opaque: object) -> None:
        self.fired.append(self.clock.now - self.start)

    def advance(self, **much: int) -> list[int]:
        """A late loop: the time passes, and then it turns.  When timeouts have fired so far."""
        self.clock.advance(**much)
        self.host.step_until_idle()
        return self.fired

    def run(self, **much: int) -> list[int]:
        """A loop that is never late."""
        self.clock.run(self.host.step_until_idle, **much)
        return self.fired


@pytest.fixture
def watched(clock: FakeClock, stepping: SteppingHost) -> Iterator[Watched]:
    watched = Watched(clock, stepping)
    with watched.bridge:
        yield watched


def test_n_is_every_n_ms(watched: Watched) -> None:
    """T1: first after n."""
    watched.bridge.add_timeout(10, watched.fire)
    assert watched.run(ms=45) == [10 * MS, 20 * MS, 30 * MS, 40 * MS]


def test_0_is_once_a_pass_and_minus_1_never(watched: Watched) -> None:
    """T1: whether time passes or not."""
    watched.bridge.add_timeout(-1, watched.fire)
    assert watched.run(s=100) == []
    watched.bridge.add_timeout(0, watched.fire)
    for passes in range(1, 5):
        assert watched.host.step()
        assert watched.fired == [100_000 * MS] * passes


@pytest.mark.parametrize("ms", [1, 2, 3, 20, 1000, 3_600_000, 2**31 - 1])
@pytest.mark.parametrize("offset", [0, 1, 333, 999_999])
def test_not_early_by_a_nanosecond(watched: Watched, ms: int, offset: int) -> None:
    """T3: and not late by one, whatever the clock read when it was set."""
    watched.clock.advance(ns=offset)
    watched.bridge.add_timeout(ms, watched.fire)
    assert watched.advance(ms=ms - 1, us=999, ns=999) == []
    assert watched.advance(ns=1) == [offset + ms * MS]


def test_not_early_by_a_nanosecond_after_many_periods(watched: Watched) -> None:
    """T3: nothing is rounded, so nothing adds up."""
    watched.bridge.add_timeout(7, watched.fire)
    assert watched.run(s=7) == [period * 7 * MS for period in range(1, 1001)]
    assert watched.bridge.stats().lag == 0


@pytest.mark.parametrize("late", [10, 11, 19, 20, 21, 95, 100_000])
def test_a_late_loop_fires_once(watched: Watched, late: int) -> None:
    """T4: not once for each period missed; and the next period counts from then."""
    watched.bridge.add_timeout(10, watched.fire)
    assert watched.advance(ms=late) == [late * MS]
    assert watched.advance(ms=9, us=999, ns=999) == [late * MS]
    assert watched.advance(ns=1) == [late * MS, (late + 10) * MS]


def test_late_ones_fire_in_the_order_of_their_deadlines(watched: Watched) -> None:
    """T4: of many that were missed together, each once."""
    order: list[int] = []
    for ms in (30, 10, 20):
        watched.bridge.add_timeout(ms, lambda id, ms: order.append(ms), ms)
    watched.advance(ms=1000)
    assert order == [10, 20, 30]
    assert watched.bridge.stats().lag == pytest.approx(0.99)


def test_an_update_counts_from_now(watched: Watched) -> None:
    """T2: later, again and again, and it does not fire; then it does, at the new deadline exactly."""
    id = watched.bridge.add_timeout(20, watched.fire)
    for _ in range(10):
        assert watched.advance(ms=19, us=999) == []
        watched.bridge.update_timeout(id, 20)
    assert watched.advance(ms=19, us=999, ns=999) == []
    assert watched.advance(ns=1) == [10 * 19_999_000 + 20 * MS]


def test_an_update_to_earlier_is_seen_at_once(watched: Watched) -> None:
    """T2: the poller is armed for it before the loop turns again; the old deadline is nothing any more."""
    id = watched.bridge.add_timeout(3_600_000, watched.fire)
    watched.host.step_until_idle()
    watched.clock.advance(ms=5)
    watched.bridge.update_timeout(id, 1)
    assert watched.clock.deadline == watched.clock.now + MS
    assert watched.run(ms=1) == [6 * MS]
    watched.bridge.update_timeout(id, -1)
    assert watched.advance(s=7200) == [6 * MS]


def test_set_to_the_old_deadlines_moment_it_fires_once(watched: Watched) -> None:
    """T2: updated just when it is due, and before the loop has turned."""
    id = watched.bridge.add_timeout(10, watched.fire)
    watched.clock.advance(ms=10)
    watched.bridge.update_timeout(id, 10)
    watched.host.step_until_idle()
    assert watched.fired == []
    assert watched.run(ms=10) == [20 * MS]


def test_removed_when_due_it_does_not_fire_and_is_freed_once(watched: Watched) -> None:
    """T5."""
    freed: list[object] = []
    id = watched.bridge.add_timeout(10, watched.fire, "opaque", freed.append)
    watched.clock.advance(ms=10)
    watched.bridge.remove_timeout(id)
    assert watched.run(ms=100) == []
    assert freed == ["opaque"]


def test_ten_thousand_far_ones_are_not_looked_at(
    watched: Watched, scripted_fd: Callable[..., ScriptedFd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T6: nothing of theirs is in a pass before the first is due, and then they are looked at once."""
    looks: list[int] = []
    take_due = watched.bridge._registry.take_due
    monkeypatch.setattr(watched.bridge._registry, "take_due", lambda: looks.append(1) or take_due())
    for ms in range(10_000):
        watched.bridge.add_timeout(1_000_000 + ms, watched.fire)
    ready = scripted_fd(content=b"x")
    watched.bridge.add_handle(ready.fileno(), 1, lambda *_: None)
    for _ in range(100):
        assert watched.host.step()
    assert looks == []
    ready.read()
    assert watched.advance(s=1000) == [1_000_000 * MS]
    assert len(looks) == 1


@pytest.mark.parametrize("each, in_a_pass", [(100, 20), (400, 5), (700, 3), (1500, 2), (5000, 1)])
def test_a_pass_of_slow_callbacks_ends_after_two_milliseconds(watched: Watched, each: int, in_a_pass: int) -> None:
    """D2: each takes so many us; the pass ends with the first that ends later, and the rest come in the next."""
    order: list[int] = []
    passes: list[int] = []

    def slow(id: int, number: int) -> None:
        watched.clock.advance(us=each, ns=100)
        order.append(number)
        passes.append(watched.bridge._dispatcher.passes)

    for number in range(60):
        watched.bridge.add_timeout(1, slow, number)
    watched.clock.advance(ms=1)
    while len(order) < 60:
        assert watched.host.step()
    counts = [passes.count(number) for number in sorted(set(passes))]
    assert sorted(order[:60]) == list(range(60)), "nobody twice before all once"
    assert set(counts[: 60 // in_a_pass - 1]) == {in_a_pass}


class Waiting:
    """A `DirectSource` that wishes for nothing but a deadline."""

    def __init__(self, due: float, drain: Callable[[int], None]) -> None:
        self.due: float | None = due
        self.then = drain

    def fileno(self) -> int:
        return 0

    def events(self) -> int:
        return 0

    def deadline(self) -> float | None:
        return self.due

    def drain(self, events: int) -> None:
        self.due = None
        self.then(events)

    def detached(self) -> None: ...


def test_a_sources_deadline_is_rounded_up_to_the_millisecond(watched: Watched) -> None:
    """T3: never early."""
    drained: list[tuple[int, int]] = []
    source = Waiting(
        watched.clock.monotonic() + 0.0025,
        lambda events: drained.append((events, watched.clock.now - watched.start)),
    )
    watched.bridge.add_source(source)
    watched.run(ms=2, us=999, ns=999)
    assert drained == []
    watched.run(s=1)
    assert drained == [(0, 3 * MS)]
