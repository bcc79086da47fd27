"""Disks that a guest ejects: either generation of libxl delivers each ejection once, whenever it happens.

No test waits to see that nothing comes.  Another disk is ejected last, twice: xenstored fires the watches of one
connection in order, so all that the first disk has caused is delivered before the second of these.  (The first of them
may be found by the look at a watch that fired when it was set.)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.driver import Subscription
from eventbridge.hypervisor.events import DomainEvent
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41
from tests.support.xen.standin import SUSPEND, XenStandIn

URI = "libxl:///"
DOMID = 5
HDC, HDD = 5632, 5696


@pytest.fixture(params=["4.2 and later", "4.1"])
def generation(request: pytest.FixtureRequest, xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> str:
    generation: str = request.param
    if generation == "4.1":
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(libxl41.stand_in()))
    return generation


@pytest.fixture
def guest(generation: str, xen: XenStandIn) -> XenStandIn:
    """The stand-in, with a guest that has two drives with a disc in each."""
    xen.create(DOMID, hvm=True)
    xen.cdrom(DOMID, "hdc", HDC)
    xen.cdrom(DOMID, "hdd", HDD)
    return xen


class Watch:
    """A subscription, and what it delivered."""

    def __init__(self, xen: XenStandIn, bridge: Bridge) -> None:
        self._xen = xen
        self._bridge = bridge
        self.events: list[DomainEvent] = []
        self.subscription: Subscription = lookup.find(URI).subscribe(URI, bridge, self.events.append)

    def until(self, line: str, times: int = 1) -> None:
        """Such an event is delivered, so many times."""
        assert self._bridge.run(until=lambda: self.lines().count(line) >= times, timeout=PATIENCE), self.lines()

    def lines(self) -> list[str]:
        return [str(event).removeprefix("guest5 ") for event in self.events]

    def all(self) -> list[str]:
        """What is delivered in the end, without the two ejections that show it."""
        for times in (1, 2):
            self._xen.eject(DOMID, HDD)
            self.until("disk_ejected (hdd)", times)
        assert self.lines().count("disk_ejected (hdd)") == 2
        return [line for line in self.lines() if line != "disk_ejected (hdd)"]


@pytest.fixture(params=["asyncio", "libuv", "select"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    errors: list[BaseException] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append(error)) as bridge:
        yield bridge
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), "something is still registered"
    assert errors == []


@pytest.fixture
def watch(guest: XenStandIn, bridge: Bridge) -> Iterator[Watch]:
    """One that is open, and whose loop has not turned yet."""
    watch = Watch(guest, bridge)
    yield watch
    watch.subscription.close()


def test_a_disk_that_is_ejected_before_the_loop_turns_is_delivered_once(guest: XenStandIn, watch: Watch) -> None:
    """A watch fires once when it is set; by the time that is looked at, the tray is out."""
    guest.eject(DOMID, HDC)
    assert watch.all() == ["disk_ejected (hdc)"]


def test_each_ejection_of_a_disk_is_delivered(guest: XenStandIn, watch: Watch) -> None:
    for times in (1, 2, 3):
        guest.eject(DOMID, HDC)
        watch.until("disk_ejected (hdc)", times)
    assert watch.all() == ["disk_ejected (hdc)"] * 3


def test_an_ejection_is_not_delivered_again_when_the_host_is_opened_again(
    guest: XenStandIn, watch: Watch, bridge: Bridge
) -> None:
    guest.eject(DOMID, HDC)
    watch.until("disk_ejected (hdc)")
    watch.subscription.close()
    again = Watch(guest, bridge)
    try:
        assert again.all() == []
        guest.eject(DOMID, HDC)
        again.until("disk_ejected (hdc)")
    finally:
        again.subscription.close()


def test_an_ejection_is_not_delivered_again_when_the_domain_is_resumed(guest: XenStandIn, watch: Watch) -> None:
    guest.eject(DOMID, HDC)
    watch.until("disk_ejected (hdc)")
    guest.shutdown(DOMID, reason=SUSPEND)
    watch.until("suspended (guest)")
    guest.resume(DOMID)
    watch.until("resumed")
    assert watch.all() == ["disk_ejected (hdc)", "suspended (guest)", "resumed"]
