"""Who the guests are, and what may happen to each: a state machine for all of them.

Sans-IO: no fds, no clock, no threads.  The rule of `eventbridge.hypervisor.events` is in the table: a run begins with
one ``started`` and ends with exactly one ``stopped``, whose reason says why; what the guest did before that is an event
of its own.
"""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass

from eventbridge.hypervisor import model
from eventbridge.hypervisor.events import Kind


class State(enum.Enum):
    """What a guest is doing."""

    ABSENT = "absent"
    OFF = "off"
    SAVED = "saved"
    RUNNING = "running"
    PAUSED = "paused"
    ASLEEP = "asleep"
    SHUTTING_DOWN = "shutting down"
    PANICKED = "panicked"
    SENT = "sent"
    """It has migrated, and stands still until somebody confirms that."""


RUNS = (State.RUNNING, State.PAUSED, State.ASLEEP, State.SHUTTING_DOWN, State.PANICKED, State.SENT)

SHOWN: dict[State, model.State] = {
    State.OFF: model.State.STOPPED,
    State.SAVED: model.State.STOPPED,
    State.RUNNING: model.State.RUNNING,
    State.PAUSED: model.State.PAUSED,
    State.ASLEEP: model.State.PM_SUSPENDED,
    State.SHUTTING_DOWN: model.State.SHUTDOWN,
    State.PANICKED: model.State.CRASHED,
    State.SENT: model.State.PAUSED,
}
"""What everybody else calls it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that may happen in a state: how likely beside the others, what it is called, where it leads."""

    weight: int
    kind: Kind
    reason: str | None
    to: State


TRANSITIONS: dict[State, tuple[Step, ...]] = {
    State.ABSENT: (Step(1, Kind.DEFINED, "added", State.OFF),),
    State.OFF: (
        Step(18, Kind.STARTED, "booted", State.RUNNING),
        Step(1, Kind.DEFINED, "updated", State.OFF),
        Step(1, Kind.UNDEFINED, "removed", State.ABSENT),
    ),
    State.SAVED: (Step(1, Kind.STARTED, "restored", State.RUNNING),),
    State.RUNNING: (
        Step(6, Kind.SUSPENDED, "paused", State.PAUSED),
        Step(4, Kind.REBOOTED, None, State.RUNNING),
        Step(4, Kind.SHUTDOWN, "guest", State.SHUTTING_DOWN),
        Step(2, Kind.PM_SUSPENDED, "memory", State.ASLEEP),
        Step(2, Kind.DISK_EJECTED, None, State.RUNNING),
        Step(2, Kind.STOPPED, "destroyed", State.OFF),
        Step(1, Kind.STOPPED, "saved", State.SAVED),
        Step(1, Kind.CRASHED, "panicked", State.PANICKED),
    ),
    State.PAUSED: (
        Step(9, Kind.RESUMED, "unpaused", State.RUNNING),
        Step(1, Kind.STOPPED, "destroyed", State.OFF),
    ),
    State.ASLEEP: (
        Step(9, Kind.WOKEN, None, State.RUNNING),
        Step(1, Kind.STOPPED, "destroyed", State.OFF),
    ),
    State.SHUTTING_DOWN: (Step(1, Kind.STOPPED, "shutdown", State.OFF),),
    State.PANICKED: (Step(1, Kind.STOPPED, "crashed", State.OFF),),
    State.SENT: (),
}


@dataclass(frozen=True, slots=True)
class Happening:
    """The ``number``-th thing that happens (from 1), to guest ``guest`` (from 0).  ``id``: the domain's, or 0 where it
    has none because it does not run.
    """

    number: int
    guest: int
    kind: Kind
    reason: str | None
    id: int


class Guest:
    """One simulated domain.  It begins defined and shut off.  ``index`` is its own for good; ``memory`` in KiB;
    ``made``: by a call, so that it is gone for good when it is gone; ``left``: it is.
    """

    __slots__ = ("id", "index", "left", "made", "memory", "name", "persistent", "state", "uuid")

    def __init__(self, index: int, name: str, uuid: str, memory: int, made: bool = False) -> None:
        self.index = index
        self.name = name
        self.uuid = uuid
        self.memory = memory
        self.made = made
        self.left = False
        self.persistent = not made
        self.state = State.ABSENT if made else State.OFF
        self.id = 0  # while it runs: a new one at each start, as a real hypervisor gives them

    @property
    def runs(self) -> bool:
        return self.id != 0

    def info(self) -> model.DomainInfo:
        """As everybody sees it; not for one that is absent."""
        return model.DomainInfo(
            model.DomainRef(self.name, self.uuid, self.id or None),
            SHOWN[self.state],
            vcpus=1,
            memory=self.memory if self.id else 0,
            max_memory=self.memory,
            persistent=self.persistent,
        )


def name(guest: int) -> str:
    """It says what it is."""
    return f"simulated-{guest}"


def uuid_of(seed: int, guest: int) -> str:
    """The same for the same seed, everywhere."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sim:///default?seed={seed}#{guest}"))


def uuid_named(seed: int, name: str) -> str:
    """Of one that is made by a call which gives it none: the same for the same seed and name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sim:///default?seed={seed}&name={name}"))
