"""What happens to whom: a state machine for each guest, and one story that all of them are in.

Sans-IO: no fds, no clock, no threads.  The same seed and number of domains tell the same story on every host, on
every Python: of the random number generator only ``random()`` is used, whose sequence is promised to stay.

The rule of `eventbridge.events` is in the table: a run begins with one ``started`` and ends with exactly one
``stopped``, whose reason says why; what the guest did before that is an event of its own.
"""

from __future__ import annotations

import enum
import random
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from eventbridge.events import Kind


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
}

_SCALES = {state: list(accumulate(step.weight for step in steps)) for state, steps in TRANSITIONS.items()}


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
    """One simulated domain.  It begins defined and shut off."""

    __slots__ = ("id", "state")

    def __init__(self) -> None:
        self.state = State.OFF
        self.id = 0  # while it runs: a new one at each start, as a real hypervisor gives them


def name(guest: int) -> str:
    """It says what it is."""
    return f"simulated-{guest}"


def uuid_of(seed: int, guest: int) -> str:
    """The same for the same seed, everywhere."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sim:///default?seed={seed}#{guest}"))


class Story:
    """Everything that happens, in order, and each *lane*'s part of it.

    A lane is whatever carries a guest's happenings; ``lane_of[guest]`` is its lane's number.  `peek` and `take` look
    ahead in the one story as far as the lane asked for needs, and keep what is for others.
    """

    def __init__(self, seed: int, lane_of: Sequence[int], last: int | None = None) -> None:
        self._random = random.Random(seed).random
        self._guests = [Guest() for _ in lane_of]
        self._lane_of = lane_of
        self._ahead: list[deque[Happening]] = [deque() for _ in range(max(lane_of) + 1)]
        self._last = last
        self._told = 0
        self._ids = 0

    def peek(self, lane: int) -> Happening | None:
        """The lane's next happening; None when the story has ended."""
        ahead = self._ahead[lane]
        while not ahead:
            happening = self._next()
            if happening is None:
                return None
            self._ahead[self._lane_of[happening.guest]].append(happening)
        return ahead[0]

    def take(self, lane: int) -> Happening:
        """What `peek` showed."""
        return self._ahead[lane].popleft()

    def _next(self) -> Happening | None:
        if self._told == self._last:
            return None
        self._told += 1
        index = int(self._random() * len(self._guests))
        guest = self._guests[index]
        step = self._draw(guest.state)
        guest.state = step.to
        if step.kind is Kind.STARTED:
            self._ids += 1
            guest.id = self._ids
        elif step.kind is Kind.STOPPED:
            guest.id = 0
        return Happening(self._told, index, step.kind, step.reason, guest.id)

    def _draw(self, state: State) -> Step:
        scale = _SCALES[state]
        drawn = self._random() * scale[-1]
        for reach, step in zip(scale, TRANSITIONS[state], strict=True):
            if drawn < reach:
                return step
        raise AssertionError("random() is below 1")
