"""xenstored killed, replaced and frozen under a connection, by either generation of libxl and by xenstored alone: what
is known is what is true, the stream says so, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import eventbridge
from eventbridge import Backoff, Bridge, Call, Connection, ConnectionLost, JobTimeout
from eventbridge.adapters.hypervisors.xen.xenstore import source
from eventbridge.hypervisor.events import Kind
from tests.connection.xen_rig import WAYS, Crowd, Fates, Seen, known, truth
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE, patience, renew
from tests.support.xen import libxl41
from tests.support.xen.standin import XenStandIn

pytestmark = pytest.mark.xen

AT_ONCE = Backoff(first=0.01, most=0.05)
TIMES = 20
FEWER = 8


@pytest.fixture
def xen() -> Iterator[XenStandIn]:
    """A stand-in that runs, whose libraries this process finds by their plain names."""
    with XenStandIn() as running:
        running.load()
        yield running


@pytest.fixture(params=list(WAYS))
def uri(request: pytest.FixtureRequest, xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a way to that Xen, on which the death of xenstored is looked for often."""
    uri, old = WAYS[request.param]
    if old:
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(libxl41.stand_in()))
    monkeypatch.setattr(source, "PROBE_SECONDS", 0.05)
    return uri


async def until(happened: Callable[[], bool], words: Callable[[], object] = str) -> None:
    """For what another thread does."""
    for _ in range(int(PATIENCE * 100)):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not happen: {words()}")


@contextlib.asynccontextmanager
async def connected(uri: str) -> AsyncIterator[tuple[Connection, asyncio.Timeout]]:
    """With its limit of patience.  On a bridge of its own; of threads, fds and registrations nothing is left after."""
    errors: list[str] = []
    with Bridge(on_error=lambda error, context: errors.append("".join(traceback.format_exception(error)))) as bridge:
        async with eventbridge.connect(uri, bridge=bridge):
            pass  # whatever the libraries keep open for good is open now
        await until(bridge.is_empty)
        threads, fds = set(threading.enumerate()), open_fds()
        async with patience() as limit, eventbridge.connect(uri, bridge=bridge, reconnect=AT_ONCE) as hv:
            yield hv, limit
        await until(lambda: bridge.is_empty() and set(threading.enumerate()) <= threads, threading.enumerate)
        await until(lambda: open_fds() == fds, open_fds)
    assert errors == [], errors[0]


def killed_while_things_happen(xen: XenStandIn, fates: Fates) -> None:
    """Just before, when nobody has time to tell, and behind its back."""
    fates.create(1)
    fates.die(1)
    xen.kill()
    fates.create(2)
    fates.die(1)
    fates.reboot(1)
    fates.stop(1)
    fates.pause(1)
    fates.die(1)


@pytest.mark.timeout(600)
def test_xenstored_is_killed_and_another_in_its_place_twenty_times(xen: XenStandIn, uri: str) -> None:
    fates = Fates(xen)
    fates.create(12)

    async def main() -> None:
        async with connected(uri) as (hv, limit):
            seen = Seen(hv)
            for number in range(1, TIMES + 1):
                renew(limit)
                killed_while_things_happen(xen, fates)
                await until(seen.has(Kind.CONNECTION_LOST, number), seen.last)
                xen.restart(told_before=True)
                await until(seen.has(Kind.CONNECTION_RESTORED, number), seen.last)
                assert known(hv) == seen.implied == truth(xen, uri), seen.last()
            seen.check()

    asyncio.run(main())


@pytest.mark.parametrize("host", ["libuv", "select"])
def test_it_is_found_again_on_every_loop(xen: XenStandIn, uri: str, host: str) -> None:
    fates = Fates(xen)
    fates.create(12)
    with Bridge(host) as bridge:
        hv = eventbridge.open(uri, bridge, reconnect=AT_ONCE)
        assert bridge.run(until=lambda: hv.opened.done, timeout=PATIENCE)
        seen = Seen(hv)
        for number in range(1, FEWER + 1):
            killed_while_things_happen(xen, fates)
            assert bridge.run(until=seen.has(Kind.CONNECTION_LOST, number), timeout=PATIENCE), seen.last()
            xen.restart(told_before=True)
            assert bridge.run(until=seen.has(Kind.CONNECTION_RESTORED, number), timeout=PATIENCE), seen.last()
            assert known(hv) == seen.implied == truth(xen, uri), seen.last()
        seen.check()
        hv.close()
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), "something is still registered"


def test_domains_that_come_and_go_while_it_is_found_again_are_told_once_each(xen: XenStandIn, uri: str) -> None:
    """Answers and events of one domain overtake each other then."""
    fates = Fates(xen)
    fates.create(12)

    async def main() -> None:
        async with connected(uri) as (hv, limit):
            seen = Seen(hv)
            for number in range(1, FEWER + 1):
                renew(limit)
                xen.restart(told_before=bool(number % 2))
                with Crowd(fates):
                    await until(seen.has(Kind.CONNECTION_RESTORED, number), seen.last)
                await until(lambda: known(hv) == truth(xen, uri), lambda: (known(hv), truth(xen, uri), seen.last()))
                assert seen.implied == known(hv), seen.last()
            seen.check()

    asyncio.run(main())


def test_a_frozen_xenstored_costs_its_own_calls_and_keeps_neither_the_loop_nor_close(xen: XenStandIn, uri: str) -> None:
    Fates(xen).create(3)

    async def main() -> None:
        async with connected(uri) as (hv, _):
            domain, other, _ = [domain for domain in await hv.domains() if domain.id]
            xen.freeze()
            hanging: list[Call[Any]] = [domain.info(timeout=0.5), other.shutdown(timeout=0.5)]
            ticks = 0
            while not all(call.done for call in hanging):
                await asyncio.sleep(0)
                ticks += 1
            assert ticks > 100, "the loop stood still"
            for call, words in zip(hanging, ("info of guest1", "shutdown of guest2"), strict=True):
                with pytest.raises(JobTimeout, match=rf"{words}: no answer from {uri} within"):
                    await call
            assert domain.job is not None and domain.job.abandoned
            late = other.connection.domains()
            await hv.close()
            with pytest.raises(ConnectionLost):
                await late
            xen.kill()  # or its libraries' threads would wait for it for ever
            xen.restart()

    asyncio.run(main())
