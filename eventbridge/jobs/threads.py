"""Jobs for threads: ``with jobs.hold("web1", Job.MODIFY) as token:``.

A thread that waits sleeps on a lock of its own until its deadline; nothing polls.  A thread that dies while it holds
jobs, because it never left the ``with`` block (as a generator that is not closed), releases them: each thread that has
held a job keeps a mark in its thread-local data, which the interpreter destroys in that thread's last moment.
"""

from __future__ import annotations

import threading
import weakref

from .manager import NEVER, JobManager
from .state_machine import Machine
from .ticket import Ticket


class ThreadOwner:
    """A thread, as the owner of its jobs; its text is the thread's name."""

    __slots__ = ("_text", "thread")

    def __init__(self, text: str, thread: ThreadOwner | None = None) -> None:
        self._text = text
        self.thread = self if thread is None else thread

    def __str__(self) -> str:
        return self._text


class ThreadHold:
    """How threads hold the jobs of one manager: who a thread is, how it waits, and what its death releases."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = weakref.ref(manager)
        self._threads = threading.local()

    def owner(self, text: str | None) -> ThreadOwner:
        """Return this thread as an owner; ``text`` is shown in place of the thread's name."""
        try:
            me: ThreadOwner = self._threads.me
        except AttributeError:
            me = self._threads.me = ThreadOwner(threading.current_thread().name)
            self._threads.mark = _Mark(self._manager, me)
        return me if text is None else ThreadOwner(text, me)

    @staticmethod
    def wait(manager: JobManager, ticket: Ticket, timeout: float | None, nowait: bool, of: Ticket | None) -> None:
        """Block this thread until the ticket is granted; raises its error if it is refused."""
        deadline = NEVER if timeout is None else ticket.since + timeout
        settled = threading.Lock()
        settled.acquire()
        try:
            manager._contend(ticket, deadline, nowait, of, lambda ticket: settled.release())
            while not ticket.settled:
                remaining = deadline - manager._clock()
                if remaining <= 0:
                    manager.expire(ticket.key)
                else:
                    settled.acquire(timeout=min(remaining, threading.TIMEOUT_MAX))
        except BaseException:  # KeyboardInterrupt, mostly
            manager.cancel(ticket)
            raise
        error = ticket.error
        if error is not None:
            raise error


class _Mark:
    """A thread's mark, destroyed with the thread; so nothing but the thread may refer to it."""

    __slots__ = ("_manager", "_owner")

    def __init__(self, manager: weakref.ref[JobManager], owner: ThreadOwner) -> None:
        self._manager = manager
        self._owner = owner

    def __del__(self) -> None:
        manager = self._manager()
        if manager is not None:
            _release_all(manager, self._owner)


def _release_all(manager: JobManager, owner: ThreadOwner) -> None:
    """Release a thread's jobs, on itself, in its last moment.

    Looking needs no lock: what the thread held stays where it was, whatever other threads do.
    """
    held: list[Ticket] = []
    for found in manager._table.copy().values():
        tickets = (found.normal, found.async_) if isinstance(found, Machine) else (found,)
        held += [ticket for ticket in tickets if ticket and getattr(ticket.owner, "thread", None) is owner]
    for ticket in held:
        manager.let_go(ticket)
