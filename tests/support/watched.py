"""A subscription of libvirt's driver under test, what it told, and what the tests around it share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt.driver import LibvirtDriver, LibvirtSubscription
from eventbridge.hypervisor.events import DomainEvent, Emit
from tests.support.patience import PATIENCE

HOSTS = ("asyncio", "libuv", "select")
MORE = 5
"""Passes of the loop after what was expected has come."""

DOMAIN = "<domain type='test'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>"

Errors = list[tuple[BaseException, str]]
Watch = Callable[..., "Watched"]
Connect = Callable[[str], Any]


class Watched:
    """A subscription of the driver's, and what it told; ``consumer`` is called with each event besides."""

    def __init__(
        self, uri: str, bridge: Bridge, consumer: Emit = lambda event: None, keepalive: tuple[int, int] = (5, 3)
    ) -> None:
        self.bridge = bridge
        self.events: list[DomainEvent] = []
        self.threads: set[int] = set()
        self._consumer = consumer
        self.subscription: LibvirtSubscription = LibvirtDriver(keepalive).subscribe(uri, bridge, self._emit)
        self.close = self.subscription.close

    def _emit(self, event: DomainEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())
        self._consumer(event)

    def told(self) -> list[str]:
        return [str(event) for event in self.events]

    def wait_for(self, *expected: str) -> None:
        """Exactly these, and in this order."""
        self.bridge.run(until=lambda: len(self.events) >= len(expected), timeout=PATIENCE)
        self._passes(MORE)  # for what must not come
        assert self.told() == list(expected)
        assert [event.sequence for event in self.events] == list(range(1, len(expected) + 1))

    def _passes(self, count: int) -> None:
        tick = self.bridge.add_timeout(1, lambda id, opaque: None)
        try:
            enough = self.bridge.stats().passes + count
            assert self.bridge.run(until=lambda: self.bridge.stats().passes >= enough, timeout=PATIENCE)
        finally:
            self.bridge.remove_timeout(tick)
