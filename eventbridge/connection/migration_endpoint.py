"""One end of a migration: its connection, the job that is held there, and what is asked under that.

The job is held until the hypervisor is done with the domain: a step that nobody waits for any more goes on holding it,
abandoned, until its answer comes, as a call of its own does (`invocation`).

Any thread; nothing here blocks, and the lock is held over the ticket alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eventbridge.errors import BridgeClosed, BridgeForked, EventBridgeError, UnknownHandle
from eventbridge.hypervisor.driver import Session
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.operations import SECONDS
from eventbridge.jobs import Job, Progress, Ticket

from .call import Call, LongCall
from .inventory import Key
from .invocation import Ask

if TYPE_CHECKING:
    from .connection import Connection

Late = Callable[[], object]


class Side:
    """``guest`` is who migrates, by the names that it has here, and ``target``, who is asked: the same at the source;
    at the destination who waits to become it, or None.  An `invocation.Doing`.
    """

    def __init__(self, connection: Connection, guest: DomainRef, target: DomainRef | None, key: Key, job: Job) -> None:
        self.connection = connection
        self.domain = guest
        self.target = target
        self.key = key
        self.job = job
        self.operation = "migrate" if job is Job.MIGRATION_OUT else "migrate_in"
        self._lock = threading.Lock()
        self._ticket: Ticket | None = None
        self._asked: list[Ask] = []
        self._released = False
        self._error: BaseException | None = None
        self._timer = 0
        self._was_known = False

    @property
    def uri(self) -> str:
        return self.connection.uri

    @property
    def session(self) -> Session | None:
        return self.connection.session

    @property
    def has_ended(self) -> bool:
        """Does it run no more, as the events of its hypervisor say?"""
        known = self.connection.known.get(self.key)
        return known is None or not known.runs

    @property
    def was_seen_to_end(self) -> bool:
        """Has its hypervisor reported, since the job began, that it runs no more?  That stays known when the connection
        is lost; `has_ended` also holds for a domain that this connection has never known.
        """
        return self._was_known and self.has_ended

    # -- its job

    def hold(self, what: str, settled: Callable[[Ticket], object]) -> Ticket:
        """Ask for its job; refused at once where another such is under way, and after `SECONDS`."""
        jobs = self.connection.jobs
        running = jobs.running(self.key)
        nowait = running is not None and running.async_ is not None
        ticket = jobs.request(self.key, self.job, what, timeout=SECONDS, nowait=nowait, on_settled=settled)
        if not ticket.settled:
            self._arm()
        return ticket

    def held(self, ticket: Ticket) -> None:
        """It is."""
        self._disarm()
        self._ticket = ticket
        self._was_known = not self.has_ended
        self.connection.job_began(self)

    def report(self, progress: Progress) -> None:
        ticket = self._ticket
        if ticket is not None:
            ticket.report(progress)

    def release(self, error: BaseException | None) -> None:
        """The migration is over; the job is, when the hypervisor is."""
        self._disarm()
        with self._lock:
            self._released, self._error = True, error
        self._let_go()

    def _let_go(self) -> None:
        under_way = any(ask.is_under_way for ask in self._asked)
        with self._lock:
            ticket = self._ticket
            if ticket is None or not self._released:
                return
            if not under_way:
                self._ticket = None
        if under_way:
            ticket.abandon()
            return
        self.connection.job_ended(self, self._error)
        with contextlib.suppress(EventBridgeError):  # the domain has ended, and an abandoned job with it
            ticket.end()

    # -- what is asked

    def ask(
        self, operation: str, seconds: float | None = None, *, late: Late | None = None, **arguments: Any
    ) -> Call[Any]:
        """Within the job, for `SECONDS` unless said otherwise.  ``late()``: it was done, and nobody waited for it any
        more.
        """
        call = self.connection.new_call(f"{operation.replace('_', ' ')} of {_named(self.domain)}")
        self._begin(call, operation, arguments, SECONDS if seconds is None else seconds, late)
        return call

    def send(self, call: LongCall[Any], arguments: dict[str, Any]) -> None:
        """``migrate``: for as long as it takes."""
        self._begin(call, "migrate", arguments)

    def _begin(
        self,
        call: Call[Any],
        operation: str,
        arguments: dict[str, Any],
        seconds: float | None = None,
        late: Late | None = None,
    ) -> None:
        def answered(error: BaseException | None) -> None:
            if late is not None and error is None and call.done:
                late()
            self._let_go()

        ask = Ask(
            self.connection,
            call,
            operation,
            self.target,
            arguments,
            key=self.key,
            seconds=seconds,
            held=self._ticket,
            answered=answered,
        )
        self._asked.append(ask)
        ask.begin()

    # -- how long it waits

    def _arm(self) -> None:
        with contextlib.suppress(BridgeClosed, BridgeForked):
            self._timer = self.connection.bridge.add_timeout(int(SECONDS * 1000), self._expired)

    def _expired(self, id: int, opaque: object) -> None:
        self._disarm()
        self.connection.jobs.expire(self.key)  # of those that have not been let in meanwhile

    def _disarm(self) -> None:
        timer, self._timer = self._timer, 0
        if timer:
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                self.connection.bridge.remove_timeout(timer)


def _named(ref: DomainRef) -> str:
    return str(ref.name or ref.uuid or ref.id)
