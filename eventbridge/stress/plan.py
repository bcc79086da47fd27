"""What one host's process is to do, and what it says came of it: plain values, that go through a pipe as JSON."""

from __future__ import annotations

import collections
import importlib
from dataclasses import asdict, dataclass, field
from typing import Any

from .racing import GROWTH_BOUND

BRIDGE_ON = "eventbridge.stress.loops:bridge_on"
NEW_BRIDGE = "eventbridge.stress.loops:new_bridge"
MOST_COMPLAINTS = 20


@dataclass(slots=True)
class Plan:
    """``bridge_on`` is ``module:function``, called with a host's name and an error handler; so is ``new_bridge``, which
    returns a bridge that nobody will close and its loop.  ``plant``, another, is called before anything else: a test's
    own defect.  ``scripts``: where to keep those that fail.
    """

    host: str
    seconds: float
    handles: int
    threads: int
    seed: int
    faults: list[str]
    scripts: str = "."
    bridge_on: str = BRIDGE_ON
    new_bridge: str = NEW_BRIDGE
    plant: str = ""
    racing: bool = True
    storms: bool = True
    """Are there storms of signals (eintr) in racing rounds?"""
    script: str = ""
    """Run just this one, over and over again if need be, instead of drawing any."""


@dataclass(slots=True)
class HostReport:
    """What came of one host.  Times in seconds, memory in bytes."""

    host: str
    seed: int
    seconds: float = 0.0
    rounds: int = 0
    operations: int = 0
    callbacks: int = 0
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    """Forks, nested runs, faults by kind..."""
    lost: int = 0
    wrong: int = 0
    leaked_fds: int = 0
    growth: int = 0
    frees_owed: int = 0
    frees_called: int = 0
    complaints: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    """The files of those that failed, shrunk."""

    @property
    def clean(self) -> bool:
        return (
            not (self.lost or self.wrong or self.leaked_fds)
            and self.frees_owed == self.frees_called
            and self.growth <= GROWTH_BOUND
        )

    @property
    def violations(self) -> int:
        return self.lost + self.wrong + self.leaked_fds

    def complain(self, what: str) -> None:
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(what)

    def accuse(self, what: str) -> None:
        self.wrong += 1
        self.complain(f"wrong: {what}")

    def add(self, outcome: Any, *, called: str) -> None:
        """A round's, which is ``called`` so in complaints: a `scripted_round.Outcome` or a `racing.Report`."""
        self.rounds += 1
        for name in ("operations", "callbacks", "lost", "wrong", "leaked_fds", "frees_owed", "frees_called"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name, 0))
        self.counts.update(outcome.counts)
        for complaint in outcome.complaints:
            self.complain(f"{called}: {complaint}")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "counts": dict(sorted(self.counts.items())), "clean": self.clean}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> HostReport:
        known = {name: found[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "counts": collections.Counter(known["counts"])})


def named(target: str) -> Any:
    """What ``module:attribute`` names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
