"""A domain, as far as every hypervisor agrees on what that is: which one, how it is, and where its consoles are."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DomainRef:
    """Which domain: its name, its UUID in lower-case text, and its id while it runs.  What a hypervisor does not say
    is None.
    """

    name: str | None
    uuid: str | None = None
    id: int | None = None

    def to_json(self) -> dict[str, str | int | None]:
        return {"name": self.name, "uuid": self.uuid, "id": self.id}


class State(enum.StrEnum):
    """How a domain is."""

    RUNNING = "running"
    BLOCKED = "blocked"
    """Running, and waiting for something: Xen's word for an idle guest."""
    PAUSED = "paused"
    SUSPENDED = "suspended"
    """Its guest has stopped itself to be saved or migrated."""
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    PM_SUSPENDED = "pm_suspended"
    """Its guest has put its machine to sleep."""
    DYING = "dying"
    STOPPED = "stopped"
    """It does not run: it is defined, and no more."""
    NO_MACHINE = "no_machine"
    """A process that waits to be told what to be: QEMU without a machine, or before a migration comes in."""


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A domain as it was a moment ago.  Memory in KiB, time in nanoseconds; None for what a hypervisor does not say."""

    domain: DomainRef
    state: State
    vcpus: int | None = None
    memory: int | None = None
    max_memory: int | None = None
    cpu_time: int | None = None
    persistent: bool | None = None
    """Does its definition outlive its run?"""


class ConsoleKind(enum.StrEnum):
    """What a console is to its guest."""

    SERIAL = "serial"
    """An emulated serial port."""
    PV = "pv"
    """A paravirtual console; number 0 is the primary one."""
    VUART = "vuart"
    """The emulated UART of an Arm guest."""


class Connection(enum.StrEnum):
    """What is at the host's end of a console."""

    PTY = "pty"
    SOCKET = "socket"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ConsoleInfo:
    """One console of a domain, from both its ends: the shape of libxl's ``libxl_channelinfo`` (libxl.h).

    ``backend`` and ``frontend`` are xenstore paths; ``state`` is the backend's XenbusState (4: connected).  What does
    not exist for this console is None: a serial port of an emulated machine has no ring, a console that nobody serves
    yet has no tty.
    """

    kind: ConsoleKind
    devid: int
    frontend: str | None
    frontend_domid: int
    backend: str | None = None
    backend_domid: int | None = None
    state: int | None = None
    event_channel: int | None = None
    ring_ref: int | None = None
    output: str | None = None
    """Where the toolstack was told to connect it: "pty", "file:/..."."""
    tty: str | None = None
    connection: Connection = Connection.UNKNOWN
