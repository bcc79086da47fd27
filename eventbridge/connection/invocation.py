"""The way of one call: it waits for its domain's job, is handed to the hypervisor's session, and is answered.

The call ends, for whoever made it, with the answer, at its deadline, or when it is given up.  Its job ends with the
answer alone, since that is when the hypervisor is done with the domain.  A job whose caller has gone before that is
abandoned at its deadline: it goes on holding the domain, but keeps nobody from destroying it.

Any thread; nothing here blocks, and no lock is held while anybody else's code runs.  That a call ends once is
`Call.settle`'s doing, and that a request does is `Request`'s: whichever of deadline, answer and cancel comes first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from eventbridge.bridge import Bridge
from eventbridge.core.bridge import LONGEST_TIMEOUT
from eventbridge.errors import (
    BridgeClosed,
    BridgeForked,
    ConnectionLost,
    EventBridgeError,
    HypervisorError,
    UnknownHandle,
)
from eventbridge.hypervisor.driver import Session
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.operations import OPERATIONS, SECONDS
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Following, Job, JobAborted, Jobs, JobTimeout, Progress, Ticket

from .call import Call, LongCall
from .inventory import Key


def _nothing(error: BaseException | None) -> None:
    pass


class Doing(Protocol):
    """What an asynchronous job does, to whom, as its events tell it."""

    @property
    def operation(self) -> str: ...
    @property
    def job(self) -> Job | None: ...
    @property
    def domain(self) -> DomainRef | None: ...
    @property
    def key(self) -> Key: ...


class Asked(Protocol):
    """Whom it is asked of: a connection."""

    uri: str
    bridge: Bridge
    jobs: Jobs
    under_way: dict[Request, None]
    """What the session is at: who drops the session answers these in its place."""

    @property
    def session(self) -> Session | None:
        """The one that answers now."""

    def lost(self) -> ConnectionLost:
        """Why there is none."""

    def suspect(self) -> None:
        """A request has failed as it would where the hypervisor has gone.  Any thread."""

    def job_began(self, doing: Doing) -> None:
        """An asynchronous one.  Any thread."""

    def job_ended(self, doing: Doing, error: BaseException | None) -> None: ...


def refusal_of(connection: Asked) -> EventBridgeError | None:
    """Why nothing can be asked of it now."""
    try:
        connection.bridge.check()
    except EventBridgeError as error:
        return error
    return connection.lost() if connection.session is None else None


class Ask:
    """``operation`` of ``domain``, for ``call``.

    ``seconds`` is how long the call may take in all; None: what the operation's row says.  ``convert`` makes the call's
    value of the answer.  ``held``: the job is held already, by whoever asks, who ends it; ``answered(error)`` tells him
    that the hypervisor is done, before the call says so, and also where that has ended long ago.
    """

    def __init__(
        self,
        connection: Asked,
        call: Call[Any],
        operation: str,
        domain: DomainRef | None = None,
        arguments: Mapping[str, Any] | None = None,
        *,
        key: Key = None,
        seconds: float | None = None,
        convert: Callable[[Any], Any] | None = None,
        held: Ticket | None = None,
        answered: Callable[[BaseException | None], object] = _nothing,
    ) -> None:
        self.call = call
        self.operation = operation
        self.domain = domain
        self.key = key
        self.job = OPERATIONS[operation].job
        self._connection = connection
        self._arguments = arguments or {}
        self._seconds = OPERATIONS[operation].seconds if seconds is None else seconds
        self._convert = convert
        self._answered = answered
        self._began = monotonic()
        self._waits: Ticket | None = None
        self._held = held
        self._ticket: Ticket | None = held  # granted
        self._request: Request | None = None
        self._timer = 0
        self._expiring: list[Ask] = []
        call.cancels(self.cancel)
        if isinstance(call, LongCall):
            call.aborts(self.cancel)

    @property
    def what(self) -> str:
        """Return what the call is called in messages."""
        return self.call.what

    @property
    def uri(self) -> str:
        """Return the connection's URI."""
        return self._connection.uri

    @property
    def domain_name(self) -> str | None:
        """Return the domain's name, if it is known."""
        return None if self.domain is None else self.domain.name

    @property
    def is_under_way(self) -> bool:
        """Is the hypervisor at it?"""
        request = self._request
        return request is not None and not request.done

    def begin(self, *, nowait: bool = False, of: Ticket | None = None) -> None:
        """Set out.  Whatever is in the way is the call's error; nothing is raised."""
        for observer in self._connection.bridge.observers:
            observer.asked(self)
        refusal = self._refusal()
        if refusal is not None:
            self._fail(refusal)
        elif self.job is None or self._held is not None:
            self._arm(self._seconds)
            self._ask()
        else:
            self._wait(nowait or self._waits_in_vain(), of)

    def _refusal(self) -> EventBridgeError | None:
        closed = refusal_of(self._connection)
        if closed is not None:
            return closed
        session = self._connection.session
        if session is None:  # just now
            return self._connection.lost()
        if self.operation in session.operations:
            return None
        able = ", ".join(sorted(session.operations))
        return HypervisorError(
            f"{self.call.what}: {self._connection.uri} cannot do that; it can: {able}",
            operation=self.operation,
            domain=_name(self.domain),
        )

    # -- the job

    def _waits_in_vain(self) -> bool:
        """For a migration, say, while one is under way: it is over when it is over, and the domain elsewhere then."""
        if self.job is None or not self.job.is_async:
            return False
        running = self._connection.jobs.running(self.key)
        return running is not None and running.async_ is not None

    def _wait(self, nowait: bool, of: Ticket | None) -> None:
        # What may take as long as it likes waits for its job as long as anything, and no longer.
        patience = SECONDS if self._seconds is None else self._seconds
        self._arm(patience)
        assert self.job is not None
        self._waits = self._connection.jobs.request(
            self.key,
            self.job,
            self.call.what,
            deadline=self._began + patience,
            nowait=nowait,
            of=of,
            on_settled=self._settled,
        )
        if self.call.done and self._ticket is None:  # given up just now
            self._waits.cancel()

    def _settled(self, ticket: Ticket) -> None:
        error = ticket.error
        if error is not None:
            error.args = (f"{self.call.what}: {error}",)
            self._fail(error)
            return
        self._ticket = ticket
        if self.call.done:
            ticket.end()
            return
        if ticket.job.is_async:
            self._connection.jobs.follow(self.key, self._followed)
            self._connection.job_began(self)
        if self._seconds is None:
            self._disarm()
        self._ask()

    def _followed(self, following: Following) -> None:
        """Somebody has asked the job to abort."""
        request = self._request
        if following.abort_asked and not following.ended and request is not None:
            request.abort()

    # -- the request

    def _ask(self) -> None:
        connection = self._connection
        deadline = None if self._seconds is None else self._began + self._seconds
        request = self._request = Request(self.operation, self.domain, self._arguments, self, deadline)
        connection.under_way[request] = None
        for observer in connection.bridge.observers:
            observer.begun(self)
        session = connection.session
        if self.call.done:
            request.refuse(self._given_up())
        elif session is None:
            request.refuse(connection.lost())
        else:
            session.begin(request)
            if connection.session is not session:  # dropped meanwhile, perhaps without this one
                request.refuse(connection.lost())

    def progressed(self, request: Request, progress: Progress) -> None:
        """As `request.Reply.progressed`."""
        if self._ticket is not None and self._ticket.job.is_async:
            self._connection.jobs.report(self._ticket, progress)
        if isinstance(self.call, LongCall):
            self.call.progressed(progress)

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        """As `request.Reply.ended`."""
        self._connection.under_way.pop(request, None)
        for observer in self._connection.bridge.observers:
            observer.answered(self, error)
        if error is None and self._convert is not None:
            try:
                value = self._convert(value)
            except Exception as broken:
                error = broken
        if self._ticket is not None and self._held is None:
            if self._ticket.job.is_async:
                self._connection.job_ended(self, error)
            self._ticket.end()
        if isinstance(error, ConnectionLost):
            self._connection.suspect()
        self._disarm()
        self._answered(error)
        self.call.settle(value, error)

    # -- its end before that

    def cancel(self) -> None:
        """As `Call.cancel`, and `LongCall.abort`."""
        request, waits = self._request, self._waits
        if request is not None:
            if isinstance(self.call, LongCall):
                request.abort()
            else:
                self.call.settle(None, self._given_up())
        elif self.call.settle(None, self._given_up()):
            self._disarm()
            if waits is not None:
                waits.cancel()

    def _given_up(self) -> JobAborted:
        return JobAborted(f"{self.call.what}: given up by whoever asked for it", job=self.job)

    def _expired(self) -> None:
        """The deadline.  The loop's thread."""
        self._disarm()
        request = self._request
        if request is None:
            self._connection.jobs.expire(self.key)
            self._fail(self._too_late("it was not let in"))  # unless the jobs have said so, and better
            return
        if request.done:
            return
        self.call.settle(None, self._too_late(f"no answer from {self._connection.uri}"))
        if self._ticket is not None and self._held is None:
            self._ticket.abandon()
        session = self._connection.session
        if session is not None:
            session.given_up(request)

    def _too_late(self, why: str) -> JobTimeout:
        seconds = monotonic() - self._began
        is_ours = self._ticket is not None and self._held is None
        held = "; the domain is held until there is one, and can be destroyed" if is_ours else ""
        return JobTimeout(f"{self.call.what}: {why} within {seconds:.1f} s{held}", job=self.job)

    def _fail(self, error: BaseException) -> None:
        self._disarm()
        self.call.settle(None, error)

    # -- the deadline

    def _arm(self, seconds: float | None) -> None:
        if seconds is not None:
            ms = min(max(0, -int(-seconds * 1000 // 1)), LONGEST_TIMEOUT)
            with contextlib.suppress(BridgeClosed, BridgeForked):  # then the connection is closed, too, and says so
                # By way of a list, to be emptied: a bridge may refer to a removed timeout until that would be due.
                self._expiring.append(self)
                self._timer = self._connection.bridge.add_timeout(ms, _expire, self._expiring)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, 0
        self._expiring.clear()
        if timer:
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                self._connection.bridge.remove_timeout(timer)


def _expire(id: int, asks: list[Ask]) -> None:
    for ask in tuple(asks):
        ask._expired()


def _name(domain: DomainRef | None) -> str | None:
    return None if domain is None else domain.name or domain.uuid or str(domain.id)
