"""Any story of a hypervisor, with losses, late events and late answers: in the end what is known is what is true, and
the events told, folded by somebody else's simple rules, imply it."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from eventbridge.plugins import BuiltIn
from eventbridge.testing import SteppingHost
from tests.support import scripted_hypervisor
from tests.support.desk import Desk
from tests.support.scripted_hypervisor import Scripted, uuid

DOMAINS = 3

# What may happen to a domain that is not there, is off, runs, is paused.
MOVES: dict[State | None, list[Kind]] = {
    None: [Kind.DEFINED, Kind.STARTED, Kind.JOB_ENDED],
    State.STOPPED: [Kind.STARTED, Kind.UNDEFINED, Kind.JOB_ENDED],
    State.RUNNING: [Kind.SUSPENDED, Kind.STOPPED, Kind.UNDEFINED, Kind.DEFINED, Kind.SHUTDOWN, Kind.DEVICE_ADDED],
    State.PAUSED: [Kind.RESUMED, Kind.STOPPED],
    State.SHUTDOWN: [Kind.STOPPED],
}

steps = st.one_of(
    st.tuples(st.just("happen"), st.integers(1, DOMAINS), st.integers(0, 5)),
    st.tuples(st.just("happen"), st.integers(1, DOMAINS), st.integers(0, 5)),
    st.tuples(st.sampled_from(["turn", "lose", "regain", "hold", "release", "hold answers", "answer"])),
)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        lookup.DRIVERS.built_in, "scripted", BuiltIn(f"{scripted_hypervisor.__name__}:driver", "it is a stand-in")
    )


class World:
    def __init__(self) -> None:
        self.hypervisor = scripted_hypervisor._hypervisors["scripted:///model"] = Scripted("model")
        self.hypervisor.add(1, State.RUNNING)
        self.host = SteppingHost()
        self.desk = Desk(self.hypervisor, self.host)
        self.desk.open()
        self.ids: dict[str, int | None] = {}
        self.runs: dict[str, bool] = {uuid(1): True}
        self.defined: dict[str, bool] = {uuid(1): True}
        self.steps: dict[str, Callable[[], object]] = {
            "turn": self.host.step,
            "lose": self.lose,
            "regain": self.regain,
            "hold": lambda: setattr(self.hypervisor, "holds_events", True),
            "release": self.hypervisor.release_events,
            "hold answers": lambda: setattr(self.hypervisor, "holds_answers", True),
            "answer": lambda: self.hypervisor.held and self.hypervisor.answer(self.hypervisor.held.popleft()),
        }

    def happen(self, number: int, which: int) -> None:
        key = uuid(number)
        info = self.hypervisor.domains.get(key)
        moves = MOVES[None if info is None else info.state]
        kind = moves[which % len(moves)]
        if info is not None and kind in (Kind.DEFINED, Kind.UNDEFINED) and info.persistent is (kind is Kind.DEFINED):
            return
        self.hypervisor.happen(kind, key)

    def lose(self) -> None:
        self.hypervisor.opening.clear()
        self.hypervisor.break_off()

    def regain(self) -> None:
        self.hypervisor.opening.set()

    def end(self) -> None:
        self.regain()
        self.hypervisor.release_events()
        self.hypervisor.release_answers()
        self.desk.until(self.is_whole)
        self.desk.settle()

    def is_whole(self) -> bool:
        connection, told = self.desk.connection, self.desk.told()
        ends = [sum(text.startswith(f"- {kind}") for text in told) for kind in ("connection_lost", "connection_rest")]
        return ends[0] == ends[1] and self.hypervisor.sessions == [connection.session]

    def fold(self, event: DomainEvent) -> None:
        """As somebody would who has only the stream."""
        assert event.domain is None or event.domain.uuid is not None
        key = "" if event.domain is None else event.domain.uuid or ""
        match event.kind:
            case Kind.STARTED:
                assert not self.runs.get(key), f"started twice: {event}"
                self.runs[key] = True
            case Kind.STOPPED:
                assert self.runs.get(key), f"stopped twice: {event}"
                self.runs[key] = False
            case Kind.DEFINED:
                self.defined[key] = True
            case Kind.UNDEFINED:
                self.defined[key] = False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40))
def test_what_is_known_and_what_was_told_are_the_truth(story: list[tuple[str, int, int]]) -> None:
    world = World()
    try:
        for name, *details in story:
            if name == "happen":
                world.happen(*details)
            else:
                world.steps[name]()
        world.end()
        assert world.desk.agrees(), (world.desk.told(), list(world.desk.connection.known), world.hypervisor.domains)
        for event in world.desk.events:
            world.fold(event)
        truth = world.hypervisor.domains
        assert {key for key, runs in world.runs.items() if runs} == {
            key for key, info in truth.items() if info.state is not State.STOPPED
        }
        assert {key for key, defined in world.defined.items() if defined} == {
            key for key, info in truth.items() if info.persistent
        }
        numbers = [event.sequence for event in world.desk.events]
        assert numbers == list(range(1, len(numbers) + 1))
        assert world.host.reported == []
    finally:
        world.hypervisor.opening.set()
        world.hypervisor.release_answers()
        world.desk.close()
