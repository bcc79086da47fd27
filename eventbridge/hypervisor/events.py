"""What flows out: domain events, the same whichever hypervisor they come from.

A domain's end is exactly one ``stopped``, whose reason says why; what its guest did before that is an event of its
own.  Each hypervisor has a table from its own events to these kinds; what a table does not know is kind ``other``
with the raw event in it, never dropped.
"""

from __future__ import annotations

import enum
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .model import DomainRef


class Kind(enum.StrEnum):
    """What happened."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    SHUTDOWN = "shutdown"
    REBOOTED = "rebooted"
    CRASHED = "crashed"
    STOPPED = "stopped"
    MIGRATED = "migrated"
    PM_SUSPENDED = "pm_suspended"
    WOKEN = "woken"
    DISK_EJECTED = "disk_ejected"
    DEVICE_ADDED = "device_added"
    DEVICE_REMOVED = "device_removed"
    JOB_STARTED = "job_started"
    JOB_PROGRESS = "job_progress"
    JOB_ENDED = "job_ended"
    CONSOLE_AVAILABLE = "console_available"
    CONNECTION_LOST = "connection_lost"
    CONNECTION_RESTORED = "connection_restored"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """One thing that happened.

    ``domain`` is None for what concerns the connection.  ``reason`` is one lower-case word (or several, joined by
    "_"), or None.  ``source`` is the URI it came from; ``sequence`` counts that source's events without a gap, from
    1.  ``at`` is in Unix seconds.  ``synthetic`` marks what a resync inferred. ``raw`` is the hypervisor's own event,
    as plain data.
    """

    kind: Kind
    domain: DomainRef | None
    reason: str | None
    source: str
    sequence: int
    at: float
    synthetic: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON; the keys are a promise (``eventbridge watch --json``)."""
        return json.dumps(
            {
                "kind": str(self.kind),
                "domain": None if self.domain is None else self.domain.to_json(),
                "reason": self.reason,
                "source": self.source,
                "sequence": self.sequence,
                "at": self.at,
                "synthetic": self.synthetic,
                "raw": dict(self.raw),
            },
            default=str,
        )

    def __str__(self) -> str:
        who = "-" if self.domain is None else self.domain.name or self.domain.uuid or str(self.domain.id)
        why = "" if self.reason is None else f" ({self.reason})"
        return f"{who} {self.kind}{why}"


Emit: TypeAlias = Callable[[DomainEvent], None]
"""Where a driver hands its events: called on the loop's thread, one at a time."""


class Sequencer:
    """Numbers one source's events and hands them on.  Any thread; the order of the numbers is the order of delivery."""

    def __init__(self, source: str, emit: Emit) -> None:
        self.source = source
        self._emit = emit
        self._last = 0
        self._lock = threading.Lock()

    def __call__(
        self,
        kind: Kind,
        domain: DomainRef | None,
        reason: str | None = None,
        raw: Mapping[str, Any] | None = None,
    ) -> None:
        with self._lock:
            self._last += 1
            sequence = self._last
        self._emit(DomainEvent(kind, domain, reason, self.source, sequence, time.time(), raw=raw or {}))
