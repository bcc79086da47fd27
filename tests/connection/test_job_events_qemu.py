"""A real migration between two QEMUs whose source ends before the destination has answered, in a forced order: the
source's stream has the end of its job all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import eventbridge
from eventbridge import Domain, LongCall
from eventbridge.core.dispatcher import BUDGET_CALLBACKS
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from tests.support import qmp_qemu
from tests.support.four_domains import until_under_way
from tests.support.patience import patience
from tests.support.proxy import Proxy, proxied
from tests.support.qmp_qemu import INCOMING, MACHINE, Qemu

pytestmark = pytest.mark.qemu

SLOW = 20_000  # bytes/s: half a minute for what the 16 MiB of mostly zeros come to
FAST = 1 << 30


@dataclass
class Pair:
    """Two QEMUs, each behind a proxy of its monitor, and the domains of two connections to them."""

    source: Qemu
    destination: Qemu
    proxies: tuple[Proxy, Proxy]
    here: Domain
    there: Domain


@pytest.fixture
def directory() -> Iterator[Path]:
    with qmp_qemu.directory() as directory:
        yield directory


@contextlib.asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        qemus = [
            stack.enter_context(Qemu(directory, name, *MACHINE, *more)) for name, more in (("a", ()), ("b", INCOMING))
        ]
        proxies, domains = [], []
        for qemu in qemus:
            (directory / f"{qemu.name}.proxied").mkdir()
            proxy = stack.enter_context(proxied(qemu.path, directory / f"{qemu.name}.proxied"))
            hv = await stack.enter_async_context(eventbridge.connect(f"qmp+unix://{proxy.address}", reconnect=None))
            domains += await hv.domains()
            proxies.append(proxy)
        yield Pair(qemus[0], qemus[1], (proxies[0], proxies[1]), *domains)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def sent(of: Pair) -> LongCall[Domain]:
    """The source has sent the domain; the destination runs it, and its answer is held back."""
    job = of.here.migrate(of.there, bandwidth=SLOW)
    await until_under_way(job)
    of.proxies[1].frozen = True
    await of.here.set_bandwidth(FAST)
    there = of.there.connection
    await until(lambda: any(request.operation == "migrate_finish" for request in there.under_way))
    return job


def jobs(events: list[DomainEvent]) -> list[tuple[Kind, str | None]]:
    return [(event.kind, event.reason) for event in events if event.kind in (Kind.JOB_STARTED, Kind.JOB_ENDED)]


def test_a_source_that_ends_before_the_destination_answers_has_completed(directory: Path) -> None:
    async def main() -> None:
        async with patience(), pair(directory) as of:
            await of.here.start()
            leaving, coming = of.here.connection.events(), of.there.connection.events()
            job = await sent(of)
            of.source.kill()
            first = []
            async for event in leaving:
                first.append(event)
                if event.kind is Kind.CONNECTION_LOST:
                    break
            assert [event.reason for event in first if event.kind is Kind.STOPPED] == ["crashed"]
            assert jobs(first) == [(Kind.JOB_STARTED, "migrate")] and not job.done
            of.proxies[1].frozen = False
            rest = [event async for event in leaving]
            assert jobs(rest) == [(Kind.JOB_ENDED, "completed")] and len(rest) == 1
            assert await job == of.there and (await of.there.info()).state is State.RUNNING
            assert jobs(list(iter(coming.take, None))) == [
                (Kind.JOB_STARTED, "migrate_in"),
                (Kind.JOB_ENDED, "completed"),
            ]

    asyncio.run(main())


def test_a_source_that_hangs_up_instead_of_its_last_answer_has_completed(directory: Path) -> None:
    """QEMU is told to quit, and its end of file comes first."""

    async def main() -> None:
        async with patience(), pair(directory) as of:
            await of.here.start()
            leaving = of.here.connection.events()
            job = await sent(of)
            of.proxies[0].lets_through = 1  # of what it answers from here on
            of.proxies[1].frozen = False
            told = [event async for event in leaving]
            assert [event.reason for event in told if event.kind is Kind.STOPPED] == ["migrated"]
            assert jobs(told) == [(Kind.JOB_STARTED, "migrate"), (Kind.JOB_ENDED, "completed")]
            assert await job == of.there
            assert of.source.process.wait(10) == 0

    asyncio.run(main())


def test_a_stream_waits_for_the_end_of_its_job_however_many_passes_that_takes(directory: Path) -> None:
    """Between the source's end and the end of the migration the loop has more to do than fits into a few passes."""

    async def main() -> None:
        async with patience(), pair(directory) as of:
            await of.here.start()
            leaving = of.here.connection.events()

            def on_event(event: DomainEvent) -> None:
                if event.kind is Kind.STOPPED:
                    for _ in range(8 * BUDGET_CALLBACKS):
                        of.here.connection.soon(lambda: None)

            of.here.connection.subscribe(on_event)
            await of.here.migrate(of.there)
            told = [event async for event in leaving]
            assert [event.reason for event in told if event.kind is Kind.STOPPED] == ["migrated"]
            assert jobs(told) == [(Kind.JOB_STARTED, "migrate"), (Kind.JOB_ENDED, "completed")]

    asyncio.run(main())
