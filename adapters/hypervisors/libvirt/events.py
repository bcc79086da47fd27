"""What libvirt's domain events mean: its constants to eventbridge's kinds and reasons, as tables.

Everything here is a table or looks into one; nothing is called by libvirt, and any thread may call it.  The keys are
libvirt's own constants without their common beginning (``VIR_DOMAIN_EVENT_ID_``, ``VIR_DOMAIN_EVENT_``...), as in
libvirt-domain.h, so that what an older binding lacks is simply never looked up.  What a newer one adds is told all the
same: an event that no table names is kind ``other`` with its arguments in ``raw``; a new detail of a lifecycle event
keeps that event's kind, with no reason and its number in ``raw``.

There is no ``migrated`` here: libvirt tells of a migration at its source by ``stopped`` (migrated) and at its
destination by ``started`` (migrated); which two belong together is for whoever watches both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import libvirt

from eventbridge.hypervisor.events import Kind

Meaning: TypeAlias = tuple[Kind, str | None]
"""A kind, and a reason."""


class Names(NamedTuple):
    """How the values of an argument are called: constants that begin with ``prefix``; with ``only``, those alone."""

    prefix: str
    only: str = ""
    flags: bool = False
    """Is a value the sum of several?"""


class Shape(NamedTuple):
    """What an event's callback is given, but for the connection and the domain, and what decides its meaning."""

    arguments: tuple[str, ...] = ()
    by: str | None = None
    """The argument, named by `NAMES`, whose value is the second half of the key in `MEANINGS`."""


# What follows STARTED, STOPPED and so on is virDomainEventStartedDetailType and its like.
LIFECYCLE: dict[str, Meaning] = {
    "DEFINED": (Kind.DEFINED, None),
    "DEFINED_ADDED": (Kind.DEFINED, "added"),
    "DEFINED_UPDATED": (Kind.DEFINED, "updated"),
    "DEFINED_RENAMED": (Kind.DEFINED, "renamed"),
    "DEFINED_FROM_SNAPSHOT": (Kind.DEFINED, "from_snapshot"),
    "UNDEFINED": (Kind.UNDEFINED, None),
    "UNDEFINED_REMOVED": (Kind.UNDEFINED, "removed"),
    "UNDEFINED_RENAMED": (Kind.UNDEFINED, "renamed"),
    "STARTED": (Kind.STARTED, None),
    "STARTED_BOOTED": (Kind.STARTED, "booted"),
    "STARTED_MIGRATED": (Kind.STARTED, "migrated"),
    "STARTED_RESTORED": (Kind.STARTED, "restored"),
    "STARTED_FROM_SNAPSHOT": (Kind.STARTED, "from_snapshot"),
    "STARTED_WAKEUP": (Kind.WOKEN, None),  # it was running all the while, asleep
    "SUSPENDED": (Kind.SUSPENDED, None),
    "SUSPENDED_PAUSED": (Kind.SUSPENDED, "paused"),
    "SUSPENDED_MIGRATED": (Kind.SUSPENDED, "migrated"),
    "SUSPENDED_IOERROR": (Kind.SUSPENDED, "io_error"),
    "SUSPENDED_WATCHDOG": (Kind.SUSPENDED, "watchdog"),
    "SUSPENDED_RESTORED": (Kind.SUSPENDED, "restored"),
    "SUSPENDED_FROM_SNAPSHOT": (Kind.SUSPENDED, "from_snapshot"),
    "SUSPENDED_API_ERROR": (Kind.SUSPENDED, "api_error"),
    "SUSPENDED_POSTCOPY": (Kind.SUSPENDED, "postcopy"),
    "SUSPENDED_POSTCOPY_FAILED": (Kind.SUSPENDED, "postcopy_failed"),
    "RESUMED": (Kind.RESUMED, None),
    "RESUMED_UNPAUSED": (Kind.RESUMED, "unpaused"),
    "RESUMED_MIGRATED": (Kind.RESUMED, "migrated"),  # at the destination; or at the source, of one that was given up
    "RESUMED_FROM_SNAPSHOT": (Kind.RESUMED, "from_snapshot"),
    "RESUMED_POSTCOPY": (Kind.RESUMED, "postcopy"),
    "RESUMED_POSTCOPY_FAILED": (Kind.RESUMED, "postcopy_failed"),
    "STOPPED": (Kind.STOPPED, None),
    "STOPPED_SHUTDOWN": (Kind.STOPPED, "shutdown"),
    "STOPPED_DESTROYED": (Kind.STOPPED, "destroyed"),
    "STOPPED_CRASHED": (Kind.STOPPED, "crashed"),
    "STOPPED_MIGRATED": (Kind.STOPPED, "migrated"),
    "STOPPED_SAVED": (Kind.STOPPED, "saved"),
    "STOPPED_FAILED": (Kind.STOPPED, "failed"),
    "STOPPED_FROM_SNAPSHOT": (Kind.STOPPED, "from_snapshot"),
    "SHUTDOWN": (Kind.SHUTDOWN, None),
    "SHUTDOWN_FINISHED": (Kind.SHUTDOWN, "finished"),
    "SHUTDOWN_GUEST": (Kind.SHUTDOWN, "guest"),
    "SHUTDOWN_HOST": (Kind.SHUTDOWN, "host"),
    "PMSUSPENDED": (Kind.PM_SUSPENDED, None),
    "PMSUSPENDED_MEMORY": (Kind.PM_SUSPENDED, "memory"),
    "PMSUSPENDED_DISK": (Kind.PM_SUSPENDED, "disk"),
    "CRASHED": (Kind.CRASHED, None),
    "CRASHED_PANICKED": (Kind.CRASHED, "panicked"),
    "CRASHED_CRASHLOADED": (Kind.CRASHED, "crashloaded"),
}

# By the event's id; what its callback is given is in libvirt-domain.h, under virConnectDomainEvent*Callback.
SHAPES: dict[str, Shape] = {
    "LIFECYCLE": Shape(("type", "detail")),  # see LIFECYCLE above
    "REBOOT": Shape(),
    "RTC_CHANGE": Shape(("offset",)),  # seconds from UTC
    "WATCHDOG": Shape(("action",)),
    "IO_ERROR": Shape(("path", "device", "action")),
    "GRAPHICS": Shape(("phase", "local", "remote", "scheme", "subject")),
    "IO_ERROR_REASON": Shape(("path", "device", "action", "reason")),
    "CONTROL_ERROR": Shape(),
    "BLOCK_JOB": Shape(("disk", "type", "status"), by="status"),
    "DISK_CHANGE": Shape(("old_path", "new_path", "device", "reason")),
    "TRAY_CHANGE": Shape(("device", "reason"), by="reason"),
    "PMWAKEUP": Shape(("reason",)),
    "PMSUSPEND": Shape(("reason",)),
    "BALLOON_CHANGE": Shape(("actual",)),  # KiB
    "PMSUSPEND_DISK": Shape(("reason",)),
    "DEVICE_REMOVED": Shape(("device",)),
    "BLOCK_JOB_2": Shape(("disk", "type", "status"), by="status"),
    "TUNABLE": Shape(("params",)),
    "AGENT_LIFECYCLE": Shape(("state", "reason"), by="state"),
    "DEVICE_ADDED": Shape(("device",)),
    "MIGRATION_ITERATION": Shape(("iteration",)),
    "JOB_COMPLETED": Shape(("params",), by="success"),  # see _job
    "DEVICE_REMOVAL_FAILED": Shape(("device",)),
    "METADATA_CHANGE": Shape(("type", "namespace")),
    "BLOCK_THRESHOLD": Shape(("device", "path", "threshold", "excess")),  # bytes
    "MEMORY_FAILURE": Shape(("recipient", "action", "flags")),
    "MEMORY_DEVICE_SIZE_CHANGE": Shape(("device", "size")),  # KiB
    "NIC_MAC_CHANGE": Shape(("device", "old_mac", "new_mac")),
    "VCPU_REMOVED": Shape(("vcpu",)),
    "CHANNEL_LIFECYCLE": Shape(("state", "reason")),
}

# By the event's id, and what decides it.  All others are kind "other", whose reason is their id in lower case.
MEANINGS: dict[tuple[str, str | None], Meaning] = {
    ("REBOOT", None): (Kind.REBOOTED, None),
    ("DEVICE_ADDED", None): (Kind.DEVICE_ADDED, None),
    ("DEVICE_REMOVED", None): (Kind.DEVICE_REMOVED, None),
    ("TRAY_CHANGE", "OPEN"): (Kind.DISK_EJECTED, None),
    ("TRAY_CHANGE", "CLOSE"): (Kind.OTHER, "tray_closed"),
    ("IO_ERROR_REASON", None): (Kind.OTHER, "io_error"),
    ("PMWAKEUP", None): (Kind.WOKEN, None),
    ("PMSUSPEND", None): (Kind.PM_SUSPENDED, "memory"),
    ("PMSUSPEND_DISK", None): (Kind.PM_SUSPENDED, "disk"),
    ("MIGRATION_ITERATION", None): (Kind.JOB_PROGRESS, "iteration"),
    ("JOB_COMPLETED", "SUCCESS"): (Kind.JOB_ENDED, "completed"),
    ("JOB_COMPLETED", "FAILURE"): (Kind.JOB_ENDED, "failed"),
    ("AGENT_LIFECYCLE", "CONNECTED"): (Kind.OTHER, "agent_connected"),
    ("AGENT_LIFECYCLE", "DISCONNECTED"): (Kind.OTHER, "agent_disconnected"),
    **{
        (block_job, status): meaning
        for block_job in ("BLOCK_JOB", "BLOCK_JOB_2")
        for status, meaning in {
            "READY": (Kind.JOB_PROGRESS, "ready"),  # its copy is complete, and kept so until it is ended
            "COMPLETED": (Kind.JOB_ENDED, "completed"),
            "FAILED": (Kind.JOB_ENDED, "failed"),
            "CANCELED": (Kind.JOB_ENDED, "canceled"),
        }.items()
    },
}

# One thing told under two ids: the left is asked for only where a driver refuses the right.
TOLD_BETTER_BY: dict[str, str] = {
    "IO_ERROR": "IO_ERROR_REASON",  # the same, and why
    "BLOCK_JOB": "BLOCK_JOB_2",  # names the disk by its target, which a pivot does not change, and not by its file
    # The drivers send a lifecycle event along with each of these, and that one has its place in the domain's life.
    "PMWAKEUP": "LIFECYCLE",  # STARTED, WAKEUP
    "PMSUSPEND": "LIFECYCLE",  # PMSUSPENDED, MEMORY
    "PMSUSPEND_DISK": "LIFECYCLE",  # PMSUSPENDED, DISK
}

# By the event's id and the argument.
NAMES: dict[tuple[str, str], Names] = {
    ("WATCHDOG", "action"): Names("VIR_DOMAIN_EVENT_WATCHDOG_"),
    ("IO_ERROR", "action"): Names("VIR_DOMAIN_EVENT_IO_ERROR_"),
    ("IO_ERROR_REASON", "action"): Names("VIR_DOMAIN_EVENT_IO_ERROR_"),
    ("GRAPHICS", "phase"): Names("VIR_DOMAIN_EVENT_GRAPHICS_", "CONNECT INITIALIZE DISCONNECT"),
    ("BLOCK_JOB", "type"): Names("VIR_DOMAIN_BLOCK_JOB_TYPE_"),
    ("BLOCK_JOB", "status"): Names("VIR_DOMAIN_BLOCK_JOB_", "COMPLETED FAILED CANCELED READY"),
    ("BLOCK_JOB_2", "type"): Names("VIR_DOMAIN_BLOCK_JOB_TYPE_"),
    ("BLOCK_JOB_2", "status"): Names("VIR_DOMAIN_BLOCK_JOB_", "COMPLETED FAILED CANCELED READY"),
    ("DISK_CHANGE", "reason"): Names("VIR_DOMAIN_EVENT_DISK_"),
    ("TRAY_CHANGE", "reason"): Names("VIR_DOMAIN_EVENT_TRAY_CHANGE_"),
    ("AGENT_LIFECYCLE", "state"): Names("VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_"),
    ("AGENT_LIFECYCLE", "reason"): Names("VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_"),
    ("METADATA_CHANGE", "type"): Names("VIR_DOMAIN_METADATA_"),
    ("MEMORY_FAILURE", "recipient"): Names("VIR_DOMAIN_EVENT_MEMORY_FAILURE_RECIPIENT_"),
    ("MEMORY_FAILURE", "action"): Names("VIR_DOMAIN_EVENT_MEMORY_FAILURE_ACTION_"),
    ("MEMORY_FAILURE", "flags"): Names("VIR_DOMAIN_MEMORY_FAILURE_", "ACTION_REQUIRED RECURSIVE", flags=True),
    ("JOB_COMPLETED", "operation"): Names("VIR_DOMAIN_JOB_OPERATION_"),
}

CLOSE_REASONS: dict[str, str] = {"ERROR": "error", "EOF": "eof", "KEEPALIVE": "keepalive", "CLIENT": "client"}
"""Why a connection is lost (virConnectCloseReason).

A daemon that is killed hangs up a unix socket, which is EOF; over TCP its end is merely read, which libvirt, on its own
event loop too, calls ERROR."""


def event_ids() -> dict[int, str]:
    """Every domain event that the installed binding offers: its number, and its name."""
    return _constants(Names("VIR_DOMAIN_EVENT_ID_"))


def translate_close(number: int) -> tuple[str | None, dict[str, Any]]:
    """The reason and ``raw`` of a ``connection_lost``; None for a number that no table names."""
    name = _close_reasons.get(number)
    return CLOSE_REASONS.get(name or ""), {"event": "CLOSE", "reason": number if name is None else name}


def translate(event: int, arguments: tuple[Any, ...]) -> tuple[Kind, str | None, dict[str, Any]]:
    """An event's kind, reason and ``raw``, from its id and what its callback was given between domain and opaque."""
    name = _ids.get(event)
    if name is None:
        return Kind.OTHER, None, {"event": event, "arguments": plain(arguments)}
    if name == "LIFECYCLE":
        return _lifecycle(*arguments)
    shape = SHAPES.get(name, Shape())
    raw: dict[str, Any] = {"event": name}
    for number, (argument, value) in enumerate(zip_longest(shape.arguments, arguments)):
        key = argument or f"argument_{number}"
        raw[key] = _named(name, key, value)
    decisive = _job(raw) if name == "JOB_COMPLETED" else raw[shape.by] if shape.by else None
    kind, reason = MEANINGS.get((name, decisive), (Kind.OTHER, name.lower()))
    return kind, reason, raw


def plain(value: Any) -> Any:
    """``value`` as data that JSON knows; text for what it does not."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _lifecycle(event: int, detail: int) -> tuple[Kind, str | None, dict[str, Any]]:
    type_ = _lifecycle_types.get(event)
    if type_ is None:
        return Kind.OTHER, "lifecycle", {"event": "LIFECYCLE", "type": event, "detail": detail}
    name = _lifecycle_details[type_].get(detail)
    kind, reason = LIFECYCLE.get(f"{type_}_{name}") or LIFECYCLE[type_]
    return kind, reason, {"event": "LIFECYCLE", "type": type_, "detail": detail if name is None else name}


def _job(raw: dict[str, Any]) -> str:
    """A job's parameters name its operation by number; how it ended they tell since libvirt 6.0, before that only of
    jobs that succeeded."""
    params = raw["params"]
    if "operation" in params:
        params["operation"] = _named("JOB_COMPLETED", "operation", params["operation"])
    return "SUCCESS" if params.get("success", True) else "FAILURE"


def _named(event: str, argument: str, value: Any) -> Any:
    """A number by its constant's name where it has one; anything else as it is."""
    names = _values.get((event, argument))
    if names is None or not isinstance(value, int):
        return plain(value)
    if NAMES[event, argument].flags:
        return [name for bit, name in names.items() if value & bit]
    return names.get(value, value)


def _constants(names: Names) -> dict[int, str]:
    """The installed binding's, by value."""
    ends: Iterable[str] = names.only.split() or (
        constant.removeprefix(names.prefix) for constant in dir(libvirt) if constant.startswith(names.prefix)
    )
    return {getattr(libvirt, names.prefix + end): end for end in ends if hasattr(libvirt, names.prefix + end)}


_ids = event_ids()
_close_reasons = _constants(Names("VIR_CONNECT_CLOSE_REASON_"))
_values = {key: _constants(names) for key, names in NAMES.items()}
_types = [name for name in LIFECYCLE if "_" not in name]
_lifecycle_types = _constants(Names("VIR_DOMAIN_EVENT_", " ".join(_types)))
_lifecycle_details = {name: _constants(Names(f"VIR_DOMAIN_EVENT_{name}_")) for name in _types}
