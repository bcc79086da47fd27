"""What QMP's events mean: QEMU's names to eventbridge's kinds and reasons, as tables.

The names are those of QEMU's schema (qapi/run-state.json, migration.json, job.json, block-core.json, machine.json,
ui.json).  An event that no table names is kind ``other``, its name in lower case the reason.  STOP, RESUME and the end
mean what they do by what came before, which `run_state` knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State

Meaning: TypeAlias = tuple[Kind, str | None]
"""A kind, and a reason."""


class End(NamedTuple):
    """A ShutdownCause: whose doing it was, and the reason of the `stopped` that comes of it."""

    whose: str
    stopped: str


# By the event, and where one of its data decides, by that (`BY`).
MEANINGS: dict[tuple[str, Any], Meaning] = {
    ("GUEST_PANICKED", None): (Kind.CRASHED, "panicked"),
    ("GUEST_CRASHLOADED", None): (Kind.CRASHED, "crashloaded"),
    ("RESET", True): (Kind.REBOOTED, "guest"),
    ("RESET", False): (Kind.REBOOTED, "host"),
    ("SUSPEND", None): (Kind.PM_SUSPENDED, "memory"),
    ("SUSPEND_DISK", None): (Kind.PM_SUSPENDED, "disk"),
    ("WAKEUP", None): (Kind.WOKEN, None),
    ("DEVICE_DELETED", None): (Kind.DEVICE_REMOVED, None),
    ("DEVICE_TRAY_MOVED", True): (Kind.DISK_EJECTED, None),
    ("DEVICE_TRAY_MOVED", False): (Kind.OTHER, "tray_closed"),
    ("BLOCK_IO_ERROR", None): (Kind.OTHER, "io_error"),
    # A block job is a job too: what it says for itself is said beside the JOB_STATUS_CHANGEs that begin and end it.
    ("BLOCK_JOB_READY", None): (Kind.JOB_PROGRESS, "ready"),
    ("BLOCK_JOB_PENDING", None): (Kind.JOB_PROGRESS, "pending"),
    ("BLOCK_JOB_COMPLETED", None): (Kind.JOB_PROGRESS, "completed"),
    ("BLOCK_JOB_CANCELLED", None): (Kind.JOB_PROGRESS, "cancelled"),
    ("BLOCK_JOB_ERROR", None): (Kind.JOB_PROGRESS, "error"),
    ("JOB_STATUS_CHANGE", "created"): (Kind.JOB_STARTED, "created"),
    **{
        ("JOB_STATUS_CHANGE", status): (Kind.JOB_PROGRESS, status)
        for status in "running paused ready standby waiting pending aborting".split()
    },
    ("JOB_STATUS_CHANGE", "concluded"): (Kind.JOB_ENDED, "concluded"),
    ("JOB_STATUS_CHANGE", "null"): (Kind.OTHER, "job_dismissed"),
    ("MIGRATION", "setup"): (Kind.JOB_STARTED, "migration"),
    **{
        ("MIGRATION", status): (Kind.JOB_PROGRESS, status.replace("-", "_"))
        for status in (
            "active pre-switchover device wait-unplug cancelling failing colo postcopy-device postcopy-active"
            " postcopy-paused postcopy-recover-setup postcopy-recover"
        ).split()
    },
    ("MIGRATION", "completed"): (Kind.JOB_ENDED, "completed"),
    ("MIGRATION", "failed"): (Kind.JOB_ENDED, "failed"),
    ("MIGRATION", "cancelled"): (Kind.JOB_ENDED, "cancelled"),
    ("MIGRATION_PASS", None): (Kind.JOB_PROGRESS, "iteration"),
}
BY: dict[str, str] = {
    "RESET": "guest",
    "DEVICE_TRAY_MOVED": "tray-open",
    "JOB_STATUS_CHANGE": "status",
    "MIGRATION": "status",
}

# Why the STOP that comes next comes, where the data says that one does.
STOPS_FOR: dict[tuple[str, str], str] = {
    ("BLOCK_IO_ERROR", "stop"): "io_error",
    ("WATCHDOG", "pause"): "watchdog",
    ("GUEST_PANICKED", "pause"): "panicked",
}

# SHUTDOWN's reasons (qapi/run-state.json: ShutdownCause).
SHUTDOWN: dict[str, End] = {
    "none": End("host", "shutdown"),
    "host-error": End("host", "failed"),
    "host-qmp-quit": End("host", "destroyed"),
    "host-qmp-system-reset": End("host", "shutdown"),  # where it was started with -no-reboot
    "host-signal": End("host", "destroyed"),
    "host-ui": End("host", "destroyed"),
    "guest-shutdown": End("guest", "shutdown"),
    "guest-reset": End("guest", "shutdown"),
    "guest-panic": End("guest", "crashed"),
    "subsystem-reset": End("guest", "shutdown"),
    "snapshot-load": End("host", "shutdown"),
}
UNKNOWN = {True: End("guest", "shutdown"), False: End("host", "shutdown")}
"""A newer QEMU's reason, by its "guest"."""

# Statuses of a source whose processors the migration itself may stop next (migration/migration.c calls
# migration_stop_vm after it has set one of these).
MIGRATION_UNDER_WAY = frozenset(
    "active pre-switchover device wait-unplug cancelling failing postcopy-device postcopy-active".split()
)
MIGRATION_ENDED = frozenset("completed failed cancelled".split())

# query-status's (qapi/run-state.json: RunState).
STATES: dict[str, State] = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "prelaunch": State.PAUSED,
    "debug": State.PAUSED,
    "io-error": State.PAUSED,
    "watchdog": State.PAUSED,
    "save-vm": State.PAUSED,
    "restore-vm": State.PAUSED,
    "finish-migrate": State.PAUSED,
    "postmigrate": State.PAUSED,
    "colo": State.PAUSED,
    "shutdown": State.SHUTDOWN,
    "suspended": State.PM_SUSPENDED,
    "guest-panicked": State.CRASHED,
    "internal-error": State.CRASHED,
    "inmigrate": State.NO_MACHINE,
    "preconfig": State.NO_MACHINE,
}


def meaning(name: str, data: Mapping[str, Any]) -> Meaning:
    """Of an event by itself."""
    by = data.get(BY[name]) if name in BY else None
    try:
        found = MEANINGS.get((name, by))
    except TypeError:  # what decides is no plain value
        found = None
    return found or (Kind.OTHER, name.lower())


def end(data: Mapping[str, Any]) -> End:
    """Of a SHUTDOWN."""
    return SHUTDOWN.get(str(data.get("reason")), UNKNOWN[data.get("guest") is True])
