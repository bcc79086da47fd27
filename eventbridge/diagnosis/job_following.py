"""A table of jobs that tells who waits for a domain, who is let in, and who is done with it.

As `observed` does with the dispatcher: while nobody follows a table it is plain `Jobs`; while somebody does, the same
object is of this class.  Told on whichever thread makes the step, with no lock held.
"""

from __future__ import annotations

import threading
from time import monotonic_ns
from typing import Protocol

from eventbridge.jobs import Jobs, State, Ticket
from eventbridge.jobs.state_machine import Output
from eventbridge.jobs.ticket import OnSettled

_lock = threading.Lock()  # over who follows which


class Follower(Protocol):
    """Who is told.  Short, and raises nothing."""

    def job_waits(self, ticket: Ticket) -> None:
        """It asks, and somebody may be in its way."""

    def job_granted(self, ticket: Ticket) -> None: ...

    def job_abandoned(self, ticket: Ticket) -> None: ...

    def job_over(self, ticket: Ticket, at: int) -> None:
        """Ended, refused, or given up; ``at``: when, in ns.  Who comes next may be told of before that."""


class FollowedJobs(Jobs):
    """`Jobs` with followers."""

    followers: tuple[Follower, ...]

    def _granted_at_once(self, ticket: Ticket) -> bool:
        granted = super()._granted_at_once(ticket)
        if granted:
            for follower in self.followers:
                follower.job_granted(ticket)
        return granted

    def _contend(
        self, ticket: Ticket, deadline: float, nowait: bool, of: Ticket | None, on_settled: OnSettled | None
    ) -> None:
        for follower in self.followers:
            follower.job_waits(ticket)
        super()._contend(ticket, deadline, nowait, of, on_settled)

    def _after(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Ticket):
                for follower in self.followers:
                    if output.state is State.REFUSED:
                        follower.job_over(output, monotonic_ns())
                    else:
                        follower.job_granted(output)
        super()._after(outputs)

    def abandon(self, token: Ticket) -> bool:
        abandoned = super().abandon(token)
        if abandoned:
            for follower in self.followers:
                follower.job_abandoned(token)
        return abandoned

    def cancel(self, ticket: Ticket) -> bool:
        at = monotonic_ns()
        waited = super().cancel(ticket)
        if waited:
            self._over(ticket, at)
        return waited

    def end(self, token: Ticket) -> None:
        at = monotonic_ns()
        super().end(token)
        self._over(token, at)

    def _end_in_machine(self, token: Ticket) -> bool:
        at = monotonic_ns()
        ended = super()._end_in_machine(token)
        if ended:
            self._over(token, at)
        return ended

    def _over(self, ticket: Ticket, at: int) -> None:
        for follower in self.followers:
            follower.job_over(ticket, at)


def follow(jobs: Jobs, follower: Follower) -> None:
    """Have it told from now on.  Any thread; nothing happens for a table of somebody's own class."""
    with _lock:
        if isinstance(jobs, FollowedJobs):
            if follower not in jobs.followers:
                jobs.followers += (follower,)
        elif type(jobs) is Jobs:
            jobs.followers = (follower,)  # type: ignore[attr-defined]  # of what it is about to be
            jobs.__class__ = FollowedJobs


def unfollow(jobs: Jobs, follower: Follower) -> None:
    """Any thread; idempotent."""
    with _lock:
        if isinstance(jobs, FollowedJobs):
            jobs.followers = tuple(other for other in jobs.followers if other is not follower)
            if not jobs.followers:
                jobs.__class__ = Jobs  # type: ignore[assignment]  # its base, of the same making
