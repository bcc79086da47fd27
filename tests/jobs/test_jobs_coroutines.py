"""Jobs held by coroutines, on asyncio and uvloop; and with threads as equals."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.errors import HostUnavailable, HypervisorError
from eventbridge.jobs import AsyncHold, Job, JobBusy, Jobs, JobTimeout, State, Ticket
from tests.support import wanted
from tests.support.patience import PATIENCE


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    assert len(jobs) == 0, "nothing is left behind"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    factory = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = wanted.module("uvloop").new_event_loop

    def run(work: Callable[[], Awaitable[Any]]) -> Any:
        async def patiently() -> Any:
            return await asyncio.wait_for(work(), PATIENCE)

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(patiently())

    return run


def queue(jobs: Jobs) -> int:
    info = jobs.running("web1")
    return 0 if info is None else info.queue


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def waiting(jobs: Jobs, work: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that is known to wait."""
    before = queue(jobs)
    task = asyncio.ensure_future(work)
    await until(lambda: queue(jobs) == before + 1)
    return task


async def held(jobs: Jobs, inside: Callable[[], object] = lambda: None, **named: Any) -> str:
    async with jobs.hold_async("web1", Job.MODIFY, **named):
        inside()
    return "held"


def test_a_block_holds_the_domain_and_its_end_lets_the_next_in(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        order: list[int] = []
        async with jobs.hold_async("web1", Job.MODIFY, owner="editor") as token:
            info = jobs.running("web1")
            assert info is not None and info.holder == "editor"
            tasks = [await waiting(jobs, held(jobs, lambda n=n: order.append(n))) for n in range(5)]  # type: ignore[misc]  # binds it now
            assert order == []
        assert token.state is State.ENDED
        assert await asyncio.gather(*tasks) == ["held"] * 5
        assert order == list(range(5))

    run(work)


def test_a_cancelled_waiter_leaves_nothing_behind(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        async with jobs.hold_async("web1", Job.MODIFY):
            first, second = await waiting(jobs, held(jobs)), await waiting(jobs, held(jobs))
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert queue(jobs) == 1
            assert not second.done()
        assert await second == "held"

    run(work)


def test_a_waiter_that_is_cancelled_just_after_it_was_let_in_lets_the_next_in(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        async with jobs.hold_async("web1", Job.MODIFY):
            first, second = await waiting(jobs, held(jobs)), await waiting(jobs, held(jobs))
        first.cancel()  # granted by now, and not yet told
        await asyncio.wait([first])
        assert await second == "held"

    run(work)


def test_a_cancelled_task_releases_its_job(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        forever = asyncio.Event()

        async def holder() -> None:
            async with jobs.hold_async("web1", Job.MODIFY):
                await forever.wait()

        task = asyncio.ensure_future(holder())
        await until(lambda: jobs.running("web1") is not None)
        next = await waiting(jobs, held(jobs))
        task.cancel()
        assert await next == "held"
        assert task.cancelled()

    run(work)


def test_a_task_that_dies_without_leaving_its_block_releases_its_job(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        async def dies() -> Ticket:
            return await jobs.hold_async("web1", Job.MODIFY).__aenter__()

        async def dies_later() -> Ticket:
            hold = jobs.hold_async("web1", Job.MODIFY)
            token = await hold.__aenter__()
            await asyncio.sleep(0)
            return token

        for death in (dies, dies_later):
            token = await death()
            gc.collect()
            assert token.state is State.ENDED
        assert await held(jobs, nowait=True) == "held"

    run(work)


def test_a_task_that_waited_and_dies_without_leaving_its_block_releases_its_job_without_a_collection(
    jobs: Jobs, run: Any
) -> None:
    async def dies() -> Ticket:
        return await jobs.hold_async("web1", Job.MODIFY).__aenter__()

    async def work() -> None:
        gc.disable()
        try:
            async with jobs.hold_async("web1", Job.MODIFY):
                task = await waiting(jobs, dies())
            token = await task
            assert token.state is State.ENDED
        finally:
            gc.enable()

    run(work)


def test_what_is_granted_before_the_host_begins_to_wait_is_not_missed(jobs: Jobs) -> None:
    class LateHost(AsyncioHost):
        async def wait_for(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
            before.set()
            await ended.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().wait_for(subscribe, timeout)

    async def work() -> None:
        token = jobs.request("web1", Job.MODIFY, "first")
        task = asyncio.ensure_future(held(jobs, host=LateHost(), timeout=None))
        await before.wait()
        token.end()
        ended.set()
        assert await asyncio.wait_for(task, PATIENCE) == "held"

    before, ended = asyncio.Event(), asyncio.Event()
    asyncio.run(work())


def test_a_coroutine_that_is_thrown_away_releases_its_job_and_its_place_in_the_queue(jobs: Jobs) -> None:
    """As at the end of a loop that is stopped with its tasks alive: nobody runs them any more."""

    async def holder() -> None:
        async with jobs.hold_async("web1", Job.MODIFY):
            await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    host = AsyncioHost(loop)
    first, second = holder(), held(jobs, host=host)
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending!"
    tasks = [loop.create_task(first), loop.create_task(second)]
    while queue(jobs) == 0:
        loop.run_until_complete(asyncio.sleep(0))
    second.close()
    assert queue(jobs) == 0
    first.close()
    assert jobs.running("web1") is None
    for task in tasks:
        task.cancel()
    loop.close()
    del tasks, task, first, second
    gc.collect()


def test_a_waiter_whose_loop_is_closed_is_passed_over(jobs: Jobs) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    token = jobs.hold("web1", Job.MODIFY)
    dead = held(jobs, host=AsyncioHost(loop))
    task = loop.create_task(dead)
    while queue(jobs) == 0:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    alive = jobs.request("web1", Job.MODIFY, "alive")
    token.end()
    assert alive.token is not None
    alive.end()
    assert not task.done()
    dead.close()
    del task
    gc.collect()


def test_a_deadline_that_passes_is_a_timeout_and_never_early(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        async with jobs.hold_async("web1", Job.MODIFY, owner="editor"):
            with pytest.raises(JobTimeout, match="editor holds it with modify"):
                await held(jobs, timeout=0.02)
            assert queue(jobs) == 0
        assert jobs.metrics().overall.longest >= 0.02

    run(work)


def test_nowait_does_not_wait_and_a_domain_that_ends_is_an_error(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        async with jobs.hold_async("web1", Job.MODIFY):
            with pytest.raises(JobBusy):
                await held(jobs, nowait=True)
            task = await waiting(jobs, held(jobs, timeout=None))
            jobs.gone("web1")
            with pytest.raises(HypervisorError, match="has ended"):
                await task

    run(work)


def test_a_nested_job_and_one_that_is_abandoned_as_with_threads(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        async with jobs.hold_async("web1", Job.START) as start:
            assert await held(jobs, of=start, nowait=True) == "held"
            with pytest.raises(JobBusy):
                await held(jobs, nowait=True)
        async with jobs.hold_async("web1", Job.MODIFY) as token:
            token.abandon()
        assert token.state is State.ABANDONED, "the block's end is not the hung call's"
        token.end()

    run(work)


def test_a_host_without_tasks_is_refused_and_nothing_is_queued(jobs: Jobs) -> None:
    async def work() -> None:
        async with jobs.hold_async("web1", Job.MODIFY):
            raise AssertionError("it was let in")

    with jobs.hold("web1", Job.MODIFY):
        with pytest.raises(HostUnavailable):
            work().send(None)
        assert queue(jobs) == 0


def test_a_hold_that_is_never_entered_holds_nothing(jobs: Jobs) -> None:
    assert isinstance(jobs.hold_async("web1", Job.MODIFY), AsyncHold)
    assert jobs.running("web1") is None


def test_a_thread_and_a_coroutine_wait_for_each_other_in_one_line(jobs: Jobs, run: Any) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        may_end = threading.Event()

        def in_a_thread(name: str, hold_on: bool = False) -> None:
            with jobs.hold("web1", Job.MODIFY, timeout=PATIENCE):
                order.append(name)
                if hold_on:
                    may_end.wait(PATIENCE)

        holder = loop.run_in_executor(None, in_a_thread, "thread 1", True)
        await until(lambda: order == ["thread 1"])
        task1 = await waiting(jobs, held(jobs, lambda: order.append("task 1")))
        thread2 = loop.run_in_executor(None, in_a_thread, "thread 2")
        await until(lambda: queue(jobs) == 2)
        task2 = await waiting(jobs, held(jobs, lambda: order.append("task 2")))
        assert order == ["thread 1"]
        may_end.set()
        await asyncio.gather(holder, task1, thread2, task2)
        assert order == ["thread 1", "task 1", "thread 2", "task 2"]

    run(work)
