"""What both ends of a migration share: its pace, its capabilities, how far it is, and who is awaited where.

`AWAITED` is the one thing that the sessions of a process tell each other: the stream does not say whether a domain ran
that was stopped to be moved.  Entries live from a destination's preparation to its end.  Any thread: each step of it is
one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventbridge.jobs import Progress

from .scripts import Command

POLL_SECONDS = 0.1
"""Between two looks at how far it is; that it is over is told by an event."""
SETTLE_SECONDS = 0.01
"""Between two looks at what QEMU is about to finish."""

AWAITED: dict[str, bool] = {}
"""By where it is awaited: did it run where it comes from?  True until its source says otherwise."""


EVENTS = {"events": True}
"""The capability of telling of migrations by MIGRATION and MIGRATION_PASS."""
ACKNOWLEDGED = EVENTS | {"return-path": True}
"""And that the source knows of its domain's arrival before it lets go."""
UNACKNOWLEDGED = EVENTS | {"return-path": False}
"""For a file, which acknowledges nothing."""


def capabilities(wanted: Mapping[str, bool]) -> Command:
    return Command(
        "migrate-set-capabilities",
        {"capabilities": [{"capability": name, "state": state} for name, state in wanted.items()]},
    )


def progress(found: Mapping[str, Any]) -> Progress:
    """Of query-migrate (qapi/migration.json: MigrationInfo, MigrationStats)."""
    ram = found.get("ram", {})
    mbps = ram.get("mbps")
    return Progress(
        total=ram.get("total"),
        processed=ram.get("transferred"),
        remaining=ram.get("remaining"),
        rate=None if mbps is None else mbps * 1e6 / 8,  # megabits
        downtime=found.get("downtime", found.get("expected-downtime")),
    )
