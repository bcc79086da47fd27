"""Story and calls mixed, however they fall: answers and events are one history, and it is the truth."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_watch import Asked, Watched, listed

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim import simulation
from eventbridge.adapters.hypervisors.sim.guests import State
from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import DomainInfo, DomainRef

pytestmark = pytest.mark.slow

HOSTS = ("asyncio", "libuv", "select")
numbers = itertools.count()

domains = st.integers(0, 5).map(lambda index: f"simulated-{index}" if index < 4 else f"made-{index}")
OPERATIONS = (
    "start suspend resume shutdown reboot destroy undefine info managed_save save define create restore list".split()
)
calls = st.tuples(st.just("ask"), st.sampled_from(OPERATIONS), domains, st.booleans())
happenings = st.tuples(st.just("happen"), st.integers(1, 8))
others = st.sampled_from([("pass",), ("answer",), ("break",)])
actions = st.lists(st.one_of(calls, calls, happenings, others), max_size=40)


class Mixed:
    """One connection of a world, and everything that it was told and answered, in one order."""

    def __init__(self, host: str, query: str) -> None:
        self.query = f"world=mixed-{next(numbers)}&domains=4&memory=64&{query}"
        self.simulation = simulation.simulation_of(f"sim:///default?{self.query}")
        self.bridge = Bridge(host)
        self.asked: list[Asked] = []
        self.connect()

    def connect(self) -> None:
        """What it begins with is known: while nobody is connected, time stands still."""
        self.before: list[DomainInfo] = self.simulation.domains()
        self.watched = Watched(self.bridge, f"sim:///default?{self.query}")
        self.watched.open()

    def ask(self, operation: str, name: str, paused: bool) -> None:
        arguments: dict[str, Any] = {"paused": paused, "path": name, "definition": {"name": name}}
        if operation == "restore":
            del arguments["definition"]
        asked = Listed(self) if operation == "list" else Asked(operation, DomainRef(name), arguments)
        self.watched.subscription.begin(asked.request)
        self.asked.append(asked)

    def answer(self) -> None:
        self.watched.wait(lambda: all(one.done for one in self.asked))
        for one in self.asked:
            with contextlib.suppress(HypervisorError, ConnectionLost):
                one()
        self.asked.clear()

    def break_it(self) -> None:
        told = self.watched.events
        self.simulation.break_connections()
        self.watched.wait(lambda: told[-1:] != [] and told[-1].kind is Kind.CONNECTION_LOST)
        self.check_numbers(told)
        self.answer()
        self.watched.disconnect()
        self.connect()

    def take(self, action: tuple[Any, ...]) -> None:
        match action:
            case "ask", operation, name, paused:
                self.ask(operation, name, paused)
            case "happen", count:
                self.simulation.happen(count)
            case ("pass",):
                self.bridge.run(timeout=0.001)
            case ("answer",):
                self.answer()
            case ("break",):
                self.break_it()

    def check(self) -> None:
        """The fold of what was told is what is listed, and what is."""
        self.answer()
        domains = self.watched.settle()
        assert self.watched.folded(self.before) == listed(domains)
        assert domains == {info.domain.name: info for info in self.simulation.domains()}
        self.check_numbers(self.watched.events)
        assert not self.watched.errors

    def check_numbers(self, told: list[Any]) -> None:
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
        happened = [event.raw["number"] for event in told if event.domain is not None]
        assert happened == list(range(happened[0], happened[0] + len(happened))) if happened else True

    def close(self) -> None:
        self.watched.close()
        simulation.forget(self.watched.subscription.parameters.world)


class Listed(Asked):
    """A ``list`` that is compared with what was told, at the moment of its answer."""

    def __init__(self, mixed: Mixed) -> None:
        super().__init__("list", None, {})
        self._mixed = mixed

    def ended(self, request: object, value: Any, error: BaseException | None) -> None:
        super().ended(request, value, error)
        if error is None:
            mixed = self._mixed
            assert listed({info.domain.name: info for info in value}) == mixed.watched.folded(mixed.before)


@contextlib.contextmanager
def mixed_on(host: str, query: str) -> Iterator[Mixed]:
    mixed = Mixed(host, query)
    try:
        yield mixed
    finally:
        mixed.close()


@pytest.mark.parametrize("host", HOSTS)
@settings(max_examples=60, deadline=None)
@given(actions=actions, seed=st.integers(0, 1000))
def test_whatever_is_asked_between_the_fold_of_the_events_is_the_truth(
    host: str, actions: list[tuple[Any, ...]], seed: int
) -> None:
    """Told by hand, so that it can be told again: calls, story and breaks in any order."""
    with mixed_on(host, f"seed={seed}&rate=1&events=100000") as mixed:
        for action in actions:
            mixed.take(action)
        mixed.check()


@pytest.mark.parametrize("host", HOSTS)
@settings(max_examples=15, deadline=None)
@given(actions=actions, seed=st.integers(0, 1000))
def test_so_it_is_where_the_story_goes_on_by_itself(host: str, actions: list[tuple[Any, ...]], seed: int) -> None:
    """At twenty thousand events a second, to its end."""
    with mixed_on(host, f"seed={seed}&rate=20000&events=400") as mixed:
        for action in actions:
            mixed.take(action)
        world = mixed.watched.subscription.world
        mixed.watched.wait(lambda: world.story.peek(0) is None and world.story.peek(1) is None)
        mixed.check()


@settings(max_examples=50, deadline=None)
@given(actions=st.lists(calls, max_size=30), seed=st.integers(0, 1000))
def test_a_calls_own_event_comes_before_its_answer(actions: list[tuple[Any, ...]], seed: int) -> None:
    """Exactly one event for each that was done, none for one that was refused; in between nothing of anybody else's."""
    one_step = {"start", "suspend", "resume", "reboot", "destroy", "undefine"}
    with mixed_on("select", f"seed={seed}&events=0") as mixed:
        watched = mixed.watched
        for _, operation, name, _ in actions:
            told = len(watched.events)
            try:
                watched.answer(operation if operation in one_step else "start", name)
            except EventBridgeError:
                assert len(watched.events) == told
            else:
                assert len(watched.events) == told + 1
                assert watched.events[-1].domain.name == name
        mixed.check()


def test_where_nobody_calls_the_story_is_its_seeds_alone() -> None:
    """Questions are no calls that change anything: the same story with and without."""
    stories = []
    for ask in (False, True):
        with mixed_on("select", "seed=9&rate=1&events=3000") as mixed:
            for _ in range(30):
                mixed.simulation.happen(100)
                if ask:
                    for index in range(4):
                        mixed.ask("info", f"simulated-{index}", False)
                    mixed.ask("list", "", False)
                mixed.watched.settle()
            mixed.check()
            events = mixed.watched.events
            stories.append([(event.kind, event.reason, event.domain) for event in events])
    assert len(stories[0]) == 3000
    assert stories[0] == stories[1]


def test_a_call_leaves_no_gap_and_what_follows_fits() -> None:
    """The story goes on from the state that the call left, with as many events as it was to have."""
    with mixed_on("select", "seed=3&rate=1&events=2000") as mixed:
        guests = list(mixed.watched.subscription.world.cast)
        asked = 0
        for _ in range(200):
            mixed.simulation.happen(10)
            for guest in guests:
                if guest.state is State.RUNNING:
                    mixed.ask("destroy", guest.name, False)
                    asked += 1
            mixed.answer()
        mixed.check()
        assert asked > 100
        assert len(mixed.watched.events) == 2000 + asked
