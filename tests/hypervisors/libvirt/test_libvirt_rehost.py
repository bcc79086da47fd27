"""One libvirt, many hosts: connections outlive the loops that serve them (D8, D9), in one process, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

import eventbridge
from eventbridge import Bridge, BridgeClosed
from eventbridge.adapters.hypervisors.libvirt import install
from eventbridge.adapters.hypervisors.libvirt.driver import LibvirtSubscription, driver
from eventbridge.core.host import RunnableHost
from eventbridge.core.host_lookup import by_name
from eventbridge.hypervisor.events import DomainEvent
from tests.support.libvirtd import Libvirtd
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN, HOSTS

LIVES = 100
TOGGLED = ["t suspended (paused)", "t resumed (unpaused)"]


class Traveller:
    """A subscription over a private daemon that goes from host to host, and all that it is told."""

    def __init__(self, daemon: Libvirtd, bridge: Bridge) -> None:
        self.events: list[DomainEvent] = []
        self.threads: list[int] = []
        self.each: Callable[[], object] = lambda: None
        install(bridge)
        self.acting: Any = libvirt.open(daemon.tcp_uri)
        self.domain = self.acting.createXML(DOMAIN.format("t"))
        self.subscription: LibvirtSubscription = driver.subscribe(daemon.unix_uri, bridge, self._emit)

    def _emit(self, event: DomainEvent) -> None:
        self.events.append(event)
        self.threads.append(threading.get_ident())
        self.each()

    def toggle(self) -> None:
        """Two events."""
        self.domain.suspend()
        self.domain.resume()

    def told(self, times: int) -> bool:
        return len(self.events) >= 2 * times

    def assert_told(self, times: int) -> None:
        assert [str(event) for event in self.events] == TOGGLED * times
        assert [event.sequence for event in self.events] == list(range(1, 2 * times + 1))

    def end(self) -> None:
        self.subscription.close()
        self.domain.destroy()
        self.domain = None  # a domain's object keeps its connection open
        self.acting.close()


@pytest.fixture
def bridges() -> Iterator[Callable[..., Bridge]]:
    """``Bridge``, each closed after the test."""
    with contextlib.ExitStack() as made:
        yield lambda *arguments: made.enter_context(Bridge(*arguments))


@pytest.fixture
def hosts() -> Iterator[Callable[[str], RunnableHost]]:
    """Hosts by name, each closed after the test."""
    with contextlib.ExitStack() as made:

        def host(name: str) -> RunnableHost:
            found = by_name(name)
            assert isinstance(found, RunnableHost)
            made.callback(found.close)
            return found

        yield host


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in HOSTS for new in HOSTS])
def test_a_live_connection_follows_its_installation_and_misses_nothing(
    old: str, new: str, daemon: Libvirtd, bridges: Callable[..., Bridge]
) -> None:
    """D9: nor what happened while no loop served it."""
    first, second = bridges(old), bridges(new)
    traveller = Traveller(daemon, first)
    traveller.toggle()
    assert first.run(until=lambda: traveller.told(1), timeout=PATIENCE)
    traveller.toggle()
    install(second)
    traveller.toggle()
    assert first.is_empty()
    assert second.run(until=lambda: traveller.told(3), timeout=PATIENCE)
    traveller.assert_told(3)
    traveller.end()
    assert second.run(until=second.is_empty, timeout=PATIENCE)


def test_a_bridge_moves_from_host_to_host_while_another_thread_makes_events(
    daemon: Libvirtd, bridges: Callable[..., Bridge], hosts: Callable[[str], RunnableHost]
) -> None:
    """D9, as `Bridge.move`."""
    bridge = bridges(hosts("select"))
    traveller = Traveller(daemon, bridge)
    actor = threading.Thread(target=lambda: [traveller.toggle() for _ in range(60)])
    actor.start()
    for number, name in enumerate(HOSTS * 4, start=1):
        assert bridge.run(until=lambda: traveller.told(5 * number), timeout=PATIENCE)  # noqa: B023  # called at once
        bridge.move(hosts(name))
    assert bridge.run(until=lambda: traveller.told(60), timeout=PATIENCE)
    actor.join()
    traveller.assert_told(60)
    traveller.end()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


def test_an_installation_moves_between_two_loops_that_both_run(
    daemon: Libvirtd, bridges: Callable[..., Bridge]
) -> None:
    """D9, D1: each event once, in order, on the thread of one of the two: no pass of the new one begins before the old
    one's last is over."""
    here, there = bridges("asyncio"), bridges("select")
    traveller = Traveller(daemon, here)
    traveller.each = lambda: traveller.told(40) and here.stop()

    def act() -> None:
        for turn in range(40):
            install((here, there)[turn % 2])
            traveller.toggle()

    actor, other = threading.Thread(target=act), threading.Thread(target=there.run)
    other.start()
    actor.start()
    try:
        assert here.run(timeout=PATIENCE)
    finally:
        there.stop()
        actor.join()
        other.join()
    traveller.assert_told(40)
    assert set(traveller.threads) <= {threading.get_ident(), other.ident}
    install(here)
    traveller.end()
    assert here.run(until=here.is_empty, timeout=PATIENCE)
    assert there.is_empty()


def test_one_connection_lives_through_a_hundred_asyncio_runs(daemon: Libvirtd, bridges: Callable[..., Bridge]) -> None:
    """D9: with libvirt-python's libvirtaio the second run hears nothing any more."""
    traveller = Traveller(daemon, bridges("select"))

    async def life(number: int) -> None:
        with eventbridge.attach() as bridge:
            install(bridge)
            traveller.toggle()
            while not traveller.told(number):
                await asyncio.sleep(0)
            install(resting)

    resting = bridges("select")
    for number in range(1, LIVES + 1):
        asyncio.run(life(number))
    traveller.assert_told(LIVES)
    traveller.end()
    assert resting.run(until=resting.is_empty, timeout=PATIENCE)


def test_a_loop_that_ended_with_everything_on_it_is_followed_by_the_next(
    daemon: Libvirtd, bridges: Callable[..., Bridge]
) -> None:
    """D9: asyncio.run closes its loop, and nobody took libvirt off it before."""
    before = bridges("select")
    traveller = Traveller(daemon, before)

    async def life(number: int) -> Bridge:
        bridge = eventbridge.attach()
        install(bridge)
        traveller.toggle()
        while not traveller.told(number):
            await asyncio.sleep(0)
        return bridge

    ended = [asyncio.run(life(number)) for number in range(1, 6)]
    traveller.toggle()
    last = bridges("libuv")
    install(last)
    assert all(bridge.is_empty() for bridge in ended)
    assert last.run(until=lambda: traveller.told(6), timeout=PATIENCE)
    traveller.assert_told(6)
    traveller.end()
    assert last.run(until=last.is_empty, timeout=PATIENCE)
    for bridge in ended:
        bridge.close()


def test_every_asyncio_run_drains_to_nothing(daemon: Libvirtd) -> None:
    """D8: open, be told, close, and nothing is left, a hundred times in one process."""
    told: list[str] = []

    async def life() -> None:
        with eventbridge.attach() as bridge:
            subscription = await asyncio.to_thread(
                driver.subscribe, daemon.unix_uri, bridge, lambda event: told.append(event.kind)
            )
            connection = await asyncio.to_thread(libvirt.open, daemon.tcp_uri)
            domain = await asyncio.to_thread(connection.lookupByName, "test")
            known = len(told)
            await asyncio.to_thread(domain.suspend)
            await asyncio.to_thread(domain.resume)
            while len(told) < known + 2:
                await asyncio.sleep(0)
            await asyncio.to_thread(connection.close)
            await asyncio.to_thread(subscription.close)
            del domain, connection  # a domain's object keeps its connection open
            assert await bridge.drain(PATIENCE), f"libvirt left something: {bridge!r}"

    for _ in range(LIVES // 4):
        asyncio.run(life())
    assert told == ["suspended", "resumed"] * (LIVES // 4)


@pytest.mark.parametrize("name", HOSTS)
def test_a_bridge_closed_beneath_live_connections_fails_their_hooks_cleanly(
    name: str, daemon: Libvirtd, bridges: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]
) -> None:
    """D8: calls go on working, registering is refused, everything can be closed, and nothing is printed."""
    bridge = bridges(name)
    traveller = Traveller(daemon, bridge)
    local = libvirt.open("test:///default")
    bridge.close()
    traveller.toggle()
    assert traveller.acting.isAlive()
    with pytest.raises(libvirt.libvirtError):
        local.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, print, None)
    local.close()
    traveller.end()
    assert traveller.events == []
    with pytest.raises(BridgeClosed, match="needs a bridge that is open"):
        install(bridge)
    assert capfd.readouterr() == ("", "")


def test_what_died_with_its_bridge_can_be_closed_on_the_next(
    daemon: Libvirtd, bridges: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]
) -> None:
    """D8, H8: libvirt still holds ids of the closed bridge.  Giving them back is no error and touches nobody else's."""
    first, second = bridges("select"), bridges("select")
    install(first)
    dead = libvirt.open(daemon.unix_uri)
    registered = dead.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, print, None)
    dead.setKeepAlive(5, 3)
    newest, ours = _one_more_of_ours(first), [_one_more_of_ours(second)]
    while ours[-1] < newest:  # until both bridges have given out the same numbers
        ours.append(_one_more_of_ours(second))
    first.close()
    alive = Traveller(daemon, second)
    dead.domainEventDeregisterAny(registered)
    dead.close()
    alive.toggle()
    assert second.run(until=lambda: alive.told(1), timeout=PATIENCE)
    alive.assert_told(1)
    alive.end()
    for id in ours:
        second.remove_timeout(id)
    assert second.run(until=second.is_empty, timeout=PATIENCE)
    assert capfd.readouterr() == ("", "")


def _one_more_of_ours(bridge: Bridge) -> int:
    return bridge.add_timeout(-1, print)


def test_installing_after_somebody_else_is_one_clear_error(tmp_path: Path) -> None:
    """In a process of its own: libvirt cannot change its mind."""
    script = tmp_path / "late.py"
    script.write_text(
        "import libvirt, eventbridge\n"
        "from eventbridge.adapters.hypervisors import libvirt as bridged\n"
        "libvirt.virEventRegisterDefaultImpl()\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        bridged.install(eventbridge.Bridge('select'))\n"
        "    except eventbridge.HypervisorError as error:\n"
        "        print(error)\n"
        "print(bridged.installed())\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    first, second, installed_then = ended.stdout.splitlines()
    assert first == second
    assert "another event implementation already" in first
    assert "before" in first
    assert installed_then == "None"
    assert "Traceback" not in ended.stderr  # libvirt logs a warning of its own
