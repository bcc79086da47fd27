"""Jobs for coroutines: ``async with jobs.hold_async("web1", Job.MODIFY) as token:``, on any host that has tasks.

It asks two things of the host: `AwaitingHost.wait_for`, and `call_soon_threadsafe` because whoever ends the job in its
way may be a thread.  A task that is cancelled while it waits leaves the queue; one that is cancelled, or dies, while it
holds the job releases it: ``async with`` sees to the first, and the end of this object, which only the task's frame
refers to, to the second.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from eventbridge.core import host_lookup
from eventbridge.core.host import AwaitingHost
from eventbridge.errors import HostUnavailable

from .kinds import Job
from .manager import NEVER, JobManager
from .ticket import State, Ticket


class AsyncHold:
    """The block that `Jobs.hold_async` returns: one task enters it, once, on the loop thread."""

    __slots__ = ("_host", "_job", "_jobs", "_key", "_nowait", "_of", "_owner", "_ticket", "_timeout", "_wake")

    def __init__(
        self,
        jobs: JobManager,
        key: Hashable,
        job: Job,
        timeout: float | None,
        nowait: bool,
        of: Ticket | None,
        owner: object,
        host: AwaitingHost | None,
    ) -> None:
        self._jobs = jobs
        self._key = key
        self._job = job
        self._timeout = timeout
        self._nowait = nowait
        self._of = of
        self._owner = owner
        self._host = host
        self._ticket: Ticket | None = None
        self._wake: Callable[[], None] | None = None

    async def __aenter__(self) -> Ticket:
        jobs = self._jobs
        owner = self._owner or ("a task" if self._host is None else f"a task of {self._host.name}")
        ticket = self._ticket = Ticket(jobs, self._key, self._job, owner, jobs._clock())
        if self._of is not None or not jobs._granted_at_once(ticket):
            await self._wait(ticket)
        return ticket

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Awaits nothing, so that it is done also where the coroutine is closed from outside."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and ticket.state is State.HELD:
            self._jobs.end(ticket)

    def __del__(self) -> None:
        ticket = self._ticket
        if ticket is not None and ticket.state in (State.HELD, State.WAITING):
            self._jobs.let_go(ticket)

    async def _wait(self, ticket: Ticket) -> None:
        jobs = self._jobs
        host = self._host = self._host or _awaiting_host()
        deadline = NEVER if self._timeout is None else ticket.since + self._timeout
        try:
            jobs._contend(ticket, deadline, self._nowait, self._of, self._settled)
            while not ticket.settled:
                remaining = deadline - jobs._clock()
                if remaining <= 0:
                    jobs.expire(ticket.key)
                else:  # a host's timer may be early by a millisecond: look again
                    await host.wait_for(self._subscribe, None if remaining == NEVER else remaining)
        except BaseException:
            jobs.let_go(ticket)  # not `cancel`: a coroutine may be closed by a garbage collection
            raise
        error = ticket.error
        if error is not None:
            raise error

    def _subscribe(self, done: Callable[[], None]) -> None:
        self._wake = done
        if self._ticket is not None and self._ticket.settled:
            done()

    def _settled(self, ticket: Ticket) -> None:
        """On whichever thread."""
        assert self._host is not None
        try:
            self._host.call_soon_threadsafe(self._resume)
        except HostUnavailable:  # the loop is closed for good, and the task with it
            self._jobs.cancel(ticket)

    def _resume(self) -> None:
        if self._wake is not None:
            self._wake()


def _awaiting_host() -> AwaitingHost:
    host = host_lookup.running()
    if not isinstance(host, AwaitingHost):
        raise HostUnavailable(
            f"the {host.name} host has no tasks to wait in: use Jobs.request, or Jobs.hold in a thread"
        )
    return host
