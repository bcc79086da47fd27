"""A domain on its way from one of our connections to another: five steps, on two hypervisors, as one call.

``prepare`` has the destination listen, ``migrate`` has the source send, ``finish`` waits until the domain runs there,
``confirm`` ends what is left of it here; whatever fails before that, ``cancel`` has the destination forget it and
``confirm`` has the source go on.  The steps are those of libvirt's migration protocol, version 3 (its documentation,
migration.html): until the destination has said that the domain runs, the source can take it back.

The source's MIGRATION_OUT job and the destination's MIGRATION_IN job are held from the first step to the last.  Steps
follow one another on the loops' threads; nothing blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .asking import Ask
from .calls import Call, LongCall
from .domain import DomainInfo, DomainRef
from .errors import EventBridgeError, HypervisorError, JobAborted
from .jobs import Following, Job, Ticket
from .known import Key
from .operations import SECONDS

if TYPE_CHECKING:
    from .connection import Connection
    from .domains import Domain

FINISH_SECONDS = 60.0
"""How long a domain that has arrived may take to run."""


def migrate(domain: Domain, destination: str | Domain | Connection, options: Mapping[str, Any]) -> LongCall[Any]:
    """As `Domain.migrate`."""
    from .domains import Domain as Target

    if isinstance(destination, str):
        arguments = {"to": destination, **options}
        return domain.connection.ask_long("migrate", domain.ref, arguments=arguments)
    there = destination.connection if isinstance(destination, Target) else destination
    target = destination.ref if isinstance(destination, Target) else None
    migration = Migration(domain, there, target, options)
    migration.begin()
    return migration.call


class Side:
    """One of the two: its connection, its job, and what is asked of it."""

    def __init__(self, connection: Connection, domain: DomainRef | None, key: Key, job: Job) -> None:
        self.connection = connection
        self.domain = domain
        self.key = key
        self.job = job
        self.operation = "migrate" if job is Job.MIGRATION_OUT else "migrate_in"
        self.ticket: Ticket | None = None

    def hold(self, what: str, settled: Callable[[Ticket], object]) -> Ticket:
        """Ask for its job; refused at once where another such is under way."""
        jobs = self.connection.jobs
        running = jobs.running(self.key)
        nowait = running is not None and running.async_ is not None
        return jobs.request(self.key, self.job, what, timeout=SECONDS, nowait=nowait, on_settled=settled)

    def can(self, operation: str) -> bool:
        session = self.connection.session
        return session is not None and operation in session.operations

    def ask(self, operation: str, what: str, seconds: float | None = SECONDS, **arguments: Any) -> Call[Any]:
        """Within the job that is held."""
        call = self.connection.new_call(what)
        Ask(
            self.connection, call, operation, self.domain, arguments, key=self.key, seconds=seconds, held=self.ticket
        ).begin()
        return call

    def release(self, error: BaseException | None) -> None:
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            self.connection.job_ended(self, error)
            with contextlib.suppress(EventBridgeError):
                ticket.end()


class Migration:
    """One; ``call`` is its caller's, whose value is the `Domain` at the destination."""

    def __init__(self, domain: Domain, there: Connection, target: DomainRef | None, options: Mapping[str, Any]) -> None:
        ref, key = domain.ref, domain._key
        here = domain.connection
        self._ref = ref
        self._options = options
        self._source = Side(here, ref, key, Job.MIGRATION_OUT)
        self._destination = Side(there, target, key if target is None else there.known.key(target), Job.MIGRATION_IN)
        self._name = f"migration of {ref.name or ref.uuid or ref.id} from {here.uri} to {there.uri}"
        self.call: LongCall[Domain] = LongCall(here.bridge, here._mailbox, self._name)
        self._sending: LongCall[Any] | None = None
        self._waiting: Ticket | None = None
        self._aborted = False
        self.call.aborts(self._abort)
        self.call.cancels(self._abort)

    def begin(self) -> None:
        """Any thread."""
        for side, operation in ((self._source, "migrate"), (self._destination, "migrate_prepare")):
            session = side.connection.session
            if session is None:
                self._end(None, side.connection.lost())
                return
            if operation not in session.operations:
                words = f"{self._name}: {side.connection.uri} knows no {operation.replace('_', ' ')}"
                self._end(None, HypervisorError(words, operation=operation, domain=self._ref.name))
                return
        self._hold(self._source, lambda: self._hold(self._destination, self._prepare))

    # -- the jobs

    def _hold(self, side: Side, then: Callable[[], None]) -> None:
        def settled(ticket: Ticket) -> None:
            error = ticket.error
            if error is not None:
                error.args = (f"{self._name}: {error}",)
                self._end(None, error)
                return
            side.ticket = ticket
            side.connection.job_began(side)
            side.connection.jobs.follow(side.key, self._followed)
            # Onto its loop's thread: this may be whichever thread has let go of the domain.
            self._source.connection.soon(lambda: self._unless_aborted(then))

        self._waiting = side.hold(self._name, settled)

    def _followed(self, following: Following) -> None:
        if following.abort_asked and not following.ended:
            self._abort()

    def _unless_aborted(self, then: Callable[[], None]) -> None:
        if self._aborted:
            self._end(None, self._abortion())
        else:
            then()

    # -- the steps

    def _prepare(self) -> None:
        call = self._destination.ask("migrate_prepare", f"{self._name}: preparing", source=self._ref, listen=None)
        call.on_done(self._prepared)

    def _prepared(self, call: Call[str]) -> None:
        if call.error is not None:
            self._back_out(call.error)
        elif self._aborted:
            self._back_out(self._abortion())
        else:
            self._send(call.result())

    def _send(self, to: str) -> None:
        here = self._source.connection
        sending = self._sending = LongCall(here.bridge, here._mailbox, f"{self._name}: sending")
        sending.on_progress(self.call.progressed)
        confirm = self._source.can("migrate_confirm")
        arguments = {"to": to, "confirm": confirm, **self._options}
        ask = Ask(here, sending, "migrate", self._ref, arguments, key=self._source.key, held=self._source.ticket)
        ask.begin()
        sending.on_done(self._sent)

    def _sent(self, call: Call[None]) -> None:
        if call.error is not None:
            self._back_out(call.error)
            return
        finish = self._destination.ask("migrate_finish", f"{self._name}: arriving", FINISH_SECONDS, source=self._ref)
        finish.on_done(self._finished)

    def _finished(self, call: Call[DomainInfo]) -> None:
        if call.error is not None:
            self._back_out(call.error)
            return
        from .domains import Domain

        arrived = Domain(self._destination.connection, call.result().domain)
        self._confirm(True, lambda error: self._end(arrived, error))

    # -- the way back

    def _back_out(self, error: BaseException) -> None:
        """The destination forgets it, the source goes on; then ``error`` is told."""

        def cancelled(call: Call[None]) -> None:
            self._confirm(False, lambda failure: self._end(None, _both(error, failure)))

        self._destination.ask("migrate_cancel", f"{self._name}: cancelling", source=self._ref).on_done(cancelled)

    def _confirm(self, succeeded: bool, then: Callable[[BaseException | None], object]) -> None:
        if not self._source.can("migrate_confirm") or (self._sending is None and not succeeded):
            then(None)
            return
        words = f"{self._name}: {'ending' if succeeded else 'going on at'} the source"
        self._source.ask("migrate_confirm", words, succeeded=succeeded).on_done(lambda call: then(call.error))

    def _abort(self) -> None:
        """Any thread."""
        self._aborted = True
        waiting, sending = self._waiting, self._sending
        if sending is not None:
            sending.abort()
        elif waiting is not None and waiting.cancel():
            self._end(None, self._abortion())

    def _abortion(self) -> JobAborted:
        return JobAborted(f"{self._name}: aborted; the domain goes on at {self._source.connection.uri}")

    def _end(self, arrived: Domain | None, error: BaseException | None) -> None:
        for side in (self._destination, self._source):
            side.release(error)
        self.call.settle(arrived, error)


def _both(error: BaseException, failure: BaseException | None) -> BaseException:
    """Two things that went wrong, as one."""
    if failure is not None:
        error.args = (f"{error}; and then the source did not go on: {failure}",)
    return error
