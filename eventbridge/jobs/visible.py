"""What runs, how long it was waited for, and why somebody was refused: the table as others see it.

Any thread; none of it blocks.
"""

from __future__ import annotations

from collections.abc import Hashable

from eventbridge.errors import EventBridgeError

from .info import HeldJob, JobInfo, Metrics
from .keeper import Keeper
from .messages import error_of
from .state_machine import Machine
from .ticket import State, Ticket


class Visible(Keeper):
    """The table, to be looked at."""

    def running(self, key: Hashable) -> JobInfo | None:
        """What runs on a domain, and how many wait; None where nothing does."""
        now = self._clock()
        with self._lock:
            found = self._table.get(key)
            machine = found if isinstance(found, Machine) else Machine()
            if isinstance(found, Ticket):
                machine.hold(found)
            normal, async_, abandoned = machine.normal, machine.async_, tuple(machine.abandoned)
            progress, abort_asked, queue = machine.progress, machine.abort_asked, machine.waiting
        self._after([])
        if found is None:
            return None
        return JobInfo(
            None if normal is None else self._held(normal, now),
            None if async_ is None else self._held(async_, now),
            tuple(self._held(ticket, now) for ticket in abandoned),
            progress,
            abort_asked,
            queue,
        )

    def metrics(self) -> Metrics:
        """How long was waited for which domain, and how many wait now.  A domain is counted by itself until it is
        `gone`, and while it is among the last 10,000 that were waited for.
        """
        table = self._table.copy()
        queues = {key: found.waiting for key, found in table.items() if isinstance(found, Machine) and found.waiting}
        with self._lock:
            metrics = self._waits.metrics(queues, len(table))
        self._after([])
        return metrics

    def error_of(self, ticket: Ticket) -> EventBridgeError:
        """See `Ticket.error`."""
        refusal = ticket.refusal
        blocker = refusal.blocker
        held = None if blocker is None else self._held(blocker, refusal.at, refusal.abandoned)
        return error_of(ticket, held)

    def _held(self, ticket: Ticket, now: float, abandoned: bool | None = None) -> HeldJob:
        held = max(0.0, now - ticket.since)
        since = self._wall() - (self._clock() - ticket.since)
        left = ticket.state is State.ABANDONED if abandoned is None else abandoned
        return HeldJob(ticket.job, str(ticket.owner), since, held, left)
