"""A migration between two connections: the domain arrives once, and meanwhile nobody else notices anything."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from eventbridge import Domain, Job, JobBusy
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobAborted
from tests.connection.sim_rig import FAST, S0, S1, S2, S3, SLOW, Rig, World

Two: TypeAlias = tuple[World, World]


@pytest.fixture
def two(rig: Rig) -> Two:
    """Here 0, 1 and 3 run, and 2 is off; there is nobody."""
    here = rig.world("domains=4&memory=8192").running(S0, S1, S3)
    there = rig.world("domains=1&seed=2").empty()
    assert here.connection.state == there.connection.state == "open"
    return here, there


def test_the_seeds_sentence(rig: Rig, two: Two) -> None:
    """While one migrates: it answers, another answers, a third starts, a fourth is destroyed."""
    here, there = two
    moving, other, starting, dying = map(here.domain, (S0, S1, S2, S3))
    call = moving.migrate(there.connection, bandwidth=SLOW)
    rig.until(lambda: call.progress is not None)
    assert rig.ok(moving.info()).state is State.RUNNING
    assert rig.ok(other.info()).state is State.RUNNING
    rig.ok(starting.start())
    rig.ok(dying.destroy())
    assert not call.done
    assert (here.state(S2), here.state(S3)) == (State.RUNNING, State.STOPPED)
    rig.ok(moving.set_bandwidth(FAST))
    arrived = rig.ok(call)
    assert isinstance(arrived, Domain) and arrived.connection is there.connection
    assert (arrived.name, arrived.state) == (S0, State.RUNNING)
    assert rig.ok(arrived.info()).domain.uuid == moving.uuid
    assert moving.state is State.STOPPED and here.state(S0) is State.STOPPED


def test_its_end_here_and_its_start_there_are_told_once(rig: Rig, two: Two) -> None:
    here, there = two
    rig.ok(here.domain(S0).migrate(there.connection))
    rig.settle()
    assert here.told(Kind.STARTED, Kind.STOPPED) == [f"{S0} stopped (migrated)"]
    assert there.told(Kind.STARTED, Kind.STOPPED) == [f"{S0} started (migrated)"]
    for world, operation in ((here, "migrate"), (there, "migrate_in")):
        assert world.jobs() == [("job_started", S0, operation), ("job_ended", S0, "completed")]


def test_that_it_is_expected_makes_nobody_believe_that_it_is_there(rig: Rig, two: Two) -> None:
    """The job's event comes before the domain."""
    here, there = two
    call = here.domain(S0).migrate(there.connection, bandwidth=SLOW)
    rig.until(lambda: call.progress is not None)
    assert [name for _, name, _ in there.jobs()] == [S0]
    assert len(there.connection.known) == 0 and there.events[0].domain is not None and there.events[0].domain.id is None
    call.abort()
    rig.error(call)
    rig.settle()
    assert len(there.connection.known) == 0


def test_the_jobs_of_both_sides_are_visible_while_it_lasts(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    call = domain.migrate(there.connection, bandwidth=SLOW)
    rig.until(lambda: call.progress is not None)
    out, into = domain.job, there.connection.jobs.running(domain.uuid)
    assert out is not None and out.async_ is not None and out.async_.job is Job.MIGRATION_OUT
    assert out.async_.holder == f"migration of {S0} from {here.uri} to {there.uri}"
    assert into is not None and into.async_ is not None and into.async_.job is Job.MIGRATION_IN
    assert out.progress is not None and out.progress == into.progress
    call.abort()
    rig.error(call)
    assert domain.job is None and len(there.connection.jobs) == 0


def test_its_progress_grows_to_the_whole(rig: Rig, two: Two) -> None:
    here, there = two
    call = here.domain(S0).migrate(there.connection, bandwidth=1 << 27)
    told: list[int] = []
    threads: set[bool] = set()
    call.on_progress(lambda progress: (told.append(progress.processed or 0), threads.add(rig.bridge.is_loop_thread())))
    rig.ok(call)
    assert told == sorted(set(told)) and told[-1] == 8 << 20 and len(told) > 1
    assert threads == {True}


def test_a_second_migration_of_it_is_refused_at_once_and_names_the_first(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    first = domain.migrate(there.connection, bandwidth=SLOW)
    for second in (domain.migrate(there.connection), domain.migrate("sim:///default")):
        assert second.done and isinstance(second.error, JobBusy)
        assert second.error.holder == first.what and first.what in str(second.error)
        assert second.error.job is Job.MIGRATION_OUT
    rig.until(lambda: first.progress is not None)
    rig.ok(domain.set_bandwidth(FAST))
    rig.ok(first)


def test_one_that_is_awaited_there_already_is_refused_at_once(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    held = there.connection.jobs.request(domain.uuid, Job.MIGRATION_IN, "somebody else")
    error = rig.error(domain.migrate(there.connection))
    assert isinstance(error, JobBusy) and error.holder == "somebody else"
    assert domain.job is None
    held.end()
    rig.ok(domain.migrate(there.connection))


def test_an_abort_leaves_it_running_here_and_nothing_there(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    call = domain.migrate(there.connection, bandwidth=SLOW)
    rig.until(lambda: call.progress is not None)
    abort = call.abort()
    error = rig.error(call)
    assert isinstance(error, JobAborted) and str(error) == f"{call.what}: aborted; it goes on at {here.uri}"
    assert abort.result() is True
    rig.settle()
    assert here.state(S0) is State.RUNNING and here.told(Kind.STOPPED, Kind.SUSPENDED) == []
    assert there.simulation.domains() == [] and there.simulation.world.incoming == []
    assert here.jobs()[-1] == ("job_ended", S0, "aborted") == there.jobs()[-1]
    rig.ok(domain.migrate(there.connection))


@pytest.mark.parametrize("how", ["abort", "cancel", "abort_job"])
def test_an_abort_at_its_very_beginning_is_one(rig: Rig, two: Two, how: str) -> None:
    here, there = two
    domain = here.domain(S0)
    call = domain.migrate(there.connection)
    if how == "abort_job":
        assert domain.abort_job() is True
    else:
        getattr(call, how)()
    assert isinstance(rig.error(call), JobAborted)
    rig.settle()
    assert here.state(S0) is State.RUNNING and there.simulation.domains() == []
    assert there.simulation.world.incoming == [] and len(here.connection.jobs) == len(there.connection.jobs) == 0


def test_an_abort_while_it_is_prepared_holds_both_jobs_until_that_is_undone(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    there.simulation.freeze()
    call = domain.migrate(there.connection)
    rig.until(lambda: bool(there.simulation.hung))
    call.abort()
    assert there.connection.jobs.running(domain.uuid) is not None and not call.done
    there.simulation.thaw()
    assert isinstance(rig.error(call), JobAborted)
    assert there.simulation.world.incoming == [] and here.state(S0) is State.RUNNING


def test_one_that_waits_for_its_job_is_aborted_at_once(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    here.simulation.freeze(S0)
    hanging = domain.suspend()
    call = domain.migrate(there.connection)
    call.abort()
    assert call.done and isinstance(call.error, JobAborted)
    here.simulation.thaw()
    rig.ok(hanging)
    assert (here.jobs(), there.jobs()) == ([], [])


def test_what_comes_too_late_to_be_aborted_arrives(rig: Rig, two: Two) -> None:
    here, there = two
    there.connection.events()
    call = here.domain(S0).migrate(there.connection)
    rig.until(lambda: call.progress is not None)
    there.simulation.freeze()
    rig.until(lambda: bool(there.simulation.hung))
    abort = call.abort()
    there.simulation.thaw()
    assert rig.ok(call).state is State.RUNNING and abort.result() is False


def test_its_downtime_can_be_set_on_the_way(rig: Rig, two: Two) -> None:
    """Long enough for all of it at once."""
    here, there = two
    domain = here.domain(S0)
    call = domain.migrate(there.connection, bandwidth=SLOW)
    rig.until(lambda: call.progress is not None)
    rig.ok(domain.set_downtime((8 << 20) // SLOW * 1000))
    assert rig.ok(call).state is State.RUNNING


def test_a_paused_one_arrives_paused(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    rig.ok(domain.suspend())
    arrived = rig.ok(domain.migrate(there.connection))
    assert rig.ok(arrived.info()).state is State.PAUSED


def test_it_goes_there_and_back(rig: Rig, two: Two) -> None:
    here, there = two
    domain = here.domain(S0)
    for _ in range(3):
        away = rig.ok(domain.migrate(there.connection))
        assert rig.ok(away.migrate(here.connection)) == domain
    assert rig.ok(domain.info()).state is State.RUNNING and there.simulation.domains() == []
    assert len(here.told(Kind.STARTED)) == len(here.told(Kind.STOPPED)) == 3


def test_two_cross(rig: Rig, two: Two) -> None:
    here, there = two
    there.simulation.do("create", definition={"name": "other", "memory": 8192})
    one = here.domain(S0).migrate(there.connection, bandwidth=1 << 28)
    other = there.domain("other").migrate(here.connection, bandwidth=1 << 28)
    rig.ended(one, other)
    assert one.error is None is other.error
    assert [info.domain.name for info in there.simulation.domains()] == [S0]
    assert here.state("other") is State.RUNNING and here.state(S0) is State.STOPPED


def test_where_it_is_already_is_no_destination(rig: Rig, two: Two) -> None:
    here, _ = two
    error = rig.error(here.domain(S0).migrate(here.connection))
    assert isinstance(error, HypervisorError) and "it is there already" in str(error)
    assert here.jobs() == [] and len(here.connection.jobs) == 0


def test_a_hundred_migrate_at_once(rig: Rig) -> None:
    names = [f"simulated-{number}" for number in range(100)]
    here = rig.world("domains=100&memory=1024").running(*names)
    there = rig.world("domains=1&seed=2").empty()
    domains = [here.domain(name) for name in names]
    calls = [domain.migrate(there.connection, bandwidth=1 << 23) for domain in domains]
    rig.ended(*calls)
    assert [call.error for call in calls] == [None] * 100
    rig.settle()
    assert {info.state for info in here.simulation.domains()} == {State.STOPPED}
    assert [info.state for info in there.simulation.domains()] == [State.RUNNING] * 100
    assert len(there.told(Kind.STARTED)) == len(here.told(Kind.STOPPED)) == 100
    assert len(here.connection.jobs) == len(there.connection.jobs) == 0
