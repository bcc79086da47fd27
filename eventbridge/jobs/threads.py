"""Jobs for threads: ``with jobs.hold("web1", Job.MODIFY) as token:``.

A thread that waits sleeps on a lock of its own, until its deadline; nobody polls.  A thread that dies while it holds
jobs, because it left the ``with`` never, as a generator that is not closed does, releases them: each thread that has
held one keeps a mark among its thread-local data, which the interpreter destroys in that thread's last moment.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable

from .domains import DEFAULT_TIMEOUT, NEVER, Domains
from .kinds import Job
from .state_machine import Machine
from .ticket import Ticket


class _Life:
    """A thread's mark.  Destroyed with the thread; so nothing but the thread may refer to it."""

    __slots__ = ("_jobs", "_owner")

    def __init__(self, jobs: Threads, owner: ThreadOwner) -> None:
        self._jobs = weakref.ref(jobs)
        self._owner = owner

    def __del__(self) -> None:
        jobs = self._jobs()
        if jobs is not None:
            jobs._thread_ended(self._owner)


class ThreadOwner:
    """A thread, as the owner of its jobs; its text is the thread's name."""

    __slots__ = ("_text", "thread")

    def __init__(self, text: str, thread: ThreadOwner | None = None) -> None:
        self._text = text
        self.thread = self if thread is None else thread

    def __str__(self) -> str:
        return self._text


class Threads(Domains):
    """The table, with the face for threads."""

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
        """Begin a job in this thread, waiting for it at most ``timeout`` seconds (None: for ever); returns its token,
        whose ``with`` block ends it.  The job begins here, not with the block, as a file is open from `open` on.

        ``nowait``, ``of``: as `request` has them.  ``owner`` is what others are told of who holds the domain (default:
        the thread's name).  Raises `JobBusy`, `JobTimeout`, `JobAborted`, or `HypervisorError` where the domain has
        ended.  Not on the thread of an event loop, but with ``nowait``.
        """
        try:
            me: ThreadOwner = self._threads.me
        except AttributeError:
            me = self._thread_begins()
        if owner is not None:
            me = ThreadOwner(owner, me)
        ticket = Ticket(self, key, job, me, self._clock())
        if of is not None or not self._granted_at_once(ticket):
            self._wait(ticket, timeout, nowait, of)
        return ticket

    def _wait(self, ticket: Ticket, timeout: float | None, nowait: bool, of: Ticket | None) -> None:
        deadline = NEVER if timeout is None else ticket.since + timeout
        settled = threading.Lock()
        settled.acquire()
        try:
            self._contend(ticket, deadline, nowait, of, lambda ticket: settled.release())
            while not ticket.settled:
                remaining = deadline - self._clock()
                if remaining <= 0:
                    self.expire(ticket.key)
                else:
                    settled.acquire(timeout=min(remaining, threading.TIMEOUT_MAX))
        except BaseException:  # KeyboardInterrupt, mostly
            self.cancel(ticket)
            raise
        error = ticket.error
        if error is not None:
            raise error

    # -- a thread's life

    def _thread_begins(self) -> ThreadOwner:
        me = self._threads.me = ThreadOwner(threading.current_thread().name)
        self._threads.life = _Life(self, me)
        return me

    def _thread_ended(self, owner: ThreadOwner) -> None:
        """In its last moment, on itself.  No lock is needed to look: what it held is where it was, whoever else
        comes.
        """
        held: list[Ticket] = []
        for found in self._table.copy().values():
            tickets = (found.normal, found.async_) if isinstance(found, Machine) else (found,)
            held += [ticket for ticket in tickets if ticket and getattr(ticket.owner, "thread", None) is owner]
        for ticket in held:
            self.let_go(ticket)
