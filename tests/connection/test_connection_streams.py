"""Streams: every reader has each event once, and a slow one is told what it missed."""

from __future__ import annotations

import pytest

from eventbridge import StreamLagged
from eventbridge.connection.event_stream import EventStream
from eventbridge.hypervisor.events import DomainEvent, Kind
from tests.support.desk import Desk
from tests.support.scripted_hypervisor import uuid

D1, D2, D3 = uuid(1), uuid(2), uuid(3)


def taken(stream: EventStream) -> list[DomainEvent]:
    return list(iter(stream.take, None))


def told(stream: EventStream) -> list[str]:
    return [f"{event}{' *' if event.synthetic else ''}" for event in taken(stream)]


def happen(desk: Desk, *story: tuple[Kind, str]) -> None:
    for kind, key in story:
        desk.hypervisor.happen(kind, key)
    desk.settle()


def test_every_reader_has_each_event_once(desk: Desk) -> None:
    one, two = desk.connection.events(), desk.connection.events()
    happen(desk, (Kind.SUSPENDED, D1), (Kind.RESUMED, D1))
    assert told(one) == told(two) == ["d1 suspended", "d1 resumed"]
    assert taken(one) == []


def test_a_reader_has_what_happens_after_it_came(desk: Desk) -> None:
    happen(desk, (Kind.SUSPENDED, D1))
    stream = desk.connection.events()
    happen(desk, (Kind.RESUMED, D1))
    assert told(stream) == ["d1 resumed"]


def test_a_slow_reader_is_told_how_many_it_missed_and_what_has_changed(desk: Desk) -> None:
    slow, quick = desk.connection.events(limit=2), desk.connection.events()
    happen(desk, (Kind.SUSPENDED, D1), (Kind.RESUMED, D1))
    happen(desk, (Kind.SUSPENDED, D1), (Kind.STARTED, D3), (Kind.RESUMED, D2), (Kind.SUSPENDED, D2))
    assert slow.missed == 4 and slow.waiting == 2
    events = taken(slow)
    assert [str(event) for event in events] == [
        "d1 suspended",
        "d1 resumed",
        "- other (lagged)",
        "d1 suspended (inferred)",
        "d3 started (inferred)",
    ]
    assert [event.synthetic for event in events] == [False, False, True, True, True]
    assert events[2].raw == {"missed": 4, "first": 3, "last": 6}
    assert len(taken(quick)) == 6


def test_after_that_it_goes_on_without_a_gap(desk: Desk) -> None:
    slow = desk.connection.events(limit=1)
    happen(desk, (Kind.SUSPENDED, D1), (Kind.RESUMED, D1), (Kind.STARTED, D3))
    last = taken(slow)[-1].sequence
    happen(desk, (Kind.STOPPED, D3))
    assert [(str(event), event.sequence) for event in taken(slow)] == [("d3 stopped", last + 1)]


def test_what_comes_while_it_catches_up_comes_after(desk: Desk) -> None:
    slow = desk.connection.events(limit=1)
    happen(desk, (Kind.SUSPENDED, D1), (Kind.STARTED, D3))
    first, lagged = slow.take(), slow.take()
    happen(desk, (Kind.STOPPED, D3))
    assert [str(event) for event in (first, lagged, *taken(slow))] == [
        "d1 suspended",
        "- other (lagged)",
        "d3 started (inferred)",
        "d3 stopped",
    ]


def test_a_domain_that_came_and_went_meanwhile_is_not_told_of(desk: Desk) -> None:
    slow = desk.connection.events(limit=1)
    happen(desk, (Kind.SUSPENDED, D1), (Kind.STARTED, uuid(7)), (Kind.STOPPED, uuid(7)))
    assert told(slow) == ["d1 suspended", "- other (lagged) *"]


def test_a_slow_reader_is_told_the_end_of_a_job_that_it_knows_has_begun(desk: Desk) -> None:
    """Of the jobs that have begun meanwhile it is told only of those that go on."""
    slow = desk.connection.events(limit=1)
    job = {"event": "JOB_STATUS_CHANGE", "data": {"id": "copy"}}
    other = {"event": "JOB_STATUS_CHANGE", "data": {"id": "backup"}}
    (session,) = desk.hypervisor.sessions
    ref = desk.hypervisor.domains[D1].domain
    for kind, raw in (
        (Kind.JOB_STARTED, job),
        (Kind.JOB_STARTED, other),
        (Kind.JOB_ENDED, other),
        (Kind.JOB_ENDED, job),
        (Kind.JOB_STARTED, job),
    ):
        session.emit(kind, ref, "theirs", raw)
    desk.settle()
    assert told(slow) == [
        "d1 job_started (theirs)",
        "- other (lagged) *",
        "d1 job_ended (theirs) *",
        "d1 job_started (theirs) *",
    ]
    session.emit(Kind.JOB_ENDED, ref, "theirs", job)
    desk.settle()
    assert told(slow) == ["d1 job_ended (theirs)"]


def test_a_reader_may_ask_to_be_ended_instead(desk: Desk) -> None:
    stream = desk.connection.events(limit=1, on_full="raise")
    happen(desk, (Kind.SUSPENDED, D1), (Kind.RESUMED, D1), (Kind.SUSPENDED, D1))
    assert stream.take() is not None
    with pytest.raises(StreamLagged, match="2 events came while 1 waited") as lagged:
        stream.take()
    assert lagged.value.missed == 2
    assert stream.take() is None


@pytest.mark.parametrize("options", [{"limit": 0}, {"on_full": "drop"}])
def test_a_bound_that_makes_no_sense_is_refused(desk: Desk, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        desk.connection.events(**options)  # type: ignore[arg-type]


def test_a_closed_stream_keeps_nothing(desk: Desk) -> None:
    stream = desk.connection.events()
    happen(desk, (Kind.SUSPENDED, D1))
    stream.close()
    happen(desk, (Kind.RESUMED, D1))
    assert taken(stream) == [] and stream.waiting == 0
    assert desk.connection._streams == ()
