"""One job of one owner: asked for, then held, then ended.  A granted ticket is the job's token.

It is one object for all of that, because an uncontended job costs no other (see manager.py).  Its fields are written
under the lock of the table of jobs it came from, by the machine or in the machine's place; reading one needs no lock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol, TypeAlias

from eventbridge.errors import EventBridgeError

from .errors import JobAborted
from .info import Progress
from .kinds import Job

OnSettled: TypeAlias = "Callable[[Ticket], object]"


class State(enum.Enum):
    WAITING = "still waits"
    HELD = "is held"
    ABANDONED = "is abandoned"
    ENDED = "has ended already"
    REFUSED = "was refused"
    CANCELLED = "was cancelled"


class Verdict(enum.Enum):
    """Why a job was refused."""

    BUSY = enum.auto()
    TIMEOUT = enum.auto()
    FULL = enum.auto()
    GONE = enum.auto()
    ORPHANED = enum.auto()
    """It named an async job that does not run (any more)."""


class Refusal(NamedTuple):
    """A refusal as data; messages.py has the words."""

    verdict: Verdict
    blocker: Ticket | None
    abandoned: bool  # the blocker was, then
    at: float  # the clock's seconds
    queue: int


class TicketOwner(Protocol):
    """The table of jobs that a ticket came from, as the ticket uses it; `Jobs` says what each method does."""

    def error_of(self, ticket: Ticket) -> EventBridgeError: ...

    def cancel(self, ticket: Ticket) -> bool: ...

    def end(self, token: Ticket) -> None: ...

    def abandon(self, token: Ticket) -> bool: ...

    def report(self, token: Ticket, progress: Progress) -> None: ...

    def abort_asked(self, token: Ticket) -> bool: ...


_WAITING, _HELD, _ABANDONED = State.WAITING, State.HELD, State.ABANDONED


class Ticket:
    """What `Jobs.request` gives, and, granted, what `Jobs.hold` gives.

    ``owner`` is whatever names its holder by ``str()``; ``since`` the clock's seconds at which the job was granted.
    Any thread may call its methods.
    """

    __slots__ = (
        "asked",
        "deadline",
        "job",
        "jobs",
        "key",
        "of",
        "on_settled",
        "owner",
        "refusal",
        "sequence",
        "since",
        "state",
    )

    jobs: TicketOwner
    key: Hashable
    job: Job
    owner: object
    since: float
    state: State
    # Only of those that were not granted at once:
    of: Ticket | None
    asked: float
    deadline: float
    on_settled: OnSettled | None
    sequence: int
    refusal: Refusal

    def __init__(self, jobs: TicketOwner, key: Hashable, job: Job, owner: object, since: float) -> None:
        self.jobs = jobs
        self.key = key
        self.job = job
        self.owner = owner
        self.since = since
        self.state = _HELD  # as nearly always: the machine says otherwise

    @property
    def token(self) -> Ticket | None:
        """Itself, where the job was granted and has not ended; else None."""
        return self if self.state is _HELD or self.state is _ABANDONED else None

    @property
    def settled(self) -> bool:
        """Granted or refused or cancelled: it waits no longer."""
        return self.state is not _WAITING

    @property
    def error(self) -> EventBridgeError | None:
        """Why it was refused: `JobBusy`, `JobTimeout`, `JobAborted`, `HypervisorError`; None where it was not."""
        return self.jobs.error_of(self) if self.state is State.REFUSED else None

    def cancel(self) -> bool:
        """Leave nothing behind: a ticket that waits leaves the queue and is never settled (True); a job that is held
        already is ended (False).  Nothing happens to one that was refused, has ended or is abandoned.
        """
        return self.jobs.cancel(self)

    def end(self) -> None:
        """`Jobs.end` of this token."""
        self.jobs.end(self)

    def abandon(self) -> bool:
        """`Jobs.abandon` of this token."""
        return self.jobs.abandon(self)

    def report(self, progress: Progress) -> None:
        """`Jobs.report` of this token."""
        self.jobs.report(self, progress)

    @property
    def abort_asked(self) -> bool:
        """Was this async job asked to abort?  Its owner then undoes what it did, and ends it."""
        return self.jobs.abort_asked(self)

    def check(self) -> None:
        """`JobAborted` where this async job was asked to abort: for its owner, between two steps."""
        if self.abort_asked:
            raise JobAborted(f"{self.key}: {self.job.value} of {self.owner} was asked to abort", job=self.job)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """The block's end is the job's, unless the job has ended before, or was abandoned: then its end comes when the
        call that hangs comes back.
        """
        if self.state is _HELD:
            self.jobs.end(self)

    def __repr__(self) -> str:
        return f"<{self.job.value} of {self.owner} on {self.key!r} {self.state.value}>"
