"""The job events of one connection: each `job_started` that its streams carry gets exactly one `job_ended`.

Two kinds of jobs are told.  Our own (a save, one side of a migration) begin and end in this process, on any thread.
The hypervisor's are jobs that somebody else has started; its driver reports them.  The hypervisor reports our own jobs,
too: those reports are *echoes* and are dropped, because our own events name the operation and how it ended.

The rules:

- A job's end is emitted once.  The first of these counts: the answer, the loss of the connection, the end of the
  hypervisor's domain (for the hypervisor's own jobs), `JobEvents.close`.
- The streams end only when no job is open (`JobEvents.when_none_is_open`).  A migration's job is open until both sides
  are done with it, which may be after the connection of one side has ended for good.
- The reason of an end is what is known: "lost" where the connection was lost and nobody can know any more.

`JobEvents.began` and `JobEvents.ended` may be called from any thread; all else belongs to the loop's thread.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from eventbridge.core.mailbox import Step
from eventbridge.errors import ConnectionLost
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainRef
from eventbridge.jobs import JobAborted, Jobs, JobTimeout

from .inventory import Key, Known
from .invocation import Doing

LOST = "lost"
"""The reason of an end that nobody has seen."""

# The reason of an end, by the class of its error, which may be a driver's own below one of these; other errors are a
# failure.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (JobAborted, "aborted"),
    (JobTimeout, "timeout"),
    (ConnectionLost, LOST),
)


class Tell(Protocol):
    """`Connection`'s way to emit an event."""

    def __call__(
        self, kind: Kind, ref: DomainRef | None, reason: str | None, raw: Any, synthetic: bool = False
    ) -> object: ...


class _Note(NamedTuple):
    """That one of our jobs has begun or ended, on its way to the loop's thread."""

    kind: Kind
    doing: Doing
    error: BaseException | None = None


class _Job(NamedTuple):
    """What tells a hypervisor's jobs apart: two jobs of one name never run on one domain at once."""

    key: Key | None
    event: str
    id: str
    """Empty where the driver's event has none: only one such job runs on a domain, and it may be ours."""


class JobEvents:
    """``tell`` emits an event, ``soon`` calls a step on the loop's thread; ``jobs`` and ``known`` are the
    connection's.
    """

    def __init__(self, known: Known, jobs: Jobs, tell: Tell, soon: Callable[[Step], object]) -> None:
        self._known = known
        self._jobs = jobs
        self._tell = tell
        self._soon = soon
        self._notes: collections.deque[_Note] = collections.deque()
        self._open: dict[Doing, None] = {}  # ours
        self._theirs: dict[_Job, DomainEvent | None] = {}  # how it began; None: its end is not to be emitted
        self._echoed: set[Key] = set()  # domains whose hypervisor has reported the end of our open job
        self._late: set[Key] = set()  # domains whose hypervisor has yet to report the end of a job of ours
        self._closed = False
        self._then: Step | None = None

    # -- our own jobs

    def began(self, doing: Doing) -> None:
        """Emit the `job_started` of a job of ours.  Any thread."""
        self._note(_Note(Kind.JOB_STARTED, doing))

    def ended(self, doing: Doing, error: BaseException | None) -> None:
        """Emit the `job_ended` of a job of ours, unless it was emitted already.  Any thread."""
        self._note(_Note(Kind.JOB_ENDED, doing, error))

    def _note(self, note: _Note) -> None:
        # A queue of its own, beside the mailbox: `close` must see an end that is on its way.
        self._notes.append(note)
        self._soon(self._take)

    def _take(self) -> None:
        if not self._notes:  # `close` has taken them
            return
        note = self._notes.popleft()
        if note.kind is Kind.JOB_ENDED:
            self._end(note.doing, note.error)
        elif not self._closed:
            self._begin(note.doing)
        self._check()

    def _begin(self, doing: Doing) -> None:
        self._open[doing] = None
        self._echoed.discard(doing.key)
        self._late.discard(doing.key)
        self._emit(Kind.JOB_STARTED, doing, doing.operation, None)

    def _end(self, doing: Doing, error: BaseException | None) -> None:
        if doing not in self._open:  # it was emitted as lost, or its beginning never was
            return
        del self._open[doing]
        reason = _reason(error)
        if doing.key in self._echoed:
            self._echoed.discard(doing.key)
        elif reason in ("completed", LOST) and doing.key in self._known:
            # libvirt's JOB_COMPLETED and the answer come by different ways, in either order.
            self._late.add(doing.key)
        self._emit(Kind.JOB_ENDED, doing, reason, error)

    def _emit(self, kind: Kind, doing: Doing, reason: str, error: BaseException | None) -> None:
        assert doing.job is not None
        raw = {"job": doing.job.value, "operation": doing.operation}
        if error is not None:
            raw["error"] = str(error)
        known = self._known.get(doing.key)
        self._tell(kind, doing.domain if known is None else known.ref, reason, raw)

    # -- the hypervisor's jobs

    def lets_pass(self, event: DomainEvent) -> bool:
        """Is a driver's event to be emitted?  False for the echo of a job of ours, and for a second end."""
        if event.kind is Kind.JOB_STARTED:
            return self._they_began(event)
        return event.kind is not Kind.JOB_ENDED or self._they_ended(event)

    def _they_began(self, event: DomainEvent) -> bool:
        job = self._job_of(event)
        before = self._theirs.pop(job, None)
        if before is not None:
            self._lose(before, "another of its kind began")
        ours = self._is_ours(job)
        self._theirs[job] = None if ours else event
        return not ours

    def _they_ended(self, event: DomainEvent) -> bool:
        job = self._job_of(event)
        if job in self._theirs:
            return self._theirs.pop(job) is not None
        if self._is_ours(job):
            self._echoed.add(job.key)
            return False
        if not job.id and job.key in self._late:
            self._late.discard(job.key)
            return False
        return True  # it began before anybody listened, or its hypervisor tells no beginnings

    def _job_of(self, event: DomainEvent) -> _Job:
        key = None if event.domain is None else self._known.key(event.domain)
        return _Job(key, *name_of(event))

    def _is_ours(self, job: _Job) -> bool:
        """Is it one of ours: is a long job of our own under way on that domain, or its end still to be emitted?  What
        has an id, a block job for one, is never started from here.
        """
        if job.id or job.key is None:
            return False
        running = self._jobs.running(job.key)
        return (running is not None and running.async_ is not None) or any(doing.key == job.key for doing in self._open)

    def domain_ended(self, key: Key) -> None:
        """The hypervisor's jobs on a domain end with it; call this before its end is emitted."""
        self._late.discard(key)
        for job in [job for job in self._theirs if job.key == key]:
            began = self._theirs.pop(job)
            if began is not None:
                self._lose(began, "its domain has ended")

    def lose_theirs(self, words: str) -> None:
        """The connection is lost.  What the hypervisor reports later of a job that was emitted as lost is dropped."""
        for job, began in list(self._theirs.items()):
            self._theirs[job] = None
            if began is not None:
                self._lose(began, words)

    def _lose(self, began: DomainEvent, words: str) -> None:
        self._tell(Kind.JOB_ENDED, began.domain, LOST, {"error": words, "began": dict(began.raw)}, True)

    # -- the end of the streams

    def when_none_is_open(self, step: Step) -> None:
        """Call ``step()`` once, when every job that has begun has ended: now, if that is so already."""
        self._then = step
        self._check()

    def _check(self) -> None:
        then = self._then
        if then is not None and not self._open and not self._notes:
            self._then = None
            self.lose_theirs("the connection has ended")
            then()

    def close(self, error: ConnectionLost) -> None:
        """End every open job, with ``error`` where its end is not known yet, and begin no other."""
        self._closed, self._then = True, None
        while self._notes:
            self._take()
        for doing in list(self._open):
            self._end(doing, error)
        self.lose_theirs(str(error))


def name_of(event: DomainEvent) -> tuple[str, str]:
    """What a job event's raw one says of which job it is about: the raw one's name, and the job's id where it has one;
    of a job of ours its operation.
    """
    raw = event.raw.get("began", event.raw)
    if "event" not in raw:
        return "", str(raw.get("operation", ""))
    data = raw.get("data")  # QEMU's events have one
    found = data if isinstance(data, Mapping) else raw
    # QEMU's jobs have an id, libvirt's block jobs are named by their disk.
    return str(raw["event"]), str(found.get("id") or found.get("disk") or "")


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "completed"
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "failed")
