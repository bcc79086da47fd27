"""The seed's sentence on real QEMU processes, each a connection of its own, on one loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

import eventbridge
from eventbridge import Domain, Job
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from tests.support import qmp_qemu
from tests.support.four_domains import Four, hold_to_it
from tests.support.patience import PATIENCE, patience
from tests.support.qmp_qemu import INCOMING, MACHINE, Qemu

pytestmark = pytest.mark.qemu

SLOW = 20_000  # bytes/s: half a minute for what the 16 MiB of mostly zeros come to


@pytest.fixture
def qemus() -> Iterator[dict[str, Qemu]]:
    """A to D, and one that waits to become A."""
    with qmp_qemu.directory() as directory, contextlib.ExitStack() as stack:
        made = {name: Qemu(directory, name, *MACHINE) for name in "abcd"}
        made["there"] = Qemu(directory, "there", *MACHINE, *INCOMING)
        for qemu in made.values():
            stack.enter_context(qemu)
        yield made


@contextlib.asynccontextmanager
async def connected(qemus: dict[str, Qemu]) -> AsyncIterator[dict[str, Domain]]:
    async with contextlib.AsyncExitStack() as stack:
        domains = {}
        for name, qemu in qemus.items():
            hv = await stack.enter_async_context(eventbridge.connect(qemu.uri, reconnect=None))
            (domains[name],) = await hv.domains()
        yield domains


def test_while_a_migrates_nobody_waits_and_aborted_it_runs_on(qemus: dict[str, Qemu]) -> None:
    async def main() -> None:
        async with patience(), connected(qemus) as of:
            four = Four(of["a"], of["b"], of["c"], of["d"])
            await asyncio.gather(four.a.start(), four.b.start())
            job = four.a.migrate(of["there"], bandwidth=SLOW)
            await hold_to_it(four, job, four.a.migrate(of["there"]), Job.MIGRATION_OUT)
        assert qemus["a"].side.status == "running"
        assert qemus["d"].process.wait(PATIENCE) == 0

    asyncio.run(main())


def test_while_a_is_saved_nobody_waits_and_aborted_it_runs_on(qemus: dict[str, Qemu]) -> None:
    async def main() -> None:
        async with patience(), connected(qemus) as of:
            four = Four(of["a"], of["b"], of["c"], of["d"])
            await asyncio.gather(four.a.start(), four.b.start())
            path = qemus["a"].path.with_suffix(".saved")
            qemus["a"].side.ask("migrate-set-parameters", max_bandwidth=SLOW)
            job = four.a.save(str(path))
            await hold_to_it(four, job, four.a.save(str(path)), Job.SAVE)
            assert not path.exists()
        assert qemus["a"].side.status == "running"

    asyncio.run(main())


def test_a_domain_that_has_migrated_is_there_and_here_no_more(qemus: dict[str, Qemu]) -> None:
    async def main() -> None:
        async with patience(), connected(qemus) as of:
            here, there = of["a"], of["there"]
            await here.start()
            leaving, coming = here.connection.events(), there.connection.events()
            async with here.migrate(there) as job:
                seen = [progress async for progress in job]
            arrived = await job
            assert arrived == there and (await there.info()).state is State.RUNNING
            assert seen[-1].total
            assert here.job is there.job is None
            told = [event async for event in leaving]
            assert [event.reason for event in told if event.kind is Kind.STOPPED] == ["migrated"]
            jobs = [(event.kind, event.reason) for event in told if event.kind in (Kind.JOB_STARTED, Kind.JOB_ENDED)]
            assert jobs == [(Kind.JOB_STARTED, "migrate"), (Kind.JOB_ENDED, "completed")]
            kinds = [event.kind for event in iter(coming.take, None)]
            assert kinds.count(Kind.STARTED) == 1 and Kind.STOPPED not in kinds
        assert qemus["a"].process.wait(PATIENCE) == 0
        assert qemus["there"].side.status == "running"

    asyncio.run(main())
