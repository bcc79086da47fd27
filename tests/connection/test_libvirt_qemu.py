"""libvirt's QEMU driver through a connection: the seed's sentence, and a daemon that is killed behind whose back its
guests change, twenty times."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventbridge
from eventbridge import Backoff, Connection, Job
from eventbridge.connection.inventory import alike
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from tests.support import wanted
from tests.support.four_domains import Four, hold_to_it
from tests.support.libvirtd_qemu import HOSTS, QemuLibvirtd, heavy_guest, private_qemu_libvirtd
from tests.support.patience import PATIENCE, patience, renew
from tests.support.proxy import Proxy, proxied
from tests.support.qemu import guest

pytestmark = [pytest.mark.libvirt, pytest.mark.qemu]

libvirt: Any = wanted.module("libvirt")

MIB = 1 << 20
AT_ONCE = Backoff(first=0.01, most=0.1)
TIMES = 20
GUESTS = ("a", "b", "c")


@pytest.fixture(scope="module")
def red() -> Iterator[QemuLibvirtd]:
    with private_qemu_libvirtd(HOSTS[0]) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def blue() -> Iterator[QemuLibvirtd]:
    with private_qemu_libvirtd(HOSTS[1]) as daemon:
        yield daemon


@pytest.fixture
def emptied(red: QemuLibvirtd) -> Iterator[None]:
    """Of all domains, in the end."""
    yield
    with libvirt.open(red.unix_uri) as connection:
        for domain in connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefine()
        domain = None  # a domain's object keeps its connection open


async def four_of(hv: Connection, daemon: QemuLibvirtd) -> Four:
    a = await hv.create(heavy_guest("a"), paused=True, timeout=PATIENCE)
    daemon.fill("a")
    await a.resume()
    b, d = [await hv.create(guest(name), paused=True) for name in "bd"]
    return Four(a, b, await hv.define(guest("c")), d)


@pytest.mark.timeout(120)
def test_while_a_migrates_nobody_waits_and_aborted_it_runs_on(
    red: QemuLibvirtd, blue: QemuLibvirtd, emptied: None
) -> None:
    async def main() -> None:
        async with patience(), eventbridge.connect(red.unix_uri) as hv:
            four = await four_of(hv, red)
            job = four.a.migrate(blue.unix_uri, bandwidth=MIB)
            await hold_to_it(four, job, four.a.migrate(blue.unix_uri), Job.MIGRATION_OUT)
            assert four.c.state is State.RUNNING and four.d.state is None

    asyncio.run(main())


@pytest.mark.timeout(120)
def test_while_a_is_saved_nobody_waits_and_aborted_it_runs_on(red: QemuLibvirtd, emptied: None) -> None:
    async def main() -> None:
        async with patience(), eventbridge.connect(red.unix_uri) as hv:
            four = await four_of(hv, red)
            pipe = red.directory / "pipe"
            os.mkfifo(pipe)
            slow = asyncio.create_task(read_slowly(pipe))
            job = four.a.save(str(pipe))
            await hold_to_it(four, job, four.a.save(str(pipe)), Job.SAVE)
            slow.cancel()

    asyncio.run(main())


async def read_slowly(pipe: Path) -> None:
    """A disk of some 400 kB/s: the save would take minutes."""
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):  # it is empty just now
                os.read(reader, 4096)
            await asyncio.sleep(0.01)
    finally:
        os.close(reader)
        pipe.unlink()


# -- killed


def act(connection: Any, number: int) -> None:
    """Something happens to each guest, by somebody else's calls, and to each something else than the last time."""
    for offset, name in enumerate(GUESTS):
        # libvirtd 9.0.0 may be on its way back to its guests still, and refuses some of what it does all the same.
        with contextlib.suppress(libvirt.libvirtError):
            act_on(connection.lookupByName(name), (number + offset) % 3 == 0)


def act_on(domain: Any, fatally: bool) -> None:
    state, _ = domain.state()
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    elif fatally:
        domain.destroy()
    elif state == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    else:
        domain.suspend()


def truth(connection: Any) -> dict[str, str]:
    words = {libvirt.VIR_DOMAIN_SHUTOFF: "stopped", libvirt.VIR_DOMAIN_PAUSED: "paused"}
    return {domain.name(): words.get(domain.state()[0], "running") for domain in connection.listAllDomains()}


def implied(start: dict[str, str], events: list[DomainEvent]) -> dict[str, str]:
    """By the stream alone."""
    states = dict(start)
    words = {Kind.STARTED: "running", Kind.RESUMED: "running", Kind.SUSPENDED: "paused", Kind.STOPPED: "stopped"}
    for event in events:
        if event.domain is not None and event.kind in words:
            assert event.domain.name is not None
            states[event.domain.name] = words[event.kind]
    return states


@pytest.mark.timeout(600)
def test_killed_twenty_times_with_changes_behind_its_back_it_knows_the_truth(red: QemuLibvirtd, emptied: None) -> None:
    """Guests outlive their daemon; what somebody does to them before our connection is back, its events tell nobody."""

    async def main() -> None:
        with proxied(red.socket, red.directory) as way:
            uri = red.unix_uri.replace(str(red.socket), str(way.address))
            async with patience() as limit, eventbridge.connect(uri, reconnect=AT_ONCE) as hv:
                await story(hv, way, limit)

    async def story(hv: Connection, way: Proxy, limit: asyncio.Timeout) -> None:
        for name in GUESTS:
            await hv.define(guest(name), timeout=PATIENCE)
        start = dict.fromkeys(GUESTS, "stopped")
        stream, seen = hv.events(), []
        for number in range(TIMES):
            renew(limit)
            way.refuses = True
            red.kill()
            await asyncio.to_thread(red.restart)
            await asyncio.to_thread(change, red, number)
            way.refuses = False
            async for event in stream:
                seen.append(event)
                if event.kind is Kind.CONNECTION_RESTORED:
                    break
            while (known_to(hv), implied(start, seen)) != (now := await asyncio.to_thread(look, red), now):
                seen.append(await anext(stream))
        assert [event.sequence for event in seen] == list(range(seen[0].sequence, seen[0].sequence + len(seen)))
        assert any(event.synthetic for event in seen)

    asyncio.run(main())


def known_to(hv: Connection) -> dict[str, str]:
    return {str(domain.ref.name): str(alike(domain.state)) for domain in hv.known}


def change(daemon: QemuLibvirtd, number: int) -> None:
    with libvirt.open(daemon.unix_uri) as connection:
        act(connection, number)


def look(daemon: QemuLibvirtd) -> dict[str, str]:
    with libvirt.open(daemon.unix_uri) as connection:
        return truth(connection)
