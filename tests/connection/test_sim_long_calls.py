"""What takes long: its progress, its end, and its being cut short, with callbacks, on a thread, and in a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

import eventbridge
from eventbridge import Job, JobBusy, Progress
from eventbridge.adapters.hypervisors.sim import simulation
from eventbridge.adapters.hypervisors.sim.simulation import Simulation
from eventbridge.connection import shared_bridge
from eventbridge.connection.call import LongCall
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobAborted
from tests.connection.sim_rig import S0, S1, SLOW, Rig, World
from tests.support.patience import PATIENCE

QUERY = "domains=2&memory=32768"
WHOLE = 32 << 20


@pytest.fixture
def world(rig: Rig) -> World:
    world = rig.world(QUERY).running(S0, S1)
    assert world.connection.state == "open"
    return world


# -- with callbacks, and on threads


def test_a_saved_one_is_restored(rig: Rig, world: World) -> None:
    domain = world.domain(S0)
    told: list[Progress] = []
    call = domain.save("/s0")
    call.on_progress(told.append)
    rig.ok(call)
    assert [progress.processed for progress in told] == sorted({progress.processed for progress in told})
    assert told[-1].processed == WHOLE and call.progress == told[-1]
    assert domain.state is State.STOPPED
    assert rig.ok(world.connection.restore("/s0")) == domain
    rig.settle()
    assert domain.state is State.RUNNING
    assert world.told(Kind.STARTED, Kind.STOPPED) == [f"{S0} stopped (saved)", f"{S0} started (restored)"]
    assert world.jobs() == [("job_started", S0, "save"), ("job_ended", S0, "completed")]


def test_a_managed_save_is_brought_back_by_its_start(rig: Rig, world: World) -> None:
    domain = world.domain(S0)
    rig.ok(domain.managed_save())
    rig.ok(domain.start())
    assert rig.ok(domain.info()).state is State.RUNNING
    assert world.told(Kind.STARTED, Kind.STOPPED) == [f"{S0} stopped (saved)", f"{S0} started (restored)"]


def test_one_that_is_gone_with_its_save_is_not_brought_back_by_the_end_of_its_job(rig: Rig, world: World) -> None:
    """Nobody defined it; the job's event comes after its end."""
    made = rig.ok(world.connection.create({"name": "made", "memory": 1024}))
    rig.ok(made.save("/made"))
    rig.settle()
    assert world.jobs()[-1] == ("job_ended", "made", "completed")
    assert made.state is None and rig.ok(world.connection.domains()) == list(map(world.domain, (S0, S1)))
    assert rig.ok(world.connection.restore("/made")).name == "made"


@pytest.mark.parametrize("operation", ["save", "managed_save"])
def test_an_abort_leaves_it_as_it_was(rig: Rig, world: World, operation: str) -> None:
    domain = world.domain(S0)
    world.simulation.do("suspend", S0)
    world.simulation.freeze(S0, but=["info"])
    call = domain.save("/s0") if operation == "save" else domain.managed_save()
    rig.until(lambda: bool(world.simulation.hung))
    assert rig.ok(domain.info()).state is State.PAUSED, "it answers meanwhile"
    assert domain.job is not None and domain.job.async_ is not None and domain.job.async_.job is Job.SAVE
    abort = call.abort()
    assert domain.abort_job() is True and not call.done
    world.simulation.thaw()
    assert isinstance(rig.error(call), JobAborted) and abort.result() is True
    assert domain.job is None and domain.abort_job() is False
    rig.settle()
    assert domain.state is State.PAUSED and world.told(Kind.STOPPED) == []
    assert world.jobs()[-1] == ("job_ended", S0, "aborted")
    assert isinstance(rig.error(world.connection.restore("/s0")), HypervisorError)


def test_a_second_one_is_refused_at_once_and_names_the_first(rig: Rig, world: World) -> None:
    domain = world.domain(S0)
    world.simulation.freeze(S0)
    first, second = domain.save("/a"), domain.save("/b")
    assert second.done and isinstance(second.error, JobBusy) and second.error.holder == f"save of {S0}"
    world.simulation.thaw()
    rig.ok(first)


def test_a_failure_in_the_middle_leaves_it_running(rig: Rig, world: World) -> None:
    domain = world.domain(S0)
    world.simulation.fail("save", S0, "the disk is full", at=0.5)
    assert "the disk is full" in str(rig.error(domain.save("/s0")))
    rig.settle()
    assert domain.state is State.RUNNING and world.jobs()[-1] == ("job_ended", S0, "failed")


def test_a_loss_in_the_middle_is_told_and_frees_it(rig: Rig, world: World) -> None:
    domain = world.domain(S0)
    world.simulation.freeze(S0)
    call = domain.save("/s0")
    rig.until(lambda: bool(world.simulation.hung))
    world.simulation.break_connections()
    assert isinstance(rig.error(call), ConnectionLost) and domain.job is None
    world.simulation.thaw()
    rig.until(lambda: world.connection.state == "open")
    rig.settle()
    assert domain.state is world.state(S0) is State.RUNNING


def test_threads_wait_for_results_and_aborts(rig: Rig, world: World) -> None:
    """Each on its own, while the loop goes on elsewhere."""
    outcomes: list[object] = []

    def saves() -> None:
        outcomes.append(world.connection.domain(S0).result(PATIENCE).save("/s0").result(PATIENCE))

    def aborts() -> None:
        call = other.save("/s1")
        started.wait(PATIENCE)
        outcomes.append(call.abort().result(PATIENCE))

    other, started = world.domain(S1), threading.Event()
    world.simulation.fail("save", S1, "it was not aborted", at=0.5)
    world.simulation.freeze(S1)
    threads = [threading.Thread(target=saves), threading.Thread(target=aborts)]
    for thread in threads:
        thread.start()
    rig.until(lambda: bool(world.simulation.hung))
    started.set()
    while not world.simulation.hung[0].aborted:
        rig.bridge.run(timeout=0.01)
    world.simulation.thaw()
    rig.join(*threads)
    assert sorted(outcomes, key=str) == [None, True]
    assert (world.state(S0), world.state(S1)) == (State.STOPPED, State.RUNNING)


# -- in tasks


class Tasks:
    """A world for `asyncio.run`."""

    def __init__(self) -> None:
        self.uri = f"sim:///default?world=tasks&events=0&{QUERY}"
        self.simulation: Simulation = simulation.simulation_of(self.uri)
        self.simulation.do("start", S0)

    def run(self, main: Callable[[eventbridge.Domain], Awaitable[None]]) -> None:
        async def connected() -> None:
            async with asyncio.timeout(PATIENCE), eventbridge.connect(self.uri) as hv:
                await main(await hv.domain(S0))
                assert len(hv.jobs) == 0
            for _ in range(100):
                await asyncio.sleep(0)

        asyncio.run(connected(), debug=True)
        assert shared_bridge._leases == {}

    @property
    def state(self) -> State:
        return self.simulation.domain(S0).state

    async def hung(self) -> None:
        while not self.simulation.hung:
            await asyncio.sleep(0)


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    yield Tasks()
    simulation.forget("tasks")


def test_its_progress_is_iterated_until_its_end(tasks: Tasks) -> None:
    async def main(domain: eventbridge.Domain) -> None:
        async with domain.save("/s0") as job:
            seen = [progress.processed async for progress in job]
        assert seen == sorted({*seen}) and seen[-1] == WHOLE
        assert job.done and await job is None
        assert [progress async for progress in job] == [], "there is no more"

    tasks.run(main)
    assert tasks.state is State.STOPPED


def test_all_who_iterate_see_all_of_it(tasks: Tasks) -> None:
    async def main(domain: eventbridge.Domain) -> None:
        async def all_of(job: eventbridge.LongCall[None]) -> list[Progress]:
            return [progress async for progress in job]

        job = domain.managed_save()
        first, second = await asyncio.gather(all_of(job), all_of(job))
        assert first == second and len(first) > 1
        await job

    tasks.run(main)


def test_leaving_waits_for_its_end_and_raises_its_error(tasks: Tasks) -> None:
    async def main(domain: eventbridge.Domain) -> None:
        tasks.simulation.fail("save", S0, "the disk is full", at=0.5)
        with pytest.raises(HypervisorError, match="the disk is full"):
            async with domain.save("/s0"):
                pass
        async with domain.save("/s0") as job:
            assert not job.done
        assert job.done

    tasks.run(main)
    assert tasks.state is State.STOPPED


def test_leaving_by_an_exception_aborts_it_first(tasks: Tasks) -> None:
    async def main(domain: eventbridge.Domain) -> None:
        with pytest.raises(ZeroDivisionError):
            async with domain.save("/s0") as job:
                tasks.simulation.fail("save", S0, "it was not aborted", at=0.9)
                raise ZeroDivisionError
        assert isinstance(job.error, JobAborted)

    tasks.run(main)
    assert tasks.state is State.RUNNING


def test_breaking_out_of_its_progress_leaves_it_to_itself(tasks: Tasks) -> None:
    async def main(domain: eventbridge.Domain) -> None:
        job = domain.save("/s0")
        async for progress in job:
            assert progress.processed
            break
        await job

    tasks.run(main)
    assert tasks.state is State.STOPPED


@pytest.mark.parametrize("how", ["await", "async with", "async for"])
def test_a_cancelled_task_aborts_it(tasks: Tasks, how: str) -> None:
    async def main(domain: eventbridge.Domain) -> None:
        async def work() -> None:
            if how == "await":
                await job
            async with job:
                if how == "async for":
                    async for _ in job:
                        pass
                await job

        tasks.simulation.freeze(S0)
        job = domain.save("/s0")
        task = asyncio.create_task(work())
        await tasks.hung()
        task.cancel()
        while not tasks.simulation.hung[0].aborted:
            await asyncio.sleep(0)
        tasks.simulation.thaw()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(JobAborted):
            await job

    tasks.run(main)
    assert tasks.state is State.RUNNING


def test_an_abort_can_be_awaited(tasks: Tasks) -> None:
    """True where it was cut short, False where it came too late, its own error where it failed."""

    async def main(domain: eventbridge.Domain) -> None:
        tasks.simulation.freeze(S0)
        job = domain.save("/a")
        await tasks.hung()
        abort = job.abort()
        tasks.simulation.thaw()
        assert await abort is True
        tasks.simulation.fail("save", S0, "the disk is full")
        failing = domain.save("/b")
        with pytest.raises(HypervisorError, match="the disk is full"):
            await failing
        with pytest.raises(HypervisorError, match="the disk is full"):
            await failing.abort()
        done = domain.save("/c")
        await done
        assert await done.abort() is False

    tasks.run(main)


def test_a_migration_is_one_too(tasks: Tasks) -> None:
    """Its progress; and an exception in its block aborts it."""
    uri = "sim:///default?world=tasks-there&events=0&domains=1&seed=2"
    there = simulation.simulation_of(uri)
    there.do("undefine", S0)

    async def main(domain: eventbridge.Domain) -> None:
        async with eventbridge.connect(uri) as destination:
            with pytest.raises(ZeroDivisionError):
                async with domain.migrate(destination, bandwidth=SLOW) as job:
                    async for _ in job:
                        raise ZeroDivisionError
            assert isinstance(job.error, JobAborted) and tasks.state is State.RUNNING and there.domains() == []
            async with domain.migrate(destination) as job:
                seen = [progress.processed async for progress in job]
            assert seen[-1] == WHOLE
            assert (await (await job).info()).state is State.RUNNING

    try:
        tasks.run(main)
        assert tasks.state is State.STOPPED
    finally:
        simulation.forget("tasks-there")


def test_whoever_follows_is_told_all_of_it_though_it_has_ended_by_then() -> None:
    """What was told before the end is not passed over for the end, which the call itself knows of sooner."""

    async def main() -> list[int | None]:
        with eventbridge.attach() as bridge:
            call: LongCall[None] = LongCall(bridge, Mailbox(bridge), "save of web")
            following = aiter(call)
            call.progressed(Progress(processed=1))
            call.progressed(Progress(processed=2))
            call.settle(None)
            return [progress.processed async for progress in following]

    assert asyncio.run(main()) == [1, 2]
