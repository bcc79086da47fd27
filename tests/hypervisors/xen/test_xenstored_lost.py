"""xenstored killed under libxl:/// over the real libxl: told within two seconds, no busy loop, everything given back
once, and a new connection works when it is there again.  (The same of 4.1 and of xenstore:/// is with their tests.)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.driver import Subscription
from eventbridge.hypervisor.events import DomainEvent
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

URI = "libxl:///"


@pytest.fixture(params=["asyncio", "libuv", "select"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    errors: list[BaseException] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append(error)) as bridge:
        yield bridge
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), "something of libxl's is still registered"
    assert errors == []


def subscribe(bridge: Bridge, events: list[DomainEvent]) -> Subscription:
    return lookup.find(URI).subscribe(URI, bridge, events.append)


def test_its_death_is_told_once_within_two_seconds_and_a_new_connection_works(xen: XenStandIn, bridge: Bridge) -> None:
    xen.create_many(range(1, 21))
    subscribe(bridge, []).close()  # whatever libxl keeps open for good is open now
    bridge.run(timeout=0.02)
    before = len(open_fds()) - 1  # the stand-in's own connection ends with xenstored
    events: list[DomainEvent] = []
    subscription = subscribe(bridge, events)
    bridge.run(timeout=0.02)
    xen.kill()
    passes = bridge.stats().passes
    assert bridge.run(until=lambda: bool(events), timeout=PATIENCE)
    bridge.run(timeout=1.2)  # a probe's time more
    assert [str(event) for event in events] == ["- connection_lost (eof)"]
    assert bridge.stats().passes - passes < 20
    subscription.close()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert len(open_fds()) == before

    xen.restart()
    again: list[DomainEvent] = []
    subscription = subscribe(bridge, again)
    xen.create(30)
    xen.die(3)
    bridge.run(until=lambda: len(again) >= 2, timeout=PATIENCE)
    assert sorted(str(event) for event in again) == ["guest3 stopped (destroyed)", "guest30 started"]
    subscription.close()


def test_one_that_is_frozen_keeps_neither_the_loop_nor_close(xen: XenStandIn, bridge: Bridge) -> None:
    xen.create(1)
    subscription = subscribe(bridge, [])
    xen.freeze()
    ticks: list[int] = []
    tick = bridge.add_timeout(1, lambda id, opaque: ticks.append(id))
    assert bridge.run(until=lambda: len(ticks) >= 20, timeout=PATIENCE)
    bridge.remove_timeout(tick)
    subscription.close()  # it waits for a while, and leaves the rest to itself
    xen.thaw()
