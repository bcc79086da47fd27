"""A domain's story without a QEMU: the tables against QEMU's own schema, and any sequence of events has one end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbridge.adapters.hypervisors.qmp import events
from eventbridge.adapters.hypervisors.qmp.codec import Event
from eventbridge.adapters.hypervisors.qmp.run_state import _SPECIAL, Life
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from tests.support.qmp_qemu import NONE, Start

# Every name that a table knows, and one that none does, with data that decides and data that does not.
names = st.sampled_from(sorted({name for name, _ in events.MEANINGS} | set(_SPECIAL) | {"RTC_CHANGE", "WATCHDOG"}))
data = st.fixed_dictionaries(
    {},
    optional={
        "guest": st.booleans() | st.none(),
        "reason": st.sampled_from([*events.SHUTDOWN, "meteorite"]) | st.integers(),
        "status": st.sampled_from(sorted({str(by) for _, by in events.MEANINGS})) | st.lists(st.none()),
        "action": st.sampled_from(["stop", "pause", "run", "poweroff"]) | st.dictionaries(st.text(), st.none()),
        "tray-open": st.booleans() | st.lists(st.none()),
    },
)
happenings = st.builds(lambda name, data: Event(name, data, {"event": name, "data": data}), names, data)
states = st.sampled_from([*events.STATES, "something newer"])


NEWER_STATUSES = {"postcopy-recover-setup", "postcopy-device", "failing"}
"""Of a migration, since QEMU 9.1, 10.2 and 11.0 (qapi/migration.json: MigrationStatus)."""


def told(state: str, *happened: Event | str) -> list[tuple[Kind, str | None]]:
    """What a life tells; a name is that event without data."""
    story: list[tuple[Kind, str | None]] = []
    life = Life(lambda kind, reason, raw: story.append((kind, reason)), state)
    for each in happened:
        life.take(Event(each, {}, {}) if isinstance(each, str) else each)
    life.ended({})
    life.ended({})
    return story


@given(states, st.lists(happenings))
def test_whatever_happens_there_is_one_end_and_it_comes_last(state: str, happened: list[Event]) -> None:
    story = told(state, *happened)
    assert [kind for kind, _ in story].count(Kind.STOPPED) == 1
    assert story[-1][0] is Kind.STOPPED
    assert story[-1][1] in ("shutdown", "crashed", "destroyed", "failed")
    assert [kind for kind, _ in story].count(Kind.STARTED) <= 1


@given(states, st.lists(happenings))
def test_no_event_is_dropped(state: str, happened: list[Event]) -> None:
    """Each is told at least once with all it says, in order."""
    raws: list[Any] = []
    life = Life(lambda kind, reason, raw: raws.append(raw), state)
    for number, event in enumerate(happened):
        life.take(Event(event.name, event.data, {"number": number}))
    assert list(dict.fromkeys(raw["number"] for raw in raws)) == list(range(len(happened)))


@given(states, st.lists(happenings))
def test_reasons_are_lower_case_words(state: str, happened: list[Event]) -> None:
    for _, reason in told(state, *happened):
        assert reason is None or (reason.replace("_", "").isalnum() and reason == reason.lower())


@pytest.mark.parametrize("reason", sorted(events.SHUTDOWN))
def test_the_end_is_for_the_reason_of_the_shutdown(reason: str) -> None:
    data = {"guest": False, "reason": reason}
    assert told("running", Event("SHUTDOWN", data, data))[-1] == (Kind.STOPPED, events.SHUTDOWN[reason].stopped)


def test_without_a_shutdown_it_was_killed() -> None:
    assert told("running") == [(Kind.STOPPED, "crashed")]
    assert told("shutdown") == [(Kind.STOPPED, "shutdown")]


def test_what_stops_for_an_error_of_its_disk_says_so_once() -> None:
    error = Event("BLOCK_IO_ERROR", {"action": "stop"}, {})
    assert told("running", error, "STOP", "RESUME", "STOP")[:-1] == [
        (Kind.OTHER, "io_error"), (Kind.SUSPENDED, "io_error"), (Kind.RESUMED, None), (Kind.SUSPENDED, None),
    ]  # fmt: skip
    harmless = Event("BLOCK_IO_ERROR", {"action": "report"}, {})
    assert (Kind.SUSPENDED, None) in told("running", harmless, "STOP")


def test_what_comes_in_and_fails_ends_as_that() -> None:
    failed = Event("MIGRATION", {"status": "failed"}, {})
    assert told("inmigrate", failed)[-1] == (Kind.STOPPED, "failed")
    assert told("running", failed)[-1] == (Kind.STOPPED, "crashed"), "of what goes out the domain is not"


def test_what_comes_in_and_runs_at_once_has_started_once() -> None:
    """Autostart is on: RESUME comes before the migration is complete."""
    completed = Event("MIGRATION", {"status": "completed"}, {})
    started = [kind for kind, _ in told("inmigrate", "RESUME", completed)]
    assert (started.count(Kind.STARTED), started.count(Kind.SUSPENDED)) == (1, 0)


@pytest.fixture
def schema(start: Start) -> Iterator[dict[str, Any]]:
    """QEMU's own, by name."""
    yield {entry["name"]: entry for entry in start("a", *NONE).side.ask("query-qmp-schema")}


def values_of(schema: dict[str, Any], owner: str, member: str) -> set[str]:
    """Of the enumeration that is ``member`` of what a command returns, or an event or object has."""
    entry = schema[owner]
    entry = schema[entry.get("ret-type") or entry.get("arg-type") or owner]
    (type_name,) = [each["type"] for each in entry["members"] if each["name"] == member]
    return set(schema[type_name]["values"])


def test_the_tables_know_every_value_that_qemu_has(schema: dict[str, Any]) -> None:
    assert values_of(schema, "query-status", "status") <= set(events.STATES)
    assert values_of(schema, "SHUTDOWN", "reason") <= set(events.SHUTDOWN)
    known = {str(by) for name, by in events.MEANINGS if name == "MIGRATION"}
    assert values_of(schema, "MIGRATION", "status") - {"none"} <= known
    known = {str(by) for name, by in events.MEANINGS if name == "JOB_STATUS_CHANGE"}
    assert values_of(schema, "JOB_STATUS_CHANGE", "status") - {"undefined"} <= known
    unknown_here = (events.MIGRATION_UNDER_WAY | events.MIGRATION_ENDED) - values_of(schema, "MIGRATION", "status")
    assert unknown_here <= NEWER_STATUSES


@pytest.mark.parametrize("status", sorted(NEWER_STATUSES))
def test_a_status_of_a_newer_qemu_is_a_migrations_progress(status: str) -> None:
    data = {"status": status}
    assert events.meaning("MIGRATION", data) == (Kind.JOB_PROGRESS, status.replace("-", "_"))


@pytest.mark.parametrize("status", ["active", "postcopy-active", "postcopy-device"])
def test_processors_that_a_migration_stops_stand_still_because_it_has_migrated(status: str) -> None:
    """A post-copy migration sets its status before it stops the guest (migration/migration.c: postcopy_start)."""
    under_way = Event("MIGRATION", {"status": status}, {})
    assert told("running", under_way, "STOP")[-2:] == [(Kind.SUSPENDED, "migrated"), (Kind.STOPPED, "crashed")]


def test_the_tables_name_events_and_data_that_qemu_has(schema: dict[str, Any]) -> None:
    for name in {name for name, _ in events.MEANINGS} | set(_SPECIAL) | {name for name, _ in events.STOPS_FOR}:
        assert schema[name]["meta-type"] == "event", name
    for name, member in events.BY.items():
        assert member in {each["name"] for each in schema[schema[name]["arg-type"]]["members"]}
    for name, action in events.STOPS_FOR:
        assert action in values_of(schema, name, "action")


def test_the_states_are_those_of_a_domain() -> None:
    assert set(events.STATES.values()) <= set(State)
