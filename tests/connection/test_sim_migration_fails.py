"""Whatever fails in a migration, on either side and at each step, the domain is left in one place, and the error says
where, which side failed, and what to do.
"""

from __future__ import annotations

from typing import TypeAlias

import pytest

from eventbridge import Domain
from eventbridge.connection import migration, migration_endpoint
from eventbridge.connection.call import LongCall
from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobBusy, JobTimeout
from tests.connection.sim_rig import FAST, S0, SLOW, Rig, World

Two: TypeAlias = tuple[World, World]
SHORT = 0.05
"""Seconds that somebody who hangs is given."""


@pytest.fixture
def two(rig: Rig) -> Two:
    here = rig.world("domains=2&memory=8192").running(S0)
    there = rig.world("domains=1&seed=2").empty()
    assert here.connection.state == there.connection.state == "open"
    return here, there


def on_its_way(rig: Rig, two: Two) -> LongCall[Domain]:
    """It will not end by itself."""
    here, there = two
    call = here.domain(S0).migrate(there.connection, bandwidth=SLOW)
    rig.until(lambda: call.progress is not None)
    return call


def sent(rig: Rig, two: Two) -> LongCall[Domain]:
    """It stands still here, and hangs there before its first instruction."""
    here, there = two
    call = on_its_way(rig, two)
    there.simulation.freeze(but=["migrate_cancel"])
    rig.ok(here.domain(S0).set_bandwidth(FAST))
    rig.until(lambda: bool(there.simulation.hung))
    assert here.state(S0) is State.PAUSED
    return call


def jobs_have_ended(rig: Rig, two: Two, how: str) -> None:
    """Both, and both have told it, once."""
    ended = [[("job_started", S0, operation), ("job_ended", S0, how)] for operation in ("migrate", "migrate_in")]
    rig.until(lambda: [world.jobs() for world in two] == ended)
    assert [len(world.connection.jobs) for world in two] == [0, 0]


def is_whole_here(rig: Rig, two: Two, error: BaseException) -> None:
    """It runs here, and that is what the error says; nothing of it is there; nobody holds it; and it could go again."""
    here, there = two
    assert str(error).startswith(f"migration of {S0} from {here.uri} to {there.uri}: ")
    assert str(error).endswith(f"; it goes on at {here.uri}")
    rig.settle()
    assert here.state(S0) is State.RUNNING and here.domain(S0).state is State.RUNNING
    assert here.told(Kind.STOPPED) == []
    assert there.simulation.domains() == [] and there.simulation.world.incoming == []
    assert len(here.connection.jobs) == len(there.connection.jobs) == 0
    assert rig.ok(here.domain(S0).migrate(there.connection)).state is State.RUNNING


@pytest.mark.parametrize(
    ("step", "at", "doing", "side"),
    [
        ("migrate_prepare", 0, "preparing", 1),
        ("migrate", 0, "sending", 0),
        ("migrate", 0.5, "sending", 0),
        ("migrate", 1, "sending", 0),
        ("migrate_finish", 0, "arriving", 1),
    ],
)
def test_a_step_that_is_refused_is_told_with_its_side(
    rig: Rig, two: Two, step: str, at: float, doing: str, side: int
) -> None:
    here, there = two
    two[side].simulation.fail(step, words="the disk is full", at=at)
    error = rig.error(here.domain(S0).migrate(there.connection))
    assert isinstance(error, HypervisorError) and error.operation == step
    assert f": {doing} at {two[side].uri} failed: {two[side].uri}: cannot {step}" in str(error)
    assert "the disk is full" in str(error)
    jobs_have_ended(rig, two, "failed")
    is_whole_here(rig, two, error)


def test_who_would_not_prepare_is_told_to_forget_nothing(rig: Rig, two: Two) -> None:
    """That would end a QEMU that has never waited for it."""
    here, there = two
    there.simulation.fail("migrate_prepare")
    there.simulation.freeze(but=["migrate_prepare"])
    rig.error(here.domain(S0).migrate(there.connection))
    assert there.simulation.hung == [] and len(there.connection.under_way) == 0


def test_the_first_failure_is_told_where_the_destination_would_not_forget_either(rig: Rig, two: Two) -> None:
    """It cannot run there, for nobody has told it to: so it goes on here."""
    here, there = two
    here.simulation.fail("migrate", words="no route", at=0.5)
    there.simulation.fail("migrate_cancel", words="no memory")
    error = rig.error(here.domain(S0).migrate(there.connection))
    first, second = str(error).index("no route"), str(error).index(f"{there.uri} could not be told to forget it")
    assert first < second < str(error).index("no memory")
    assert str(error).endswith(f"it goes on at {here.uri}") and here.state(S0) is State.RUNNING


def test_where_it_may_run_there_it_stands_still_here(rig: Rig, two: Two) -> None:
    """Never twice: the error says how to go on."""
    here, there = two
    there.simulation.fail("migrate_finish", words="no route")
    there.simulation.fail("migrate_cancel", words="no memory")
    domain = here.domain(S0)
    error = rig.error(domain.migrate(there.connection))
    assert isinstance(error, HypervisorError)
    assert "no route" in str(error) and "no memory" in str(error)
    assert f"it may run there, so it stands still at {here.uri}" in str(error)
    assert "goes on" not in str(error)
    rig.settle()
    assert domain.state is here.state(S0) is State.PAUSED
    assert len(here.connection.jobs) == len(there.connection.jobs) == 0
    rig.ok(domain.resume())
    rig.settle()
    assert domain.state is here.state(S0) is State.RUNNING


def test_what_runs_there_is_told_where_its_source_would_not_end(rig: Rig, two: Two) -> None:
    here, there = two
    here.simulation.fail("migrate_confirm", words="no memory")
    domain = here.domain(S0)
    error = rig.error(domain.migrate(there.connection))
    assert f"ending at {here.uri} failed" in str(error) and "no memory" in str(error)
    assert str(error).endswith(f"; it runs at {there.uri}: destroy what stands still at {here.uri}")
    assert there.state(S0) is State.RUNNING and here.state(S0) is State.PAUSED
    rig.ok(domain.destroy())
    assert there.state(S0) is State.RUNNING and here.state(S0) is State.STOPPED


def test_a_source_that_would_not_go_on_is_told(rig: Rig, two: Two) -> None:
    here, there = two
    there.simulation.fail("migrate_finish", words="no route")
    here.simulation.fail("migrate_confirm", words="no memory")
    domain = here.domain(S0)
    error = rig.error(domain.migrate(there.connection))
    assert "no route" in str(error)
    assert f"it could not be told to go on at {here.uri}" in str(error) and "no memory" in str(error)
    assert there.simulation.domains() == []
    rig.ok(domain.resume())
    assert here.state(S0) is State.RUNNING


def test_one_that_is_destroyed_on_its_way_has_ended_and_arrives_nowhere(rig: Rig, two: Two) -> None:
    here, there = two
    call = on_its_way(rig, two)
    rig.ok(here.domain(S0).destroy())
    error = rig.error(call)
    assert isinstance(error, HypervisorError)
    assert str(error).endswith(f"it has ended at {here.uri}") and "goes on" not in str(error)
    rig.settle()
    assert here.told(Kind.STOPPED) == [f"{S0} stopped (destroyed)"]
    assert there.simulation.domains() == [] and there.simulation.world.incoming == []


# -- lost


def test_a_destination_that_is_lost_on_the_way_leaves_it_running(rig: Rig, two: Two) -> None:
    call = on_its_way(rig, two)
    two[1].simulation.break_connections()
    error = rig.error(call)
    rig.until(lambda: two[1].connection.state == "open")
    jobs_have_ended(rig, two, "failed")
    is_whole_here(rig, two, error)


def test_a_destination_that_stays_lost_leaves_it_running(rig: Rig, two: Two) -> None:
    here, there = two
    call = on_its_way(rig, two)
    there.simulation.break_connections(refuse=10**9)
    error = rig.error(call)
    assert f"{there.uri} could not be told to forget it: {there.uri} is lost since" in str(error)
    assert str(error).endswith(f"; it goes on at {here.uri}") and here.state(S0) is State.RUNNING
    jobs_have_ended(rig, two, "failed")
    there.simulation.refuse_connections(0)
    rig.until(lambda: there.connection.state == "open")


def test_a_destination_that_is_lost_while_it_is_told_to_run_it_leaves_it_standing(rig: Rig, two: Two) -> None:
    """Nobody can know: it is not to run twice."""
    here, there = two
    call = sent(rig, two)
    there.simulation.break_connections(refuse=10**9)
    error = rig.error(call)
    assert isinstance(error, ConnectionLost)
    assert f"it may run there, so it stands still at {here.uri}" in str(error)
    assert here.state(S0) is State.PAUSED
    rig.ok(here.domain(S0).resume())
    there.simulation.refuse_connections(0)
    rig.until(lambda: there.connection.state == "open")


def test_a_source_that_is_lost_on_the_way_keeps_it(rig: Rig, two: Two) -> None:
    here, there = two
    call = on_its_way(rig, two)
    here.simulation.break_connections(refuse=10**9)
    error = rig.error(call)
    assert isinstance(error, ConnectionLost) and f"sending at {here.uri} failed" in str(error)
    assert f"it could not be told to go on at {here.uri}" in str(error) and "it goes on" not in str(error)
    assert here.state(S0) is State.RUNNING
    assert there.simulation.domains() == [] and there.simulation.world.incoming == []
    jobs_have_ended(rig, two, "lost")
    here.simulation.refuse_connections(0)
    rig.until(lambda: here.connection.state == "open")
    rig.settle()
    assert here.told(Kind.STOPPED) == [] and here.domain(S0).state is State.RUNNING


def test_a_source_that_is_lost_when_it_has_arrived_does_not_keep_it_from_running_there(rig: Rig, two: Two) -> None:
    here, there = two
    call = sent(rig, two)
    here.simulation.break_connections(refuse=10**9)
    rig.until(lambda: here.connection.state == "lost")
    there.simulation.thaw()
    error = rig.error(call)
    assert str(error).endswith(f"; it runs at {there.uri}: destroy what stands still at {here.uri}")
    assert there.state(S0) is State.RUNNING and here.state(S0) is State.PAUSED
    here.simulation.refuse_connections(0)
    rig.until(lambda: here.connection.state == "open")
    rig.ok(here.domain(S0).destroy())


@pytest.mark.parametrize("side", [0, 1])
def test_closing_either_connection_ends_it(rig: Rig, two: Two, side: int) -> None:
    here, there = two
    call = on_its_way(rig, two)
    closed = two[side].connection.close()
    error = rig.error(call)
    assert isinstance(error, EventBridgeError)
    rig.ok(closed)
    assert here.state(S0) is State.RUNNING and there.simulation.domains() == []
    assert len(here.connection.jobs) == len(there.connection.jobs) == 0


@pytest.mark.parametrize("side", [0, 1])
def test_one_that_is_not_open_is_told_at_once(rig: Rig, two: Two, side: int) -> None:
    here, there = two
    domain = here.domain(S0)
    two[side].simulation.break_connections(refuse=10**9)
    rig.until(lambda: two[side].connection.state == "lost")
    call = domain.migrate(there.connection)
    assert call.done and isinstance(call.error, ConnectionLost) and two[side].uri in str(call.error)
    two[side].simulation.refuse_connections(0)
    rig.until(lambda: two[side].connection.state == "open")


# -- hung


def test_a_destination_that_hangs_while_it_prepares_is_given_up(
    rig: Rig, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is held until it answers; and what it then prepares late is forgotten."""
    here, there = two
    domain = here.domain(S0)
    there.simulation.freeze(but=["migrate_cancel"])
    monkeypatch.setattr(migration_endpoint, "SECONDS", SHORT)
    call = domain.migrate(there.connection)
    rig.until(lambda: bool(there.simulation.hung))
    monkeypatch.undo()
    error = rig.error(call)
    assert isinstance(error, JobTimeout)
    assert f"preparing at {there.uri} failed: migrate prepare of {S0}: no answer from {there.uri}" in str(error)
    running = there.connection.jobs.running(domain.uuid)
    assert running is not None and running.async_ is not None and running.async_.abandoned
    assert domain.job is None
    assert isinstance(rig.error(domain.migrate(there.connection)), JobBusy)
    there.simulation.thaw()
    rig.until(lambda: there.jobs() == [("job_started", S0, "migrate_in"), ("job_ended", S0, "timeout")])
    is_whole_here(rig, two, error)


def test_a_destination_that_hangs_while_it_arrives_is_given_up(
    rig: Rig, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "FINISH_SECONDS", SHORT)
    call = sent(rig, two)
    error = rig.error(call)
    assert isinstance(error, JobTimeout) and f"arriving at {two[1].uri} failed" in str(error)
    assert two[0].state(S0) is State.RUNNING
    monkeypatch.undo()  # the next one is to arrive, however busy this machine is
    two[1].simulation.thaw()
    rig.until(lambda: len(two[1].connection.jobs) == 0)
    is_whole_here(rig, two, error)


def test_a_destination_that_hangs_for_good_leaves_it_standing(
    rig: Rig, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    domain = here.domain(S0)
    monkeypatch.setattr(migration, "FINISH_SECONDS", SHORT)
    call = sent(rig, two)
    there.simulation.freeze()
    monkeypatch.setattr(migration_endpoint, "SECONDS", SHORT)
    error = rig.error(call)
    assert isinstance(error, JobTimeout)
    assert f"it may run there, so it stands still at {here.uri}" in str(error)
    assert domain.state is here.state(S0) is State.PAUSED and domain.job is None
    there.simulation.thaw()
    rig.until(lambda: len(there.connection.jobs) == 0)
    rig.settle()
    assert there.simulation.domains() == []


def test_a_source_that_hangs_at_its_end_is_told_and_can_be_destroyed(
    rig: Rig, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    domain = here.domain(S0)
    call = sent(rig, two)
    here.simulation.freeze(S0, but=["destroy"])
    monkeypatch.setattr(migration_endpoint, "SECONDS", SHORT)
    there.simulation.thaw()
    error = rig.error(call)
    assert isinstance(error, JobTimeout) and f"it runs at {there.uri}" in str(error)
    assert there.state(S0) is State.RUNNING
    rig.ok(domain.destroy())
    assert here.state(S0) is State.STOPPED
    here.simulation.thaw()
    rig.until(lambda: domain.job is None)


def test_one_whose_domain_is_held_for_good_waits_no_longer_than_it_may(
    rig: Rig, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    domain = here.domain(S0)
    here.simulation.freeze(S0)
    hanging = domain.suspend(timeout=SHORT)
    monkeypatch.setattr(migration_endpoint, "SECONDS", SHORT)
    error = rig.error(domain.migrate(there.connection))
    assert isinstance(error, JobTimeout) and error.holder == f"suspend of {S0}"
    assert (here.jobs(), there.jobs()) == ([], [])
    rig.error(hanging)
