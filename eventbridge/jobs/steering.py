"""An async job on its way: its progress, the wish that it abort, and those who follow it.

Its owner reports and heeds the wish; anybody may follow it or express the wish.  Any thread; none of it blocks.
"""

from __future__ import annotations

from collections.abc import Hashable

from eventbridge.errors import JobBusy

from .info import Progress
from .kinds import LETS_IN, Job
from .state_machine import Listener, Machine, Output
from .ticket import State, Ticket
from .visible import Visible


class Steering(Visible):
    """The table, and what is to be done with the async jobs in it."""

    def report(self, token: Ticket, progress: Progress) -> None:
        """An async job's owner says how far it is.  Nothing happens where the job has ended; ValueError for a normal
        job.
        """
        if not token.job.is_async:
            raise ValueError(f"{token!r} is no async job: it has no progress")
        outputs: list[Output] = []
        with self._lock:
            if token.jobs is self and self._is_running(token):
                outputs = self._machine(token.key).report(progress)
        self._after(outputs)

    def abort(self, key: Hashable) -> bool:
        """Ask the async job of a domain to abort, once or again: its owner is told (`follow`, `Ticket.abort_asked`),
        undoes what it did, and ends it.  False where none runs; `JobBusy` where it is one that lets no ABORT in.
        """
        outputs: list[Output] = []
        refusing: Ticket | None = None
        with self._lock:
            running = self._async_of(key)
            if running is not None:
                machine = self._machine(key)
                if Job.ABORT in LETS_IN[running.job] or running.state is State.ABANDONED:
                    outputs = machine.abort()
                else:
                    refusing = running
        self._after(outputs)
        if refusing is not None:
            held = self._held(refusing, self._clock())
            message = f"{key}: {held.job.value} is not to be aborted, only destroyed: {held}"
            raise JobBusy(message, holder=held.holder, job=held.job, since=held.since, held=held.held)
        return running is not None

    def abort_asked(self, token: Ticket) -> bool:
        """See `Ticket.abort_asked`."""
        machine = self._table.get(token.key)
        return isinstance(machine, Machine) and machine.async_ is token and machine.abort_asked

    def follow(self, key: Hashable, listener: Listener) -> bool:
        """Have ``listener(following)`` called of the async job that runs on this domain: at each report, when it is
        asked to abort, and last at its end; as ``on_settled`` is.  False where none runs.
        """
        with self._lock:
            running = self._async_of(key)
            if running is not None:
                self._machine(key).follow(listener)
        self._after([])
        return running is not None

    def unfollow(self, key: Hashable, listener: Listener) -> None:
        """Stop; a call that was decided on already may still come."""
        with self._lock:
            machine = self._table.get(key)
            if isinstance(machine, Machine):
                machine.unfollow(listener)
        self._after([])
