"""What runs, made visible: the plain records that jobs are shown as.

Snapshots, frozen: any thread may keep them.  Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .kinds import Job


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an async job is; what its hypervisor does not tell is None.  The names are those of libvirt's
    ``virDomainGetJobInfo`` and of QMP's ``query-migrate``.
    """

    total: int | None = None
    """Bytes in all."""
    processed: int | None = None
    """Bytes done; more than ``total`` where memory changes while it is copied."""
    remaining: int | None = None
    """Bytes to go."""
    rate: float | None = None
    """Bytes a second, now."""
    downtime: float | None = None
    """Milliseconds for which the domain stands still: measured at the end, expected before."""


@dataclass(frozen=True, slots=True)
class HeldJob:
    """One job that runs on a domain."""

    job: Job
    holder: str
    since: float
    """Its beginning, in seconds of Unix time."""
    held: float
    """Seconds since then, by a clock that nobody sets."""
    abandoned: bool = False
    """Its owner waits no longer for a call that hangs."""

    def __str__(self) -> str:
        """``worker-3 holds it with modify for 2.5 s``: the words of every refusal."""
        left = ", abandoned in a call that hangs" if self.abandoned else ""
        return f"{self.holder} holds it with {self.job.value} for {self.held:.1f} s{left}"


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What runs on one domain, and how many wait.  ``job``, ``holder``, ``since`` and ``held`` are those of the async
    job where one runs, else of the normal one, else of the first that is abandoned.
    """

    normal: HeldJob | None
    async_: HeldJob | None
    abandoned: tuple[HeldJob, ...] = ()
    """Normal jobs whose owners wait no longer; what they hold they hold until their call comes back."""
    progress: Progress | None = None
    abort_asked: bool = False
    queue: int = 0
    """How many wait."""

    @property
    def first(self) -> HeldJob:
        return self.async_ or self.normal or self.abandoned[0]

    @property
    def job(self) -> Job:
        return self.first.job

    @property
    def holder(self) -> str:
        return self.first.holder

    @property
    def since(self) -> float:
        return self.first.since

    @property
    def held(self) -> float:
        return self.first.held


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits that are over, however they ended, and those of now."""

    count: int = 0
    total: float = 0.0
    """Seconds, all of them together."""
    longest: float = 0.0
    queue: int = 0
    """How many wait now."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one `Jobs`.  ``domains`` has those on which somebody has waited or waits, by key."""

    overall: Waits
    held: int
    """Domains on which something runs."""
    domains: dict[Hashable, Waits] = field(default_factory=dict)
