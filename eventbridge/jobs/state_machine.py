"""The jobs of one domain, as a machine without clock, lock or thread: inputs are calls, outputs are what they return.

Inputs are `begin`, `cancel`, `end`, `abandon`, `expire`, `gone` for jobs, and `report`, `abort`, `follow`, `unfollow`
for the async one that runs; ``now`` is always the caller's clock.  Outputs are a list: a `Ticket` that was settled
(granted or refused: its state says which, and it is there exactly once), or a `Change` of an async job that somebody
follows.  Whoever runs the machine tells their owners, after its lock is released.

The rules
J1. One normal job at a time, one async job at a time; beside an async job run those that its row of `LETS_IN` names,
    and those of its own owner (nested: they name it, and pass its mask as libvirt's do).  An async job begins when
    neither kind runs.
J2. An abandoned job holds the domain as before, but for DESTROY and ABORT, which it does not keep out.
J3. First in, first out among the eligible.  After every input, as long as anybody who waits could run, the first of
    those is granted; so nobody waits who could run.  A job passes an earlier one only by being let in when the earlier
    one could not have run though no normal job ran: kept out by the mask of the async job or by an abandoned job, or
    itself async while another async job runs.  Where the normal job is all that is waited for, everybody is in one
    line, nested and async jobs too, and whoever comes goes to its end: a waiting MODIFY is passed by no QUERY.  So
    nobody starves: what keeps a waiter out is one async job (which waits in the same line before it begins) or one
    abandoned call.
J4. Every waiter is granted or refused or cancelled, once; an ended job is not ended again.
J5. At most ``limit`` wait; DESTROY, async jobs, and nested ones, are not counted out.
J6. `gone`: the domain has ended.  Who waits for it is refused, except who waits to bring it up; who runs goes on until
    its end; what was abandoned is let go, for the domain that it held is no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from .info import Progress
from .kinds import BRINGS_UP, LETS_IN, RESCUES, UNBOUNDED, Job
from .ticket import Refusal, State, Ticket, Verdict

DEFAULT_LIMIT = 1024
"""How many may wait for one domain."""


class Following(NamedTuple):
    """What is seen of an async job by who follows it."""

    ticket: Ticket
    progress: Progress | None
    abort_asked: bool
    ended: bool


Listener: TypeAlias = Callable[[Following], object]


class Change(NamedTuple):
    """An output: tell these listeners."""

    listeners: tuple[Listener, ...]
    now: Following


Output: TypeAlias = "Ticket | Change"
_Lane: TypeAlias = tuple[Job, bool]
_Queue: TypeAlias = "OrderedDict[Ticket, None]"


class Machine:
    """One domain.  Its caller holds one lock around each call, or is alone."""

    __slots__ = ("abandoned", "abort_asked", "async_", "lanes", "limit", "listeners", "normal", "progress", "waiting")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.normal: Ticket | None = None
        self.async_: Ticket | None = None  # abandoned or not
        self.abandoned: dict[Ticket, None] = {}  # normal ones
        self.lanes: dict[_Lane, _Queue] = {}  # who waits, by what they ask; empty ones are dropped
        self.waiting = 0
        self.progress: Progress | None = None  # this and the next two: of the async job
        self.abort_asked = False
        self.listeners: tuple[Listener, ...] = ()

    @property
    def idle(self) -> bool:
        """Nothing runs; so nobody waits."""
        return self.normal is None and self.async_ is None and not self.abandoned

    def blocker(self, job: Job, of: Ticket | None) -> Ticket | None:
        """Who keeps this job out now: J1, J2."""
        runs = self.async_
        if runs is not None and runs is not of and job not in LETS_IN[runs.job]:
            if runs.state is not State.ABANDONED or job not in RESCUES:
                return runs
        if self.normal is not None:
            return self.normal
        return next(iter(self.abandoned), None) if job not in RESCUES else None

    def running(self) -> Iterator[Ticket]:
        """All that hold the domain."""
        yield from (ticket for ticket in (self.async_, self.normal) if ticket is not None)
        yield from self.abandoned

    def waiters(self) -> list[Ticket]:
        """In the order in which they came."""
        everybody = [ticket for queue in self.lanes.values() for ticket in queue]
        return sorted(everybody, key=lambda ticket: ticket.sequence)

    # -- inputs

    def begin(self, ticket: Ticket, sequence: int, now: float, *, nowait: bool = False) -> list[Output]:
        """Grant, refuse or queue it.  ``sequence`` grows from call to call; the ticket's ``of`` and ``deadline`` are
        set.
        """
        ticket.sequence = sequence
        blocker = self.blocker(ticket.job, ticket.of)
        if ticket.of is not None and ticket.of is not self.async_:
            verdict = Verdict.ORPHANED
        elif blocker is None:
            return [self._grant(ticket, now)]
        elif nowait:
            verdict = Verdict.BUSY
        elif ticket.deadline <= now:
            verdict = Verdict.TIMEOUT
        elif self.waiting >= self.limit and ticket.job not in UNBOUNDED and ticket.of is None:
            verdict = Verdict.FULL
        else:
            self._queue(ticket)
            return []
        return [self._refuse(ticket, verdict, now)]

    def cancel(self, ticket: Ticket) -> None:
        """A waiter leaves.  Nobody waits because of a waiter, so nothing comes of it."""
        self._leave(ticket)
        ticket.state = State.CANCELLED

    def end(self, ticket: Ticket, now: float) -> list[Output]:
        """A job that is held, abandoned or not, is over."""
        ticket.state = State.ENDED
        return self._release(ticket, now) + self._settle(now)

    def abandon(self, ticket: Ticket, now: float) -> list[Output]:
        """A held job's owner waits no longer for the call that it is in: J2."""
        ticket.state = State.ABANDONED
        if ticket is self.normal:
            self.normal = None
            self.abandoned[ticket] = None
        return self._settle(now)

    def expire(self, now: float) -> list[Output]:
        """Refuse those whose deadline is past."""
        return self._refuse_those(lambda ticket: ticket.deadline <= now, Verdict.TIMEOUT, now)

    def gone(self, now: float) -> list[Output]:
        """The domain has ended: J6."""
        outputs = self._refuse_those(lambda ticket: ticket.job not in BRINGS_UP, Verdict.GONE, now)
        self.abandoned.clear()
        if self.async_ is not None and self.async_.state is State.ABANDONED:
            outputs += self._release(self.async_, now)
        return outputs + self._settle(now)

    # -- inputs about the async job that runs

    def report(self, progress: Progress) -> list[Output]:
        """It is so far."""
        self.progress = progress
        return self._changed()

    def abort(self) -> list[Output]:
        """It is asked to abort, by the first of perhaps several."""
        if self.abort_asked:
            return []
        self.abort_asked = True
        return self._changed()

    def follow(self, listener: Listener) -> None:
        """Have a `Change` for this listener made of each report, of the abort request and of the end."""
        self.listeners += (listener,)

    def unfollow(self, listener: Listener) -> None:
        self.listeners = tuple(other for other in self.listeners if other != listener)

    def following(self, *, ended: bool = False) -> Following:
        """What is to be seen of it now; there is one."""
        assert self.async_ is not None
        return Following(self.async_, self.progress, self.abort_asked, ended)

    def _changed(self, *, ended: bool = False) -> list[Output]:
        return [Change(self.listeners, self.following(ended=ended))] if self.listeners else []

    # -- who waits

    def _queue(self, ticket: Ticket) -> None:
        ticket.state = State.WAITING
        self.lanes.setdefault((ticket.job, ticket.of is not None), OrderedDict())[ticket] = None
        self.waiting += 1

    def _leave(self, ticket: Ticket) -> None:
        lane = ticket.job, ticket.of is not None
        queue = self.lanes[lane]
        del queue[ticket]
        if not queue:
            del self.lanes[lane]
        self.waiting -= 1

    def _first_eligible(self) -> Ticket | None:
        """Who wait in one lane ask the same, so that its first speaks for all of them."""
        first: Ticket | None = None
        for queue in self.lanes.values():
            ticket = next(iter(queue))
            if (first is None or ticket.sequence < first.sequence) and self.blocker(ticket.job, ticket.of) is None:
                first = ticket
        return first

    def _settle(self, now: float) -> list[Output]:
        """J3.  At most two rounds grant somebody: an async job, and a normal one beside it."""
        granted: list[Output] = []
        while (ticket := self._first_eligible()) is not None:
            self._leave(ticket)
            granted.append(self._grant(ticket, now))
        return granted

    # -- who runs

    def _grant(self, ticket: Ticket, now: float) -> Ticket:
        ticket.state = State.HELD
        ticket.since = now
        self.hold(ticket)
        return ticket

    def hold(self, ticket: Ticket) -> None:
        """This one runs: it was granted, here or elsewhere."""
        if ticket.job.is_async:
            self.async_ = ticket
        else:
            self.normal = ticket

    def _release(self, ticket: Ticket, now: float) -> list[Output]:
        if ticket is self.normal:
            self.normal = None
        elif ticket is self.async_:
            outputs = self._changed(ended=True)
            self.async_ = self.progress = None
            self.abort_asked = False
            self.listeners = ()
            return outputs + self._refuse_those(lambda waiter: waiter.of is ticket, Verdict.ORPHANED, now, ticket)
        else:
            self.abandoned.pop(ticket, None)
        return []

    def _refuse_those(
        self, which: Callable[[Ticket], bool], verdict: Verdict, now: float, blocker: Ticket | None = None
    ) -> list[Output]:
        refused = [ticket for ticket in self.waiters() if which(ticket)]
        for ticket in refused:
            self._leave(ticket)
        return [self._refuse(ticket, verdict, now, blocker) for ticket in refused]

    def _refuse(self, ticket: Ticket, verdict: Verdict, now: float, blocker: Ticket | None = None) -> Ticket:
        ticket.state = State.REFUSED
        blocker = blocker or self.blocker(ticket.job, ticket.of)
        abandoned = blocker is not None and blocker.state is State.ABANDONED
        ticket.refusal = Refusal(verdict, blocker, abandoned, now, self.waiting)
        return ticket
