"""The reason of a domain's end is not lost, whichever side is late: libxl's event, xenstored's announcement, the
driver's own look at the list, or the list that somebody asked for.

Over the real libraries and the real xenstored.  A side is late because the test holds it; that nothing more comes is
shown by another domain, which starts last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eventbridge
from eventbridge import Backoff, Bridge, Connection
from eventbridge.adapters.hypervisors.xen.libxl.context import Context
from eventbridge.adapters.hypervisors.xen.libxl41.waiter import EventSource
from eventbridge.adapters.hypervisors.xen.xenstore import source
from eventbridge.adapters.hypervisors.xen.xenstore.source import WatchSource
from eventbridge.connection import supervisor
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41, table
from tests.support.xen.standin import CRASH, POWEROFF, XenStandIn

URI = "libxl:///"
AT_ONCE = Backoff(first=0.01, most=0.05)
CRASHED = ["guest7 crashed", "guest7 stopped (crashed)"]


class Held:
    """A method whose calls wait until they are let go; the loop's thread alone calls it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self._method = getattr(owner, name)
        self._waiting: list[tuple[Any, ...]] = []
        self.holds = False
        monkeypatch.setattr(owner, name, lambda *arguments: self._called(arguments))

    def _called(self, arguments: tuple[Any, ...]) -> None:
        if self.holds:
            self._waiting.append(arguments)
        else:
            self._method(*arguments)

    def let_go(self) -> None:
        self.holds = False
        waiting, self._waiting = self._waiting, []
        for arguments in dict.fromkeys(waiting):  # a handle that stays ready is called in every pass
            self._method(*arguments)


class Watch:
    """A subscription, and what it delivered."""

    def __init__(self, xen: XenStandIn, bridge: Bridge) -> None:
        self.xen = xen
        self.bridge = bridge
        self.events: list[DomainEvent] = []
        self.subscription = lookup.find(URI).subscribe(URI, bridge, self.events.append)

    def lines(self) -> list[str]:
        return [str(event) for event in self.events]

    def until(self, line: str) -> None:
        assert self.bridge.run(until=lambda: line in self.lines(), timeout=PATIENCE), self.lines()

    def all(self) -> list[str]:
        """What is delivered in the end."""
        self.xen.create(99, "last")
        self.until("last started")
        self.xen.die(99)
        self.until("last stopped (destroyed)")
        return [line for line in self.lines() if not line.startswith("last ")]


@pytest.fixture(params=["4.2 and later", "4.1"])
def libxl_held(request: pytest.FixtureRequest, xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> Held:
    """What the loop's thread calls libxl with, of either generation."""
    if request.param == "4.1":
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(libxl41.stand_in()))
        return Held(monkeypatch, EventSource, "drain")
    return Held(monkeypatch, Context, "fd_occurred")


@pytest.fixture
def store_held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """What it takes xenstored's announcements with."""
    return Held(monkeypatch, WatchSource, "drain")


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    errors: list[BaseException] = []
    with Bridge("select", on_error=lambda error, context: errors.append(error)) as bridge:
        yield bridge
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), "something is still registered"
    assert errors == []


@pytest.fixture
def watch(libxl_held: Held, store_held: Held, xen: XenStandIn, bridge: Bridge) -> Iterator[Watch]:
    """With domain 7, which is to end.  Its first watches have fired, and are not taken for news."""
    xen.create(7)
    watch = Watch(xen, bridge)
    xen.create(8)
    watch.until("guest8 started")
    xen.die(8)
    watch.until("guest8 stopped (destroyed)")
    watch.events.clear()
    yield watch
    watch.subscription.close()


def mark(xen: XenStandIn, flags: int, reason: int = CRASH) -> None:
    """Xen's flags of domain 7, of which nothing is announced."""
    xen.table.set_flags(7, flags | reason << table.REASON_SHIFT)


def vanish(xen: XenStandIn, domid: int = 7) -> None:
    """The domain leaves Xen's list, and nothing is announced."""
    del xen.guests[domid]
    xen.table.remove(domid)


def test_libxls_event_is_late(xen: XenStandIn, watch: Watch, libxl_held: Held) -> None:
    """xenstored's announcement makes the driver look by itself.  libxl finds the domain gone, and tells no shutdown."""
    libxl_held.holds = True
    xen.shutdown(7, reason=CRASH)
    watch.until("guest7 crashed")
    xen.die(7)
    libxl_held.let_go()
    assert watch.all() == CRASHED


def test_libxls_event_is_late_and_the_domain_dying(xen: XenStandIn, watch: Watch, libxl_held: Held) -> None:
    """libxl tells the death of one that is dying, and not how its guest had stopped."""
    libxl_held.holds = True
    mark(xen, table.SHUTDOWN | table.DYING)
    xen.table.virq()
    watch.until("guest7 stopped (crashed)")
    libxl_held.let_go()
    vanish(xen)
    assert watch.all() == CRASHED


def test_the_announcement_is_late(xen: XenStandIn, watch: Watch, store_held: Held) -> None:
    store_held.holds = True
    xen.shutdown(7, reason=CRASH)
    watch.until("guest7 crashed")
    xen.die(7)
    watch.until("guest7 stopped (crashed)")
    store_held.let_go()
    assert watch.all() == CRASHED


def test_the_announcement_is_late_and_the_domain_dying(xen: XenStandIn, watch: Watch, store_held: Held) -> None:
    """A toolstack destroys what has shut down, at once: the reason is asked for when libxl tells the death."""
    store_held.holds = True
    mark(xen, table.SHUTDOWN | table.DYING)
    xen.table.virq()
    watch.until("guest7 stopped (crashed)")
    store_held.let_go()
    vanish(xen)
    assert watch.all() == CRASHED


def test_the_list_is_first(xen: XenStandIn, watch: Watch) -> None:
    """Another domain comes, for which the list is looked at; nothing was announced of this one."""
    mark(xen, table.SHUTDOWN)
    xen.create(8)
    watch.until("guest8 started")
    watch.until("guest7 crashed")
    vanish(xen)
    xen.create(9)
    watch.until("guest7 stopped (crashed)")
    xen.table.virq()
    assert [line for line in watch.all() if line.startswith("guest7 ")] == CRASHED


def test_the_list_is_first_and_the_domain_dying(xen: XenStandIn, watch: Watch) -> None:
    mark(xen, table.SHUTDOWN | table.DYING)
    xen.create(8)
    watch.until("guest7 stopped (crashed)")
    vanish(xen)
    xen.table.virq()
    assert [line for line in watch.all() if line.startswith("guest7 ")] == CRASHED


# -- a connection, which asks for the list


class Heard:
    """A connection, and what it told."""

    def __init__(self, bridge: Bridge, audit: float | None) -> None:
        self._bridge = bridge
        self.hv: Connection = eventbridge.open(URI, bridge, reconnect=AT_ONCE, audit=audit)
        self.run(lambda: self.hv.opened.done)
        self.events: list[DomainEvent] = []
        self.hv.subscribe(self.events.append)

    def run(self, until: Callable[[], bool]) -> None:
        assert self._bridge.run(until=until, timeout=PATIENCE), [str(event) for event in self.events]

    def until(self, kind: Kind) -> None:
        self.run(lambda: any(event.kind is kind for event in self.events))

    def lines(self) -> list[str]:
        """An event that the connection has inferred has a star."""
        return [f"{event}{' *' if event.synthetic else ''}" for event in self.events]


@pytest.fixture
def heard(
    libxl_held: Held, xen: XenStandIn, bridge: Bridge, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Heard]:
    """The parameter is how often the connection asks for the list."""
    monkeypatch.setattr(source, "PROBE_SECONDS", 0.05)
    xen.create_many([1, 7])
    heard = Heard(bridge, request.param)
    yield heard
    heard.hv.close()


@pytest.mark.parametrize("heard", [0.02], indirect=True)
def test_the_audit_is_first(xen: XenStandIn, heard: Heard) -> None:
    """Nothing is announced: that the domain ends shows in the list that the connection asks for."""
    mark(xen, table.SHUTDOWN)
    heard.until(Kind.CRASHED)
    vanish(xen)
    heard.until(Kind.STOPPED)
    assert heard.lines() == CRASHED


@pytest.mark.parametrize("heard", [0.02], indirect=True)
def test_the_audit_is_first_and_the_domain_dying(xen: XenStandIn, heard: Heard) -> None:
    mark(xen, table.SHUTDOWN | table.DYING)
    heard.until(Kind.STOPPED)
    assert heard.lines() == CRASHED


@pytest.mark.parametrize("heard", [None], indirect=True)
def test_a_call_that_finds_xenstored_gone_has_it_looked_for_at_once(
    xen: XenStandIn, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the connection would be given up as one that does not say why, and what is on its way with it."""
    monkeypatch.setattr(supervisor, "SUSPICION_SECONDS", 2 * PATIENCE)
    monkeypatch.setattr(WatchSource, "deadline", lambda source: None)  # no probe comes
    mark(xen, table.SHUTDOWN)
    xen.kill()
    call = heard.hv.domains()
    heard.until(Kind.CONNECTION_LOST)
    heard.run(lambda: call.done)  # it fails, on the loop's thread, before or after that is told
    assert heard.lines() == ["guest7 crashed", "- connection_lost (eof)"]
    xen.restart(told_before=True)


@pytest.mark.parametrize("heard", [None], indirect=True)
def test_what_ended_before_xenstored_was_lost_is_told_before_the_loss_and_once(xen: XenStandIn, heard: Heard) -> None:
    """xenstored announces neither: it is killed first.  The list of Xen's domains needs no xenstored."""
    mark(xen, table.SHUTDOWN, POWEROFF)
    vanish(xen, 1)
    xen.kill()
    heard.until(Kind.CONNECTION_LOST)
    before = heard.lines()
    assert sorted(before[:2]) == ["guest1 stopped (destroyed)", "guest7 shutdown (guest)"]
    assert before[2:] == ["- connection_lost (eof)"]
    vanish(xen)
    xen.restart(told_before=True)
    heard.until(Kind.CONNECTION_RESTORED)
    assert heard.lines()[3:] == ["guest7 stopped (inferred) *", "- connection_restored"]
