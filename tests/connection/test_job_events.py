"""A stream that has emitted `job_started` emits the matching `job_ended`, once, before it ends: whichever comes first
of the hypervisor's answer, the end of a connection, the other side of a migration, and the user's own `close`."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from eventbridge import Domain, LongCall
from eventbridge.connection.event_stream import EventStream
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainRef, State
from eventbridge.plugins import BuiltIn
from eventbridge.testing import SteppingHost
from tests.connection.conftest import Desk
from tests.support import scripted_hypervisor
from tests.support.scripted_hypervisor import Scripted, uuid

D1 = uuid(1)
JOBS = (Kind.JOB_STARTED, Kind.JOB_ENDED)
COPY = {"event": "JOB_STATUS_CHANGE", "data": {"id": "copy"}}
ECHO = {"event": "MIGRATION", "data": {}}


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        lookup.DRIVERS.built_in, "scripted", BuiltIn(f"{scripted_hypervisor.__name__}:driver", "it is a stand-in")
    )


class End:
    """One hypervisor, a connection to it that is not opened again when it is lost, and a stream of its events."""

    def __init__(self, name: str, host: SteppingHost, *states: State) -> None:
        self.hypervisor = scripted_hypervisor._hypervisors[f"scripted:///{name}"] = Scripted(name)
        for number, state in enumerate(states, 1):
            self.hypervisor.add(number, state, persistent=False)
        self.desk = Desk(self.hypervisor, host, reconnect=None)
        self.desk.open()
        self.stream: EventStream = self.desk.connection.events()
        self.slow: EventStream = self.desk.connection.events(limit=2)
        self.hypervisor.holds_answers = True
        self.late: list[DomainEvent] = []
        self.closed = False
        self._copies = self._echoes = False

    def domain(self, number: int) -> Domain:
        return Domain(self.desk.connection, DomainRef(f"d{number}", uuid(number)))

    # -- what may happen, in any order

    def answer(self, error: Exception | None = None) -> None:
        """The oldest request that is under way."""
        if self.hypervisor.held:
            request = self.hypervisor.held.popleft()
            if error is not None:
                request.refuse(error)
            elif request.operation == "save":
                request.answer()
            else:
                self.hypervisor.answer(request)

    def refuse(self) -> None:
        self.answer(HypervisorError("no"))

    def answer_all(self) -> None:
        while self.hypervisor.held:
            self.answer()

    def lose(self) -> None:
        self.hypervisor.break_off()

    def die(self) -> None:
        """The only domain's process ends, and the connection with it."""
        if D1 in self.hypervisor.domains:
            self.hypervisor.happen(Kind.STOPPED, D1)
        self.lose()

    def close(self) -> None:
        self.closed = True
        self.desk.connection.close()

    def emit(self, kind: Kind, raw: dict[str, Any]) -> None:
        for session in self.hypervisor.sessions:
            info = self.hypervisor.domains.get(D1)
            if info is not None:
                session.emit(kind, info.domain, "theirs", raw)

    def copy(self) -> None:
        """Somebody else's job begins or ends."""
        self._copies = not self._copies
        self.emit(Kind.JOB_STARTED if self._copies else Kind.JOB_ENDED, COPY)

    def echo_and_answer(self) -> None:
        self._echo()
        self.answer()

    def answer_and_echo(self) -> None:
        """The hypervisor's event is later than its answer."""
        self._echo(self.answer)

    def _echo(self, before: Callable[[], object] = lambda: None) -> None:
        """As libvirt does: the end of our job is reported, and its beginning was not."""
        oldest = next(iter(self.hypervisor.held), None)
        before()
        if oldest is not None and oldest.operation == "migrate":
            self.emit(Kind.JOB_ENDED, {"event": "JOB_COMPLETED"})

    def echo_begin(self) -> None:
        """As QEMU does: a migration is reported from its beginning to its end."""
        if not self._echoes and any(request.operation == "migrate" for request in self.hypervisor.held):
            self._echoes = True
            self.emit(Kind.JOB_STARTED, ECHO)

    def echo_end(self) -> None:
        if self._echoes:
            self._echoes = False
            self.emit(Kind.JOB_ENDED, ECHO)

    def read(self) -> None:
        """One event, by a reader that does not keep up."""
        event = self.slow.take()
        if event is not None:
            self.late.append(event)

    # -- what was told

    def taken(self) -> list[DomainEvent]:
        return list(iter(self.stream.take, None))


def jobs(events: list[DomainEvent]) -> list[tuple[Kind, str | None]]:
    return [(event.kind, event.reason) for event in events if event.kind in JOBS]


def open_after(events: list[DomainEvent]) -> list[tuple[str, ...]]:
    """The jobs that have begun and not ended, each by its domain and name; AssertionError for an end too many."""
    left: collections.Counter[tuple[str, ...]] = collections.Counter()
    for event in events:
        if event.kind in JOBS:
            raw = event.raw.get("began", event.raw)
            name = (str(event.domain and event.domain.uuid), str(raw.get("operation") or raw.get("data")))
            left[name] += 1 if event.kind is Kind.JOB_STARTED else -1
            assert left[name] in (0, 1), f"{name} twice: {[str(event) for event in events]}"
    return list(+left)


# -- each order of the four


Order: TypeAlias = tuple[str, ...]
FOUR = ("answer", "lose", "confirm", "close")


@pytest.mark.parametrize("between", [True, False], ids=["turn", "at-once"])
@pytest.mark.parametrize("order", list(itertools.permutations(FOUR)), ids="-".join)
def test_each_order_of_answer_loss_confirmation_and_close(order: Order, between: bool) -> None:
    """``answer``: the source has sent the domain; ``lose``: its end of file; ``confirm``: the destination runs it."""
    host = SteppingHost()
    here, there = End("here", host, State.RUNNING), End("there", host)
    moved = sending(here, there)
    steps: dict[str, Callable[[], object]] = {
        "answer": here.answer_all,
        "lose": here.die,
        "confirm": there.answer_all,
        "close": here.close,
    }
    for name in order:
        steps[name]()
        if between:
            host.step_until_idle()
    until_ended(here, there)
    assert moved.done
    told = here.taken()
    assert open_after(told) == []
    ((_, began), (_, ended)) = jobs(told)
    assert began == "migrate" and ended in ("completed", "lost")
    if ended == "completed":
        assert moved.error is None
    for end in (here, there):
        end.desk.close()


def sending(here: End, there: End) -> LongCall[Domain]:
    """A migration whose source is at it."""
    call = here.domain(1).migrate(there.desk.connection)
    there.desk.until(lambda: bool(there.hypervisor.held))
    there.answer()
    here.desk.until(lambda: bool(here.hypervisor.held))
    return call


def until_ended(*ends: End) -> None:
    """Until nothing that was asked is under way."""
    for _ in range(20):
        for end in ends:
            end.answer_all()
            end.desk.settle()


def test_a_lone_hypervisors_stream_ends_with_the_end_of_its_job() -> None:
    """The destination answers long after the source has gone."""
    host = SteppingHost()
    here, there = End("here", host, State.RUNNING), End("there", host)
    moved = sending(here, there)
    here.answer()
    there.desk.until(lambda: bool(there.hypervisor.held))
    here.die()
    here.desk.settle()
    assert here.desk.connection.state == "failed"
    told = here.taken()
    assert [str(event) for event in told] == ["d1 job_started (migrate)", "d1 stopped", "- connection_lost (eof)"]
    assert not here.stream._ended, "a job is open"
    until_ended(here, there)
    assert moved.done and here.stream._ended
    assert [str(event) for event in here.taken()] == ["d1 job_ended (completed)"]
    assert jobs(there.taken()) == [(Kind.JOB_STARTED, "migrate_in"), (Kind.JOB_ENDED, "completed")]
    for end in (here, there):
        end.desk.close()


def test_a_migration_to_a_connection_that_is_being_closed_ends() -> None:
    """Its first step is refused while the connection's mailbox is closed, and that must be told all the same."""
    host = SteppingHost()
    here, there = End("here", host, State.RUNNING), End("there", host)
    there.close()
    moved = here.domain(1).migrate(there.desk.connection)
    here.desk.until(lambda: moved.done)
    assert isinstance(moved.error, ConnectionLost)
    for end in (here, there):
        end.desk.close()


# -- every story


NAMES = "answer refuse lose die close copy echo_begin echo_end echo_and_answer answer_and_echo read".split()
steps = st.one_of(
    st.just("turn"),
    st.sampled_from([f"{name} {end}" for name in NAMES for end in ("here", "there")]),
    st.sampled_from(["save", "migrate", "abort"]),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40))
def test_every_job_has_one_end_before_the_stream_has(story: list[str]) -> None:
    host = SteppingHost()
    here, there = End("here", host, State.RUNNING, State.RUNNING), End("there", host)
    saves: list[LongCall[Any]] = []
    migrations: list[LongCall[Any]] = []
    try:
        for step in story:
            name, _, where = step.partition(" ")
            if name == "turn":
                host.step()
            elif name == "migrate":
                migrations.append(here.domain(1).migrate(there.desk.connection))
            elif name == "save":
                saves.append(here.domain(2).save("/nowhere"))
            elif name == "abort":
                for call in [*saves, *migrations]:
                    call.abort()
            else:
                getattr(here if where == "here" else there, name)()
        until_ended(here, there)
        assert all(call.done for call in [*saves, *migrations])
        for end in (here, there):
            check(end)
        reasons_agree(here, "save", saves)
        reasons_agree(here, "migrate", migrations)
        reasons_agree(there, "migrate_in", migrations)
        assert host.reported == []
    finally:
        for end in (here, there):
            end.answer_all()
            end.desk.close()


def check(end: End) -> None:
    """The stream as its reader has it, when the user has closed the connection, or did so before."""
    closing = end.desk.connection.close()
    end.desk.until(lambda: closing.done)
    told = end.taken()
    assert open_after(told) == open_after(end.desk.events) == [], [str(event) for event in told]
    assert end.stream._ended
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    late = end.late + list(iter(end.slow.take, None))
    assert open_after(late) == [], [str(event) for event in late]


def reasons_agree(end: End, operation: str, calls: list[LongCall[Any]]) -> None:
    """Whatever completed is told as completed, and nothing else is; but for what was open when the user closed."""
    ended = [event for event in end.desk.events if event.kind is Kind.JOB_ENDED]
    completed = sum(event.reason == "completed" and event.raw.get("operation") == operation for event in ended)
    succeeded = sum(call.error is None for call in calls)
    assert completed == succeeded or (end.closed and completed < succeeded), [str(event) for event in ended]
