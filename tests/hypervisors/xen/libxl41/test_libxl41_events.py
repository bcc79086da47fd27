"""libxl:/// over libxl 4.1 (the project's stand-in for it, over the real libxenstore and xenstored): what its one
waiter says, told of all domains."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.domain_watcher import CLOSE_SECONDS
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.driver import Subscription
from eventbridge.hypervisor.events import DomainEvent, Kind
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41
from tests.support.xen.standin import CRASH, POWEROFF, REBOOT, SUSPEND, XenStandIn

URI = "libxl:///"


class Watch:
    """A subscription, and what it told."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.events: list[DomainEvent] = []
        self.subscription: Subscription = lookup.find(URI).subscribe(URI, bridge, self.events.append)

    def expect(self, *lines: str) -> None:
        """Exactly these, and nothing more comes."""
        self.bridge.run(until=lambda: len(self.events) >= len(lines), timeout=PATIENCE)
        self.bridge.run(timeout=0.02)
        assert [str(event) for event in self.events] == list(lines)
        assert [event.sequence for event in self.events] == list(range(1, len(lines) + 1))


@pytest.fixture
def watch(xen: XenStandIn, bridge: Bridge) -> Iterator[Watch]:
    watch = Watch(bridge)
    yield watch
    watch.subscription.close()


def test_each_domain_is_told_of_by_the_one_waiter_there_is(xen: XenStandIn, watch: Watch) -> None:
    """xen.md 2: a ctx can wait for deaths once, and says neither whose it was nor what happened."""
    for domid, name in enumerate(("web", "mail", "db"), start=1):
        xen.create(domid, name)
        watch.expect(*(f"{name} started" for name in ("web", "mail", "db")[:domid]))
    started = ["web started", "mail started", "db started"]
    xen.shutdown(2, reason=CRASH)
    watch.expect(*started, "mail crashed")
    xen.die(2)
    watch.expect(*started, "mail crashed", "mail stopped (crashed)")
    xen.die(3)
    watch.expect(*started, "mail crashed", "mail stopped (crashed)", "db stopped (destroyed)")


def test_an_announcement_about_nobody_tells_nothing(xen: XenStandIn, watch: Watch) -> None:
    """xen.md 2: the first event after waiting is spurious, and so is each that is another domain's."""
    xen.create(1)
    watch.expect("guest1 started")
    for _ in range(5):
        xen.table.virq()
    watch.expect("guest1 started")


def test_a_resumed_guest_is_told_of_again_when_it_stops(xen: XenStandIn, watch: Watch) -> None:
    xen.create(4)
    watch.expect("guest4 started")
    xen.shutdown(4, reason=SUSPEND)
    watch.expect("guest4 started", "guest4 suspended (guest)")
    xen.resume(4)
    watch.expect("guest4 started", "guest4 suspended (guest)", "guest4 resumed")
    xen.shutdown(4, reason=POWEROFF)
    watch.expect("guest4 started", "guest4 suspended (guest)", "guest4 resumed", "guest4 shutdown (guest)")


def test_an_ejected_disk_is_told_with_its_name_and_once(xen: XenStandIn, watch: Watch) -> None:
    """xen.md 2: the watch fires at once when it is set, before anything is ejected."""
    xen.create(5, hvm=True)
    xen.cdrom(5, "hdc")
    watch.subscription.close()
    again = Watch(watch.bridge)
    with contextlib.closing(again.subscription):  # or what is left of it would be reported, and not what failed here
        again.expect()
        xen.eject(5)
        again.expect("guest5 disk_ejected (hdc)")
        assert again.events[0].raw["vdev"] == "hdc"


def test_two_hundred_domains_on_one_waiter_none_lost_none_twice(xen: XenStandIn, watch: Watch) -> None:
    domids = range(1, 201)
    xen.create_many(domids)
    watch.bridge.run(until=lambda: len(watch.events) >= 200, timeout=PATIENCE)
    for first in domids[::10]:
        xen.shutdown(*range(first, first + 10), reason=REBOOT)
    watch.bridge.run(until=lambda: len(watch.events) >= 400, timeout=PATIENCE)
    for first in domids[::10]:
        xen.die(*range(first, first + 10))
    watch.bridge.run(until=lambda: len(watch.events) >= 600, timeout=PATIENCE)
    watch.bridge.run(timeout=0.02)
    told: dict[int | None, list[Kind]] = {}
    for event in watch.events:
        assert event.domain is not None
        told.setdefault(event.domain.id, []).append(event.kind)
    assert told == {domid: [Kind.STARTED, Kind.REBOOTED, Kind.STOPPED] for domid in domids}


def test_a_drain_takes_what_is_there_and_never_waits_for_more(xen: XenStandIn, watch: Watch) -> None:
    """xen.md 2: libxl_get_event blocks where nothing is pending.  A loop that has stood still for it would not run its
    own timeout, nor end."""
    gets = libxl41.counts().gets
    xen.create(1)
    watch.expect("guest1 started")
    for _ in range(50):
        xen.table.virq()
    ticks: list[int] = []
    tick = watch.bridge.add_timeout(1, lambda id, opaque: ticks.append(id))
    assert watch.bridge.run(until=lambda: len(ticks) >= 20, timeout=PATIENCE)
    watch.bridge.remove_timeout(tick)
    assert libxl41.counts().gets > gets


def test_a_thousand_lives_leave_no_waiter_no_event_and_no_fd(xen: XenStandIn, watch: Watch) -> None:
    before = len(open_fds())
    waiters = libxl41.counts().waiters
    for first in range(1, 1001, 100):
        domids = range(first, first + 100)
        xen.create_many(domids)
        watch.bridge.run(until=lambda: len(watch.events) % 200 == 100, timeout=PATIENCE)
        xen.die(*domids)
        watch.bridge.run(until=lambda: len(watch.events) % 200 == 0, timeout=PATIENCE)
    assert len(watch.events) == 2000
    assert libxl41.counts().waiters == waiters
    assert libxl41.counts().events == 0
    assert len(open_fds()) == before


def test_a_consumer_may_close_within_an_event(xen: XenStandIn, bridge: Bridge) -> None:
    """xen.md 2, teardown: while its own drain is under way."""
    xen.create_many(range(1, 6))
    told: list[str] = []

    def close(event: DomainEvent) -> None:
        told.append(str(event))
        subscription.close()

    subscription = lookup.find(URI).subscribe(URI, bridge, close)
    xen.die(1, 2, 3, 4, 5)
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert len(told) == 1


def test_a_dead_xenstored_is_told_within_two_seconds_and_costs_nothing(xen: XenStandIn, watch: Watch) -> None:
    """It never makes the fd readable: nobody spins, nobody crashes, and a new connection works when it is back."""
    watch.bridge.run(timeout=0.02)
    xen.kill()
    passes = watch.bridge.stats().passes
    assert watch.bridge.run(until=lambda: bool(watch.events), timeout=PATIENCE)
    watch.expect("- connection_lost (eof)")
    watch.bridge.run(timeout=0.1)
    assert watch.bridge.stats().passes - passes < 20
    watch.subscription.close()
    xen.restart()
    again = Watch(watch.bridge)
    xen.create(8)
    again.expect("guest8 started")
    again.subscription.close()


def test_a_frozen_xenstored_keeps_neither_the_loop_nor_close(xen: XenStandIn, watch: Watch) -> None:
    xen.create(1)
    watch.expect("guest1 started")
    xen.freeze()
    ticks: list[int] = []
    tick = watch.bridge.add_timeout(1, lambda id, opaque: ticks.append(id))
    closing = threading.Thread(target=watch.subscription.close)
    closing.start()
    assert watch.bridge.run(until=lambda: len(ticks) >= 5, timeout=PATIENCE)
    closing.join(3 * CLOSE_SECONDS)
    assert not closing.is_alive()
    watch.bridge.remove_timeout(tick)
    xen.thaw()
    for thread in threading.enumerate():
        if thread.name.startswith("close "):
            thread.join(PATIENCE)
