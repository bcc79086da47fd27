"""The face for tasks: ``async with connect(uri)``, awaited calls, events iterated; what a cancelled task leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import eventbridge
from eventbridge.connection import shared_bridge
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobAborted
from tests.support.patience import PATIENCE
from tests.support.scripted_hypervisor import Scripted, uuid

D1 = uuid(1)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    asyncio.run(limited(), debug=True)
    assert shared_bridge._leases == {}


@pytest.fixture
def one(scripted: Scripted) -> Scripted:
    scripted.add(1, State.RUNNING)
    return scripted


def test_the_readmes_way(one: Scripted) -> None:
    async def main() -> None:
        async with eventbridge.connect(one.uri) as hv:
            domain = await hv.domain("d1")
            stream = hv.events()
            await domain.suspend()
            assert (await domain.info()).state is State.PAUSED
            await domain.resume()
            kinds = []
            async for event in stream:
                kinds.append(event.kind)
                if len(kinds) == 2:
                    break
            assert kinds == [Kind.SUSPENDED, Kind.RESUMED]
        assert not one.sessions

    run(main)


def test_all_of_one_loop_share_a_bridge_that_ends_with_the_last(one: Scripted) -> None:
    async def main() -> None:
        async with eventbridge.connect(one.uri) as first:
            async with eventbridge.connect(one.uri) as second:
                assert first.bridge is second.bridge
            assert not first.bridge.closed
        assert first.bridge.closed

    run(main)
    run(main)


def test_one_that_cannot_be_opened_raises_on_entering_and_leaves_nothing(one: Scripted) -> None:
    one.refusals = 1

    async def main() -> None:
        with pytest.raises(HypervisorError, match="as the script has it"):
            async with eventbridge.connect(one.uri):
                raise AssertionError("it was entered")
        while shared_bridge._leases:
            await asyncio.sleep(0)

    run(main)


def test_a_cancelled_task_leaves_its_place_in_the_queue(one: Scripted) -> None:
    async def main() -> None:
        async with eventbridge.connect(one.uri) as hv:
            domain = await hv.domain("d1")
            one.holds_answers = True
            first = domain.suspend()
            task = asyncio.create_task(_look(domain))
            while domain.job is None or domain.job.queue == 0:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert domain.job.queue == 0
            one.release_answers()
            await first
            assert ("info", "d1") not in one.asked

    run(main)


def test_a_timeout_of_asyncios_gives_a_call_up(one: Scripted) -> None:
    async def main() -> None:
        async with eventbridge.connect(one.uri) as hv:
            domain = await hv.domain("d1")
            one.holds_answers = True
            call = domain.suspend()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await call
            assert isinstance(call.error, JobAborted)
            one.release_answers()

    run(main)


def test_a_loop_of_readers_ends_with_the_connection(one: Scripted) -> None:
    async def main() -> None:
        seen: list[Kind] = []

        async def read(stream: eventbridge.EventStream) -> None:
            async for event in stream:
                seen.append(event.kind)

        async with eventbridge.connect(one.uri) as hv:
            tasks = [asyncio.create_task(read(hv.events())) for _ in range(3)]
            await (await hv.domain("d1")).suspend()
        await asyncio.gather(*tasks)
        assert seen == [Kind.SUSPENDED] * 3

    run(main)


def test_a_held_job_keeps_others_out_for_several_steps(one: Scripted) -> None:
    async def main() -> None:
        async with eventbridge.connect(one.uri) as hv:
            domain = await hv.domain("d1")
            async with domain.hold(eventbridge.Job.MODIFY):
                with pytest.raises(eventbridge.JobBusy, match="modify"):
                    await domain.info(nowait=True)
            await domain.info(nowait=True)

    run(main)


def test_a_step_of_a_held_job_is_let_in_where_others_are_not(one: Scripted) -> None:
    """A normal job that names its asynchronous one passes its mask, as libvirt's nested jobs do."""

    async def main() -> None:
        async with eventbridge.connect(one.uri) as hv:
            domain = await hv.domain("d1")
            async with domain.hold(eventbridge.Job.SNAPSHOT) as token:
                await domain.suspend(of=token)
                with pytest.raises(eventbridge.JobTimeout, match="snapshot"):
                    await domain.resume(timeout=0.01)
                await domain.resume(of=token)
            with pytest.raises(eventbridge.JobAborted, match="does not run any more"):
                await domain.suspend(of=token)

    run(main)


async def _look(domain: eventbridge.Domain) -> object:
    return await domain.info()
