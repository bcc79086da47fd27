"""Job conditions: no call waits for another domain's migration, and none for its own domain's longer than it must.

`Jobs` is one table for threads and for coroutines, so that both contend for a domain as equals.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from eventbridge.core.host import AwaitingHost

from .coroutines import AsyncHold
from .kinds import Job
from .manager import DEFAULT_TIMEOUT, JobManager
from .threads import ThreadHold
from .ticket import Ticket


class Jobs(JobManager):
    """Which job runs on which domain.  Any thread may call any method; `JobManager` has the constructor's arguments."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._thread_hold = ThreadHold(self)

    def hold(
        self,
        key: Hashable,
        job: Job,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        nowait: bool = False,
        of: Ticket | None = None,
        owner: str | None = None,
    ) -> Ticket:
        """Begin a job in this thread, waiting for it at most ``timeout`` seconds (None: without limit).

        Returns the job's token, whose ``with`` block ends the job.  The job begins here, not with the block, as a file
        is open from `open` on.  ``nowait``, ``of``: see `request`.  ``owner`` is shown to others as the domain's holder
        (default: the thread's name).  Raises `JobBusy`, `JobTimeout`, `JobAborted`, or `HypervisorError` if the domain
        has ended.  On the thread of an event loop, call it with ``nowait`` only.
        """
        ticket = Ticket(self, key, job, self._thread_hold.owner(owner), self._clock())
        if of is not None or not self._granted_at_once(ticket):
            ThreadHold.wait(self, ticket, timeout, nowait, of)
        return ticket

    def hold_async(
        self,
        key: Hashable,
        job: Job,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        nowait: bool = False,
        of: Ticket | None = None,
        owner: object = None,
        host: AwaitingHost | None = None,
    ) -> AsyncHold:
        """Return an ``async with`` block in which a coroutine holds the job: it begins on entering, ends on leaving.

        ``owner`` is shown to others as the domain's holder (default: a task of the host's); ``host`` is the loop that
        runs the coroutine (default: found if the coroutine has to wait).  Entering raises what `hold` raises, and
        `HostUnavailable` if the host has no tasks.
        """
        return AsyncHold(self, key, job, timeout, nowait, of, owner, host)
