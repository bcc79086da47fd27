"""QEMUs that are killed, frozen and come back: what is known is what is true, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventbridge
from eventbridge import Backoff, Connection, ConnectionLost, JobTimeout
from eventbridge.connection.inventory import alike
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from tests.support import qmp_qemu
from tests.support.patience import patience, renew
from tests.support.proxy import proxied
from tests.support.qmp_qemu import MACHINE, NONE, Qemu

pytestmark = pytest.mark.qemu

AT_ONCE = Backoff(first=0.01, most=0.05)
TIMES = 20


@pytest.fixture
def directory() -> Iterator[Path]:
    with qmp_qemu.directory() as directory:
        yield directory


async def until_restored(stream: eventbridge.EventStream, seen: list[DomainEvent]) -> None:
    async for event in stream:
        seen.append(event)
        if event.kind is Kind.CONNECTION_RESTORED:
            return


def implied(seen: list[DomainEvent]) -> State:
    """By the stream alone, of a connection's one domain that was paused in the beginning."""
    state = State.PAUSED
    for event in seen:
        match event.kind:
            case Kind.STARTED | Kind.RESUMED | Kind.REBOOTED:
                state = State.RUNNING
            case Kind.SUSPENDED:
                state = State.PAUSED
            case Kind.STOPPED:
                state = State.STOPPED
    return state


def known(hv: Connection) -> State:
    (domain,) = hv.known
    return alike(domain.state)


@pytest.mark.timeout(600)
def test_a_qemu_that_is_killed_and_another_in_its_place_twenty_times(directory: Path) -> None:
    """Every other one is let run by somebody else before the connection is back."""

    async def main() -> None:
        first = Qemu(directory, "vm", *MACHINE)
        with contextlib.ExitStack() as stack:
            qemu = stack.enter_context(first)
            async with patience() as limit, eventbridge.connect(qemu.uri, reconnect=AT_ONCE) as hv:
                stream, seen = hv.events(), []
                for number in range(TIMES):
                    renew(limit)
                    qemu.kill()
                    qemu.path.unlink(missing_ok=True)
                    qemu = stack.enter_context(Qemu(directory, "vm", *MACHINE))
                    if number % 2:
                        qemu.side.ask("cont")
                    await until_restored(stream, seen)
                    truth = State.RUNNING if number % 2 else State.PAUSED
                    assert known(hv) is implied(seen) is truth, [str(event) for event in seen[-6:]]
                kinds = [event.kind for event in seen]
                assert (
                    kinds.count(Kind.STOPPED) == kinds.count(Kind.STARTED) == kinds.count(Kind.CONNECTION_LOST) == TIMES
                )
                assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))

    asyncio.run(main())


@pytest.mark.timeout(600)
def test_what_happens_while_the_network_is_cut_is_told(directory: Path) -> None:
    async def main() -> None:
        with Qemu(directory, "vm", *MACHINE) as qemu, proxied(qemu.path, directory) as proxy:
            uri = f"qmp+unix://{proxy.address}"
            async with patience() as limit, eventbridge.connect(uri, reconnect=AT_ONCE) as hv:
                stream, seen = hv.events(), []
                for number in range(TIMES):
                    renew(limit)
                    proxy.lets_through = 10 * number or None  # cut in mid-word, sooner or later
                    call = hv.domains()
                    with contextlib.suppress(ConnectionLost):
                        await call
                    qemu.side.ask("stop" if number % 2 else "cont")
                    proxy.lets_through = None
                    proxy.cut()
                    truth = State.PAUSED if number % 2 else State.RUNNING
                    while not any(hv.known) or known(hv) is not truth or implied(seen) is not truth:
                        await until_restored(stream, seen)
                assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))

    asyncio.run(main())


def test_a_frozen_qemu_costs_its_own_calls_and_fifty_others_none(directory: Path) -> None:
    async def main() -> None:
        with contextlib.ExitStack() as stack:
            qemus = [stack.enter_context(Qemu(directory, f"n{number}", *NONE)) for number in range(51)]
            async with patience() as limit, contextlib.AsyncExitStack() as connected:
                domains = []
                for qemu in qemus:
                    renew(limit)
                    hv = await connected.enter_async_context(eventbridge.connect(qemu.uri, reconnect=None))
                    domains += await hv.domains()
                frozen, *others = domains
                qemus[0].freeze()
                hanging = frozen.info(timeout=0.5)
                rounds = 0
                while not hanging.done:
                    assert all(info.domain for info in await asyncio.gather(*(other.info() for other in others)))
                    rounds += 1
                with pytest.raises(JobTimeout, match=r"info of n0: no answer from qmp\+unix://.* within \d"):
                    await hanging
                assert rounds > 0
                assert frozen.job is not None and frozen.job.abandoned
                qemus[0].thaw()
                assert (await frozen.info()).domain.name == "n0"
                assert frozen.job is None

    asyncio.run(main())
