"""A domain on its way from one of our connections to another: five steps, on two hypervisors, as one call.

``prepare`` has the destination listen, ``migrate`` has the source send, ``finish`` waits until the domain runs there,
``confirm`` ends what is left of it here; whatever fails before that, ``cancel`` has the destination forget it and
``confirm`` has the source go on.  The steps are those of libvirt's migration protocol, version 3 (its documentation,
migration.html): until the destination has said that the domain runs, the source can take it back.

It never runs twice, nor is it ended where it is alone: the source is told to go on only where the destination cannot be
running it, because it was not told to yet or has forgotten it; and a destination is told to forget only what its source
still has, and never where it has refused to prepare: then it waits for nobody.  Where neither can be had, for a
hypervisor hangs or has gone, the error says how things stand, and what to do.

The source's MIGRATION_OUT job and the destination's MIGRATION_IN job are held from the first step to the last.  Steps
follow one another on the loops' threads; nothing blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.jobs import Following, Job, JobAborted, Progress, Ticket

from .call import Call, LongCall
from .invocation import refusal_of
from .migration_endpoint import Side

if TYPE_CHECKING:
    from .connection import Connection
    from .domain import Domain

FINISH_SECONDS = 60.0
"""How long a domain that has arrived may take to run."""

log = logging.getLogger(__name__)


def migrate(domain: Domain, destination: str | Domain | Connection, options: Mapping[str, Any]) -> LongCall[Any]:
    """As `Domain.migrate`."""
    from .connection import Connection as There
    from .domain import Domain as Target

    if not isinstance(destination, str | Target | There):
        raise TypeError(
            "a destination is a URI that the hypervisor can reach, a Connection, or a Domain there; "
            f"found {destination!r}"
        )
    if isinstance(destination, str):
        arguments = {"to": destination, **options}
        return domain.connection.ask_long("migrate", domain.ref, arguments=arguments)
    there = destination.connection if isinstance(destination, Target) else destination
    target = destination.ref if isinstance(destination, Target) else None
    migration = Migration(domain, there, target, options)
    migration.begin()
    return migration.call


class Migration:
    """One; ``call`` is its caller's, whose value is the `Domain` at the destination."""

    def __init__(self, domain: Domain, there: Connection, target: DomainRef | None, options: Mapping[str, Any]) -> None:
        here, ref = domain.connection, domain.ref
        guest = DomainRef(ref.name, ref.uuid) if target is None else target
        self._ref = ref
        self._options = options
        self._source = Side(here, ref, ref, here.known.key(ref), Job.MIGRATION_OUT)
        self._destination = Side(there, guest, target, there.known.key(guest), Job.MIGRATION_IN)
        self._name = f"migration of {ref.name or ref.uuid or ref.id} from {here.uri} to {there.uri}"
        self.call: LongCall[Domain] = LongCall(here.bridge, here._mailbox, self._name)
        self._sending: LongCall[Any] | None = None
        self._waiting: Ticket | None = None
        self._aborted = False
        self._confirms = False
        """Does the source keep it until it is confirmed?  Else it has gone from there when it has been sent."""
        self._finishing = False
        """Was the destination told to run it?"""
        self.call.aborts(self._abort)
        self.call.cancels(self._abort)

    def begin(self) -> None:
        """Any thread."""
        if self._source.connection is self._destination.connection and self._source.key == self._destination.key:
            self._end(None, self._refusal("migrate", "it is there already"))
            return
        for side, operation in ((self._source, "migrate"), (self._destination, "migrate_prepare")):
            closed, session = refusal_of(side.connection), side.session
            if closed is not None or session is None:
                self._end(None, self._said(closed or side.connection.lost()))
                return
            if operation not in session.operations:
                self._end(None, self._refusal(operation, f"{side.uri} knows no {operation.replace('_', ' ')}"))
                return
            if side is self._source:
                self._confirms = "migrate_confirm" in session.operations
        self._hold(self._source, lambda: self._hold(self._destination, self._prepare))

    # -- the jobs

    def _hold(self, side: Side, then: Callable[[], None]) -> None:
        def settled(ticket: Ticket) -> None:
            error = ticket.error
            if error is not None:
                self._end(None, self._said(error))
                return
            side.held(ticket)
            side.connection.jobs.follow(side.key, self._followed)
            # Onto its loop's thread: this may be whichever thread has let go of the domain.
            self.call.soon(lambda: self._unless_aborted(then))

        waiting = side.hold(self._name, settled)
        if not waiting.settled:
            self._waiting = waiting
            if self._aborted:  # just now
                self._abort()

    def _followed(self, following: Following) -> None:
        if following.abort_asked and not following.ended:
            self._abort()

    def _unless_aborted(self, then: Callable[[], None]) -> None:
        if self._aborted:
            self._end(None, self._said_of_source(self._abortion()))
        else:
            then()

    # -- the steps

    def _prepare(self) -> None:
        there = self._destination
        call = there.ask("migrate_prepare", late=self._prepared_late, source=self._ref, listen=None)
        call.on_done(self._prepared)

    def _prepared_late(self) -> None:
        """It listens, and nobody will come.  Any thread."""
        self._destination.ask("migrate_cancel", source=self._ref).on_done(self._forgotten_late)

    def _forgotten_late(self, call: Call[None]) -> None:
        if call.error is not None:
            log.warning("%s: its destination was prepared too late, and does not forget it: %s", self._name, call.error)

    def _prepared(self, call: Call[str]) -> None:
        error = call.error
        if error is not None:
            failure = self._failure(error, "preparing", self._destination)
            if isinstance(error, HypervisorError):  # it would not: so there is nothing that could be forgotten
                self._end(None, self._said_of_source(failure))
            else:
                self._back_out(failure)
        elif self._aborted:
            self._back_out(self._abortion())
        else:
            self._send(call.result())

    def _send(self, to: str) -> None:
        here = self._source.connection
        sending = self._sending = LongCall(here.bridge, here._mailbox, f"{self._name}: sending")
        sending.on_progress(self._progressed)
        self._source.send(sending, {"to": to, "confirm": self._confirms, **self._options})
        sending.on_done(self._sent)
        if self._aborted:  # just now
            sending.abort()

    def _progressed(self, progress: Progress) -> None:
        self._destination.report(progress)
        self.call.progressed(progress)

    def _sent(self, call: Call[None]) -> None:
        there = self._destination
        if call.error is not None:
            aborted = isinstance(call.error, JobAborted)
            self._back_out(self._abortion() if aborted else self._failure(call.error, "sending", self._source))
        elif there.session is None and self._confirms:  # so that it was told nothing
            self._back_out(self._failure(there.connection.lost(), "arriving", there))
        else:
            self._finishing = True
            there.ask("migrate_finish", FINISH_SECONDS, source=self._ref).on_done(self._finished)

    def _finished(self, call: Call[DomainInfo]) -> None:
        if call.error is not None:
            failure = self._failure(call.error, "arriving", self._destination)
            if self._confirms:
                self._back_out(failure)
            else:
                self._end(None, _and(failure, f"it has left {self._source.uri}, and is at {self._destination.uri}"))
            return
        from .domain import Domain

        arrived = Domain(self._destination.connection, call.result().domain)
        if self._confirms:
            self._source.ask("migrate_confirm", succeeded=True).on_done(lambda call: self._confirmed(arrived, call))
        else:
            self._end(arrived, None)

    def _confirmed(self, arrived: Domain, call: Call[None]) -> None:
        here, there = self._source, self._destination
        # Where the connection is lost, the end that was asked for may have come before that.
        ended = here.was_seen_to_end if isinstance(call.error, ConnectionLost) else here.has_ended
        if call.error is None or ended:
            self._end(arrived, None)
            return
        failure = self._failure(call.error, "ending", here)
        words = f"it runs at {there.uri}: destroy what stands still at {here.uri}"
        self._end(arrived, _and(failure, words))

    # -- the way back

    def _back_out(self, error: EventBridgeError) -> None:
        """The destination forgets it, the source goes on; then ``error`` is told."""
        call = self._destination.ask("migrate_cancel", source=self._ref)
        call.on_done(lambda call: self._cancelled(error, call.error))

    def _cancelled(self, error: EventBridgeError, failure: BaseException | None) -> None:
        here, there = self._source, self._destination
        may_run = failure is not None and self._finishing and not (there.target is not None and there.has_ended)
        if failure is not None:
            error = _and(error, f"{there.uri} could not be told to forget it: {failure}")
        if may_run:
            words = f"it may run there, so it stands still at {here.uri}: see, then resume it here or destroy it here"
            self._end(None, _and(error, words))
        elif self._sending is not None and self._confirms:
            call = here.ask("migrate_confirm", succeeded=False)
            call.on_done(lambda call: self._end(None, self._said_of_source(error, call.error)))
        else:
            self._end(None, self._said_of_source(error))

    def _abort(self) -> None:
        """Any thread."""
        self._aborted = True
        waiting, sending = self._waiting, self._sending
        if sending is not None:
            sending.abort()
        elif waiting is not None and not waiting.settled and waiting.cancel():
            self._end(None, self._said_of_source(self._abortion()))

    def _end(self, arrived: Domain | None, error: BaseException | None) -> None:
        for side in (self._destination, self._source):
            side.release(error)
        self.call.settle(arrived, error)

    # -- what is said

    def _abortion(self) -> JobAborted:
        return JobAborted(f"{self._name}: aborted", job=Job.MIGRATION_OUT)

    def _failure(self, error: BaseException, doing: str, side: Side) -> EventBridgeError:
        told = error if isinstance(error, EventBridgeError) else EventBridgeError(repr(error))
        told.args = (f"{self._name}: {doing} at {side.uri} failed: {told}",)
        return told

    def _said(self, error: EventBridgeError) -> EventBridgeError:
        error.args = (f"{self._name}: {error}",)
        return error

    def _said_of_source(self, error: EventBridgeError, failure: BaseException | None = None) -> EventBridgeError:
        """How it is there: ``failure`` is why it could not be told to go on."""
        here = self._source
        if failure is not None and not here.has_ended:
            return _and(
                error, f"it could not be told to go on at {here.uri}: {failure}: resume it where it stands still"
            )
        return _and(error, f"it has ended at {here.uri}" if here.has_ended else f"it goes on at {here.uri}")

    def _refusal(self, operation: str, why: str) -> HypervisorError:
        return HypervisorError(f"{self._name}: {why}", operation=operation, domain=self._ref.name)


def _and(error: EventBridgeError, words: str) -> EventBridgeError:
    """It ends with these."""
    error.args = (f"{error}; {words}",)
    return error
