"""A bridge with one simulated hypervisor on it, for a test to watch."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim.driver import driver
from eventbridge.events import DomainEvent

PATIENCE = 20.0
"""Seconds until a condition is given up."""


def open_fds() -> set[str]:
    gc.collect()  # a pyuv loop has its fds until it is collected
    return set(os.listdir("/proc/self/fd"))


def story_of(events: list[DomainEvent]) -> list[tuple[Any, ...]]:
    """What must be the same wherever it is told."""
    return [
        (event.sequence, event.kind, event.reason, event.domain.name, event.domain.uuid, event.domain.id)
        for event in events
        if event.domain is not None
    ]


@dataclass
class Watched:
    """A bridge with one simulation on it."""

    bridge: Bridge
    uri: str
    emit: Callable[[DomainEvent], None] | None = None
    events: list[DomainEvent] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def open(self) -> None:
        self.subscription = driver.subscribe(self.uri, self.bridge, self.emit or self.events.append)

    def until(self, count: int) -> None:
        self.bridge.run(until=lambda: len(self.events) >= count, timeout=PATIENCE)
        assert len(self.events) >= count, f"{len(self.events)} events of {count}, errors: {self.errors[:3]}"

    def close(self) -> None:
        self.subscription.close()
        self.bridge.run(until=self.bridge.is_empty, timeout=PATIENCE)
        assert self.bridge.is_empty()
        self.bridge.close()

    def run_beside(self, other: Callable[[], None]) -> None:
        """Run the loop here until ``other()``, in a thread, has returned."""
        over = threading.Event()

        def run() -> None:
            try:
                other()
            finally:
                over.set()
                self.bridge.stop()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert self.bridge.run(until=over.is_set, timeout=PATIENCE)
        thread.join()
