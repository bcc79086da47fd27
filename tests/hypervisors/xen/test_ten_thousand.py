"""10,000 deaths and shutdowns over 200 domains: none lost, none twice, each domain's in order, on every host.

The real libxl and the real xenstored over the hypercall stand-in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.support.reasons import SHUTDOWN
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind
from tests.support.patience import PATIENCE
from tests.support.xen.standin import CRASH, POWEROFF, REBOOT, WATCHDOG, XenStandIn

URI = "libxl:///"
DOMAINS, GENERATIONS = 200, 25


class Story:
    """25 generations of 200 domains, and what was told of them."""

    def __init__(self, xen: XenStandIn, bridge: Bridge) -> None:
        self.xen = xen
        self.bridge = bridge
        self.random = random.Random(1)
        self.events: list[DomainEvent] = []
        self.reasons: dict[int, int] = {}

    def wait_for(self, events: int) -> None:
        self.bridge.run(until=lambda: len(self.events) >= events, timeout=PATIENCE)
        assert len(self.events) == events

    def groups(self, domids: range) -> Iterator[list[int]]:
        """These domains in a random order, from one to fifty at a time: each group is one announcement of Xen's."""
        left = self.random.sample(domids, len(domids))
        while left:
            size = self.random.choice((1, 1, 2, 5, 20, 50))
            yield left[:size]
            left = left[size:]

    def live(self, domids: range) -> None:
        """libxl tells only the death of a domain that it finds dead before it has found it shut down, and nothing tells
        of one that is gone before anybody looked: so each step waits until the one before was told.
        """
        self.xen.create_many(domids)
        self.wait_for(len(self.events) + len(domids))
        before = len(self.events)
        for group in self.groups(domids):
            reason = self.random.choice((POWEROFF, REBOOT, CRASH, WATCHDOG))
            self.reasons.update(dict.fromkeys(group, reason))
            self.xen.shutdown(*group, reason=reason)
        self.wait_for(before + len(domids))
        for group in self.groups(domids):
            self.xen.die(*group)
        self.wait_for(before + 2 * len(domids))


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select"])
@pytest.mark.timeout(180)
def test_none_of_ten_thousand_is_lost_and_none_told_twice(xen: XenStandIn, host: str) -> None:
    errors: list[BaseException] = []
    with Bridge(host, on_error=lambda error, context: errors.append(error)) as bridge:
        story = Story(xen, bridge)
        subscription = lookup.find(URI).subscribe(URI, bridge, story.events.append)
        for generation in range(GENERATIONS):
            story.live(range(1 + generation * DOMAINS, 1 + (generation + 1) * DOMAINS))
        subscription.close()
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)

    ends = [event for event in story.events if event.kind is not Kind.STARTED]
    assert len(ends) == 2 * DOMAINS * GENERATIONS == 10_000
    assert [event.sequence for event in story.events] == list(range(1, 15_001))
    told: dict[int, list[tuple[Kind, str | None]]] = {}
    for event in story.events:
        assert event.domain is not None and event.domain.id is not None
        told.setdefault(event.domain.id, []).append((event.kind, event.reason))
    for domid, reason in story.reasons.items():
        meant = SHUTDOWN[reason]
        assert told.pop(domid) == [(Kind.STARTED, None), (meant.kind, meant.reason), (Kind.STOPPED, meant.end)]
    assert told == {}
    assert Counter(event.domain for event in ends) == dict.fromkeys({event.domain for event in ends}, 2)
    assert errors == []
