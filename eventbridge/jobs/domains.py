"""One job, from its asking to its end, on any of many domains.

Who waits, and how, is the faces' business (threads.py, coroutines.py), and whose who calls `request`: nothing here
blocks, and nobody here looks at the clock until asked.  Every method may be called from any thread.  In a forked child,
make a new table: the parent's owners are not there to end their jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NoReturn

from eventbridge.errors import EventBridgeError

from .kinds import Job
from .state_machine import Machine, Output
from .steering import Steering
from .ticket import OnSettled, State, Ticket

DEFAULT_TIMEOUT = 30.0
"""Seconds for the whole of a wait: libvirt's VIR_JOB_WAIT_TIME."""
NEVER = float("inf")

_WAITING, _HELD, _ABANDONED, _ENDED = State.WAITING, State.HELD, State.ABANDONED, State.ENDED


class Domains(Steering):
    """The table, without a way to wait."""

    def request(
        self,
        key: Hashable,
        job: Job,
        owner: object,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        deadline: float | None = None,
        nowait: bool = False,
        of: Ticket | None = None,
        on_settled: OnSettled | None = None,
    ) -> Ticket:
        """Ask for a job; returns at once, with a ticket that is granted, refused, or waits.

        ``owner`` names its holder by ``str()``.  The wait ends by itself ``timeout`` seconds from now (None: never), or
        at ``deadline`` in the clock's seconds, which goes first; but nobody looks at the clock here: whoever asked
        calls `expire` then.  ``nowait``: not queued, but refused with `JobBusy`.  ``of``: the token of the async job
        that this normal one is a part of.  ``on_settled(ticket)`` is called once, when it is granted or refused, on
        whichever thread settles it, perhaps before this returns; with no lock held; it must be short, and not wait for
        a job.  It is not called for a ticket that was cancelled.
        """
        now = self._clock()
        ticket = Ticket(self, key, job, owner, now)
        if of is None and self._granted_at_once(ticket):
            if on_settled is not None:
                self._delivery.call(on_settled, ticket)
        else:
            until = now + timeout if timeout is not None else NEVER
            self._contend(ticket, until if deadline is None else deadline, nowait, of, on_settled)
        return ticket

    def _granted_at_once(self, ticket: Ticket) -> bool:
        """The fast path: nothing runs there."""
        with self._lock.raw:
            granted = self._table.setdefault(ticket.key, ticket) is ticket
        if self._left:
            self._let_go_of_the_left()
        return granted

    def _contend(
        self, ticket: Ticket, deadline: float, nowait: bool, of: Ticket | None, on_settled: OnSettled | None
    ) -> None:
        if of is not None and ticket.job.is_async:
            raise ValueError(f"{ticket.job.name} cannot be part of an async job: only a normal job can")
        ticket.asked = ticket.since
        ticket.deadline = deadline
        ticket.of = of
        ticket.on_settled = on_settled
        with self._lock:
            self._sequence += 1
            machine = self._machine(ticket.key)
            outputs = machine.begin(ticket, self._sequence, ticket.asked, nowait=nowait)
            self._drop_if_idle(ticket.key, machine)
        self._after(outputs)

    def end(self, token: Ticket) -> None:
        """The job is over, abandoned or not; the next are let in.  `EventBridgeError` for one that is not held: ended
        already, still waiting, refused, or not of this table.
        """
        key = token.key
        lock = self._lock
        with lock.raw:
            if lock.stepping:  # a finalizer, inside a step
                self._left.append(token)
                return
            lock.stepping = True
            try:
                alone = self._table.get(key) is token
                if alone:
                    del self._table[key]
                    token.state = _ENDED
            finally:
                lock.stepping = False
        if not alone and not self._end_in_machine(token):
            self._not_held(token)
        if self._left:
            self._let_go_of_the_left()

    def abandon(self, token: Ticket) -> bool:
        """Its owner waits no longer for a hypervisor's call that hangs.  The job holds the domain until `end`, which
        stays legal, but keeps DESTROY and ABORT out no more.  False where it has ended meanwhile.
        """
        now = self._clock()
        outputs: list[Output] = []
        with self._lock:
            if token.state is _HELD and token.jobs is self:
                outputs = self._machine(token.key).abandon(token, now)
                self._note(outputs, now)
            abandoned = token.state is _ABANDONED
        self._after(outputs)
        return abandoned

    def cancel(self, ticket: Ticket) -> bool:
        """See `Ticket.cancel`."""
        now = self._clock()
        with self._lock:
            waited = ticket.state is _WAITING and ticket.jobs is self
            if waited:
                self._machine(ticket.key).cancel(ticket)
                ticket.on_settled = None
                self._waits.note(ticket, now)
        if not waited and ticket.state is _HELD:
            self._end_in_machine(ticket)
        self._after([])
        return waited

    def expire(self, key: Hashable) -> None:
        """Refuse with `JobTimeout` those who wait for this domain and whose deadline is past."""
        self._step(key, Machine.expire)

    def gone(self, key: Hashable) -> None:
        """The domain has ended: who waits for it is refused with a `HypervisorError`, but for START and MIGRATION_IN,
        which bring it up.  A job that runs goes on, its end is legal; an abandoned one holds nothing any more.
        """
        self._step(key, Machine.gone)
        with self._lock:
            self._waits.forget(key)
        self._after([])

    def _end_in_machine(self, token: Ticket) -> bool:
        now = self._clock()
        outputs: list[Output] = []
        with self._lock:
            held = token.jobs is self and (token.state is _HELD or token.state is _ABANDONED)
            if held:
                machine = self._machine(token.key)
                outputs = machine.end(token, now)
                self._note(outputs, now)
                self._drop_if_idle(token.key, machine)
        self._after(outputs)
        return held

    def _step(self, key: Hashable, step: Callable[[Machine, float], list[Output]]) -> None:
        """Of a domain whose machine there is: a ticket by itself has no waiter."""
        now = self._clock()
        outputs: list[Output] = []
        with self._lock:
            machine = self._table.get(key)
            if isinstance(machine, Machine):
                outputs = step(machine, now)
                self._note(outputs, now)
                self._drop_if_idle(key, machine)
        self._after(outputs)

    def _let_go(self, ticket: Ticket) -> None:
        if not self.cancel(ticket):
            self._end_in_machine(ticket)  # abandoned, and its late end came in a finalizer

    def _not_held(self, token: Ticket) -> NoReturn:
        if token.jobs is not self:
            raise EventBridgeError(f"cannot end {token!r}: it is another table's")
        raise EventBridgeError(f"cannot end {token!r}: only a job that is held can be ended, and once")
