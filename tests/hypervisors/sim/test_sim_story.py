"""What the simulated hypervisor tells: the same everywhere, and legal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from sim_watch import Watched, story_of

from eventbridge.adapters.hypervisors.sim import guests
from eventbridge.adapters.hypervisors.sim.guests import Happening
from eventbridge.adapters.hypervisors.sim.population import Cast
from eventbridge.adapters.hypervisors.sim.scenario import Story
from eventbridge.hypervisor.events import DomainEvent, Kind

HOSTS = ("asyncio", "libuv", "select")
Watch = Callable[..., Watched]


def told(seed: int, domains: int, count: int, lanes: int = 1) -> list[Happening]:
    """The first ``count`` happenings; each lane has looked ahead, the last one first."""
    cast = Cast(seed, domains, 1)
    story = Story(seed, cast, lambda guest: guest % lanes, count)
    happenings: list[Happening] = []
    for _ in range(count):
        for lane in reversed(range(lanes)):
            story.peek(lane)
        happening = story.take(count)
        assert happening
        happenings.append(happening)
    assert not any(story.peek(lane) for lane in range(lanes))
    return happenings


def test_one_seed_tells_one_story_on_every_host(watch: Watch) -> None:
    """Determinism: kinds, domains, ids and reasons, in order, whatever loop carries them."""
    stories = []
    for host in HOSTS:
        watched = watch("domains=40&seed=7&rate=20000&events=1000", host)
        watched.until(1000)
        stories.append(story_of(watched.events))
    assert stories[0] == stories[1] == stories[2]
    assert [number for number, *_ in stories[0]] == list(range(1, 1001))


def test_another_seed_tells_another_story_about_other_uuids(watch: Watch) -> None:
    """Determinism has a seed."""
    one, other = watch("seed=1&rate=5000&events=50"), watch("seed=2&rate=5000&events=50")
    one.until(50)
    other.until(50)
    assert story_of(one.events) != story_of(other.events)
    assert not {event.domain.uuid for event in one.events} & {event.domain.uuid for event in other.events}


def test_the_story_does_not_depend_on_how_it_is_divided() -> None:
    """Lanes look ahead in one story; whoever looks first changes nothing."""
    assert told(3, 50, 500, lanes=1) == told(3, 50, 500, lanes=7)


def test_the_story_is_the_one_it_has_always_been() -> None:
    """Determinism between versions of Python and of this project: a changed table changes everybody's stories."""
    assert [(h.guest, str(h.kind), h.reason, h.id) for h in told(1, 3, 6)] == [
        (0, "started", "booted", 1),
        (2, "started", "booted", 2),
        (1, "started", "booted", 3),
        (1, "disk_ejected", None, 3),
        (0, "suspended", "paused", 1),
        (2, "rebooted", None, 2),
    ]
    assert guests.uuid_of(1, 0) == "bb0c89a5-65b7-5a44-bd8b-ab8ca1efa769"


# What a plain observer knows: which kinds are legal while a domain is...
LEGAL = {
    "off": {Kind.STARTED, Kind.DEFINED, Kind.UNDEFINED},
    "absent": {Kind.DEFINED},
    "running": {
        Kind.SUSPENDED,
        Kind.REBOOTED,
        Kind.SHUTDOWN,
        Kind.CRASHED,
        Kind.PM_SUSPENDED,
        Kind.DISK_EJECTED,
        Kind.STOPPED,
    },
    "suspended": {Kind.RESUMED, Kind.STOPPED},
    "asleep": {Kind.WOKEN, Kind.STOPPED},
    "ending": {Kind.STOPPED},
}
BECOMES = {
    Kind.STARTED: "running",
    Kind.RESUMED: "running",
    Kind.WOKEN: "running",
    Kind.SUSPENDED: "suspended",
    Kind.PM_SUSPENDED: "asleep",
    Kind.SHUTDOWN: "ending",
    Kind.CRASHED: "ending",
    Kind.STOPPED: "off",
    Kind.DEFINED: "off",
    Kind.UNDEFINED: "absent",
}
# ... and with which reason a domain stops, by what its guest did last.
STOPS = {Kind.SHUTDOWN: {"shutdown"}, Kind.CRASHED: {"crashed"}}
OTHERWISE = {"destroyed", "saved"}


def check_life(events: list[DomainEvent]) -> None:
    """One domain's events against a plain model of a life."""
    state, id, before = "off", None, None
    for event in events:
        assert event.kind in LEGAL[state], f"{event} of a domain that is {state}"
        if event.kind is Kind.STARTED:
            id = event.domain.id
            assert id
        elif event.kind is Kind.STOPPED:
            assert event.reason in STOPS.get(before, OTHERWISE), f"{event} after {before}"
            id = None
        assert event.domain.id == id
        state, before = BECOMES.get(event.kind, state), event.kind


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_life_is_legal(watch: Watch, seed: int) -> None:
    """A domain's end is exactly one ``stopped``, whose reason says why; what its guest did before is an event of its
    own."""
    watched = watch(f"domains=20&seed={seed}&rate=50000&events=4000")
    watched.until(4000)
    lives = defaultdict(list)
    for event in watched.events:
        lives[event.domain.name].append(event)
    assert len(lives) == 20
    for events in lives.values():
        check_life(events)
    ids = [event.domain.id for event in watched.events if event.kind is Kind.STARTED]
    assert ids == sorted(set(ids)), "a new id at each start"


def test_everything_in_the_table_happens() -> None:
    """No transition is there for show."""
    seen = Counter((happening.kind, happening.reason) for happening in told(1, 10, 20_000))
    assert set(seen) == {(step.kind, step.reason) for steps in guests.TRANSITIONS.values() for step in steps}


def test_both_models_carry_half_and_say_that_they_are_simulated(watch: Watch) -> None:
    """Even-numbered domains by the callback model, odd-numbered by the direct-fd one."""
    watched = watch("domains=10&rate=20000&events=400")
    watched.until(400)
    by_model = defaultdict(set)
    for event in watched.events:
        assert event.raw["simulated"] is True
        assert event.domain.name.startswith("simulated-")
        by_model[event.raw["model"]].add(int(event.domain.name.removeprefix("simulated-")))
    assert by_model == {"callback": {0, 2, 4, 6, 8}, "direct-fd": {1, 3, 5, 7, 9}}
    # five pipes and one socket; two timeouts of the callback model, one deadline of the direct one
    assert (watched.bridge.stats().handles, watched.bridge.stats().timeouts) == (6, 3)


def test_a_story_ends_where_it_was_told_to(watch: Watch) -> None:
    """``events=N``: N of them, and not one more."""
    watched = watch("rate=5000&events=30")
    watched.until(30)
    watched.bridge.run(timeout=0.05)
    assert len(watched.events) == 30
