"""A hypervisor that is connected to: its domains, its events, its calls, and what becomes of them when it is lost.

``async with eventbridge.connect(uri) as hv`` in a task; ``eventbridge.open(uri, bridge)`` on any loop.  Both are one
object.  Nothing of it blocks: what is asked is a `Call`.  Events flow from the driver through here to every subscriber,
in one order and without a gap in their numbers; what is known of the domains is kept by them (`inventory`).  When the
hypervisor is lost it is tried again, its events are registered before it is asked how its domains are, and the
difference is told as synthetic events (`resync`): the stream's implied state is the hypervisor's again by the time
``connection_restored`` is told.

`Connection`'s public methods may be called from any thread, but where they say otherwise; the rest is the loop's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from eventbridge.bridge import Bridge
from eventbridge.core.host import HostLoop
from eventbridge.core.mailbox import Mailbox, Step
from eventbridge.errors import BridgeClosed, BridgeForked, ConnectionLost, EventBridgeError, NoSuchDomain, UnknownHandle
from eventbridge.hypervisor.driver import Session
from eventbridge.hypervisor.events import DomainEvent, Emit, Kind
from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Jobs, Ticket

from . import shared_bridge
from .backoff import Backoff
from .call import Call, LongCall
from .domain import Domain
from .event_stream import LIMIT, EventStream, OnFull
from .inventory import Known, Told
from .invocation import Ask, Doing
from .job_events import JobEvents
from .resync import Resync
from .supervisor import Link, LinkState

T = TypeVar("T")
log = logging.getLogger(__name__)

RECONNECT = Backoff()
AUDIT_SECONDS = 60.0
"""Between two looks at whether the hypervisor says what its events said."""
SECOND_LOOK_SECONDS = 2.0
"""After a return: libvirtd 9.0.0, for one, does not tell that a guest has ended while it was on its way back to it."""


class Connection:
    """``uri`` on ``bridge``, being opened from now on; `opened` ends when it is open.

    ``reconnect``: how a hypervisor that was lost is tried again; None: not at all.  ``audit``: every so many seconds it
    is asked how its domains are, and what it has not told is told as synthetic events; None: never, but for a second
    look soon after a return.  ``on_close()`` is called when it is closed for good.  Use `connect` or `open`.
    """

    def __init__(
        self,
        uri: str,
        bridge: Bridge,
        *,
        reconnect: Backoff | None = RECONNECT,
        audit: float | None = AUDIT_SECONDS,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.uri = uri
        self.bridge = bridge
        self.jobs = Jobs(on_error=self._report)
        self.known = Known()
        self.under_way: dict[Request, None] = {}
        self._mailbox = Mailbox(bridge)
        self._job_events = JobEvents(self.known, self.jobs, self._tell, self._mailbox.put)
        self._passes = bridge.add_timeout(-1, self._pass)
        self._audit_seconds = audit
        self._audit = bridge.add_timeout(-1, self._look_again)
        self._after: list[list[Step]] = [[], []]
        self._link = Link(uri, bridge, self._mailbox, self, reconnect)
        self._on_close = on_close
        self._sequence = 0
        self._streams: tuple[EventStream, ...] = ()
        self._subscribers: tuple[Emit, ...] = ()
        self._resync: Resync | None = None
        self._is_known = False
        self._lost_at = 0.0
        self._closing: Call[None] | None = None
        self.opened: Call[Connection] = self.new_call("open")
        """Ends when it is open and its domains are known, or with the reason why it could not be opened."""
        self._link.open()

    # -- asking

    def domains(self) -> Call[list[Domain]]:
        """Every domain, running or not, as the hypervisor says now."""
        return self.ask("list", convert=lambda infos: [Domain(self, info.domain) for info in infos])

    def domain(self, name_or_uuid: str) -> Call[Domain]:
        """`NoSuchDomain` where there is none of that name or UUID."""
        known = self.known.named(name_or_uuid) if self.session is not None and self._is_known else None
        if known is None:  # just made, perhaps: the hypervisor knows first
            return self.ask(
                "list", what=f"domain {name_or_uuid}", convert=lambda infos: self._among(infos, name_or_uuid)
            )
        call: Call[Domain] = self.new_call(f"domain {name_or_uuid}")
        call.settle(Domain(self, known.ref))
        return call

    def create(self, definition: Any, *, paused: bool = False, timeout: float | None = None) -> Call[Domain]:
        """Start a domain that is not defined; ``definition`` is in the hypervisor's own words: libvirt's XML, libxl's
        JSON.  ``timeout``: seconds, here and everywhere.
        """
        arguments = {"definition": definition, "paused": paused}
        return self.ask("create", arguments=arguments, seconds=timeout, convert=self._as_domain)

    def define(self, definition: Any, *, timeout: float | None = None) -> Call[Domain]:
        """Make a domain known, without starting it."""
        return self.ask("define", arguments={"definition": definition}, seconds=timeout, convert=self._as_domain)

    def restore(self, path: str, *, paused: bool = False, definition: Any = None) -> LongCall[Domain]:
        """Bring back a domain that `Domain.save` has put into a file, on the hypervisor's host."""
        arguments = {"path": path, "paused": paused, "definition": definition}
        return self.ask_long("restore", what=f"restore {path}", arguments=arguments, convert=self._as_domain)

    # -- events

    def events(self, *, limit: int = LIMIT, on_full: OnFull = "resync") -> EventStream:
        """What happens from now on, for one reader; see `EventStream`.  The loop's thread."""
        stream = EventStream(self, limit, on_full)
        if self._link.state in (LinkState.CLOSED, LinkState.FAILED) or self.bridge.closed:
            stream.end()
        else:
            self._streams += (stream,)
        return stream

    def subscribe(self, on_event: Emit) -> Callable[[], None]:
        """Have ``on_event(event)`` called on the loop's thread, at once, for what happens from now on; returns what
        ends that.  The loop's thread.
        """
        self._subscribers += (on_event,)

        def unsubscribe() -> None:
            self._subscribers = tuple(other for other in self._subscribers if other is not on_event)

        return unsubscribe

    # -- its life

    @property
    def state(self) -> LinkState:
        return self._link.state

    @property
    def session(self) -> Session | None:
        """The driver's, while it is open."""
        return self._link.session

    @property
    def host(self) -> HostLoop:
        return self.bridge.host

    def close(self) -> Call[None]:
        """Tell no more events but the ends of the jobs that have begun, let nothing more be asked, and let go of the
        hypervisor; what is under way fails with `ConnectionLost`.  Idempotent.
        """
        if self._closing is None:
            self._closing = self.new_call("close")
            if not self._mailbox.put(self._close):
                self._closed()
        return self._closing

    async def __aenter__(self) -> Connection:
        try:
            return await self.opened
        except BaseException:
            self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.uri}: {self.state}, {len(self.known)} domains>"

    # -- for `Domain` and `Ask`

    def new_call(self, what: str) -> Call[Any]:
        return Call(self.bridge, self._mailbox, f"{self.uri}: {what}" if what in ("open", "close") else what)

    def ask(
        self,
        operation: str,
        domain: DomainRef | None = None,
        *,
        what: str = "",
        arguments: dict[str, Any] | None = None,
        seconds: float | None = None,
        nowait: bool = False,
        of: Ticket | None = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> Call[Any]:
        """Begin a call."""
        call = self.new_call(what or _words(operation, domain))
        self._begin(call, operation, domain, arguments, seconds, convert, nowait, of)
        return call

    def ask_long(
        self,
        operation: str,
        domain: DomainRef | None = None,
        *,
        what: str = "",
        arguments: dict[str, Any] | None = None,
        seconds: float | None = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> LongCall[Any]:
        """Begin one that takes as long as it takes."""
        call: LongCall[Any] = LongCall(self.bridge, self._mailbox, what or _words(operation, domain))
        self._begin(call, operation, domain, arguments, seconds, convert)
        return call

    def _begin(
        self,
        call: Call[Any],
        operation: str,
        domain: DomainRef | None,
        arguments: dict[str, Any] | None,
        seconds: float | None,
        convert: Callable[[Any], Any] | None,
        nowait: bool = False,
        of: Ticket | None = None,
    ) -> None:
        key = None if domain is None else self.known.key(domain)
        ask = Ask(self, call, operation, domain, arguments, key=key, seconds=seconds, convert=convert)
        ask.begin(nowait=nowait, of=of)

    def lost(self) -> ConnectionLost:
        link = self._link
        why = "" if link.last_error is None else f": {link.last_error}"
        tries = f", tried again {link.tries} times" if link.tries else ""
        seconds = time.monotonic() - link.since
        return ConnectionLost(f"{self.uri} is {link.state} since {seconds:.1f} s{tries}{why}")

    def suspect(self) -> None:
        self._mailbox.put(self._link.suspect)

    def job_began(self, doing: Doing) -> None:
        self._job_events.began(doing)

    def job_ended(self, doing: Doing, error: BaseException | None) -> None:
        self._job_events.ended(doing, error)

    # -- the loop's thread from here on; `supervisor.LinkOwner`

    def link_opened(self) -> None:
        self._resync = Resync(self, quiet=not self._is_known)
        if self.session is not None and "list" in self.session.operations:
            self._resync.begin()
        else:  # a driver that tells events alone: there is nothing to compare them with
            self.resynced(self._resync, None)

    def link_event(self, event: DomainEvent) -> None:
        resync = self._resync
        if resync is not None:
            resync.touched(event)
            if resync.is_echo(event):
                return
        if self._job_events.lets_pass(event):
            self._tell(event.kind, event.domain, event.reason, event.raw, event.synthetic, event.at)

    def link_lost(self, session: Session | None, reason: str | None, words: str) -> None:
        if self._resync is not None:
            self._resync.cancel()
            self._resync = None
        self._lost_at = self._lost_at or time.monotonic()
        self._refuse_all()
        self._tell(Kind.CONNECTION_LOST, None, reason, {"error": words})
        self._job_events.lose_theirs(words)
        self._fail_opening(ConnectionLost(f"{self.uri}: {words}"))

    def link_failed(self, error: Exception) -> None:
        self._fail_opening(error)
        # What is on its way to be told goes first, and so does the end of each job that was told to have begun.
        self.after_passes(lambda: self._job_events.when_none_is_open(self._end_streams))

    def _end_streams(self) -> None:
        for stream in self._streams:
            stream.end()

    def _fail_opening(self, error: Exception) -> None:
        if not self._is_known:
            self.opened.settle(None, error)

    # -- `resync.Resynced`

    def ask_plainly(
        self, operation: str, domain: DomainRef | None, answered: Callable[[Any, BaseException | None], object]
    ) -> None:
        call = self.new_call(_words(operation, domain))
        call.on_done(lambda call: answered(call._value, call.error))
        session = self.session
        if session is None:
            call.settle(None, self.lost())
            return
        request = Request(operation, domain, {}, _Plain(self, call))
        self.under_way[request] = None
        session.begin(request)

    def after_passes(self, step: Step) -> None:
        self._after[-1].append(step)
        self.bridge.update_timeout(self._passes, 0)

    def soon(self, step: Step) -> None:
        self._mailbox.put(step)

    def tell_missed(self, told: list[Told]) -> None:
        for kind, ref, reason in told:
            self._tell(kind, ref, reason, {}, True)

    def resynced(self, resync: Resync, error: BaseException | None) -> None:
        if error is not None:
            log.warning("%s: its domains cannot be compared with what is known: %s", self.uri, error)
            if self._is_known and not self._lost_at:  # it was open and well: perhaps the next time
                self._look_after(self._audit_seconds)
                return
            self._fail_opening(error if isinstance(error, Exception) else EventBridgeError(str(error)))
            self._link.lose("resync", f"it does not say how its domains are: {error}")
            return
        if self._lost_at:
            seconds, self._lost_at = time.monotonic() - self._lost_at, 0.0
            raw = {"tries": self._link.tries, "seconds": seconds, "synthetic": resync.told}
            self._tell(Kind.CONNECTION_RESTORED, None, None, raw)
            self._look_after(SECOND_LOOK_SECONDS)
        else:
            self._look_after(self._audit_seconds)
        self._is_known = True
        self.opened.settle(self)

    def _look_after(self, seconds: float | None) -> None:
        self.bridge.update_timeout(self._audit, -1 if seconds is None else int(seconds * 1000))

    def _look_again(self, id: int, opaque: object) -> None:
        """What a hypervisor's events leave out is found all the same."""
        self._look_after(None)
        if self.state is LinkState.OPEN:
            self.link_opened()

    def _pass(self, id: int, opaque: object) -> None:
        """In every pass while there is something to be done after the next."""
        due, waiting = self._after
        self._after = [waiting, []]
        if not due and not waiting:
            self.bridge.update_timeout(self._passes, -1)
        for step in due:
            step()

    # -- telling

    def _tell(
        self,
        kind: Kind,
        ref: DomainRef | None,
        reason: str | None,
        raw: Any,
        synthetic: bool = False,
        at: float | None = None,
    ) -> None:
        if kind is Kind.STOPPED and ref is not None:
            self._job_events.domain_ended(self.known.key(ref))
        self._sequence += 1
        event = DomainEvent(
            kind, ref, reason, self.uri, self._sequence, time.time() if at is None else at, synthetic, raw
        )
        before, key = None, None
        if ref is not None:
            key = self.known.key(ref)
            before = self.known.get(key)
            self.known.apply(event)
            if before is not None and key not in self.known:
                self.jobs.gone(key)
        for stream in self._streams:
            stream.put(event, key, before)
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception as error:
                self._report(error, f"of a subscriber, told of {event}")

    # -- the end

    def leave(self, stream: EventStream) -> None:
        self._streams = tuple(other for other in self._streams if other is not stream)

    def _close(self) -> None:
        if self._resync is not None:
            self._resync.cancel()
        self._link.close(self._closed)
        self._refuse_all()
        self.opened.settle(None, ConnectionLost(f"{self.uri}: it was closed before it had opened"))
        self._job_events.close(self.lost())
        self._end_streams()
        self._streams, self._subscribers = (), ()

    def _closed(self) -> None:
        """The session is closed: on a thread of its own."""
        if not self._mailbox.put(self._gone):
            self._gone()

    def _gone(self) -> None:
        assert self._closing is not None
        with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
            self.bridge.remove_timeout(self._passes)
            self.bridge.remove_timeout(self._audit)
        self._closing.settle(None)
        # What was to be told goes first: the mailbox takes it in order.
        if not self._mailbox.put(self._let_go):
            self._mailbox.close()
            self._on_close()

    def _let_go(self) -> None:
        try:
            self._mailbox.finish()  # a call that ends just now is told so
        finally:
            self._on_close()

    def _refuse_all(self) -> None:
        """What the session was at it will not answer any more."""
        error = self.lost()
        for request in list(self.under_way):
            request.refuse(ConnectionLost(f"{_words(request.operation, request.domain)}: {error}"))

    def _report(self, error: BaseException, context: str) -> None:
        self.bridge._report(error, context)

    # -- answers

    def _as_domain(self, ref: DomainRef | DomainInfo) -> Domain:
        return Domain(self, ref.domain if isinstance(ref, DomainInfo) else ref)

    def _among(self, infos: Iterable[DomainInfo], name_or_uuid: str) -> Domain:
        for info in infos:
            if name_or_uuid in (info.domain.name, info.domain.uuid) or name_or_uuid.lower() == info.domain.uuid:
                return Domain(self, info.domain)
        raise NoSuchDomain(f"{self.uri}: there is no domain {name_or_uuid!r}", operation="domain", domain=name_or_uuid)


class _Plain:
    """A `request.Reply` for what is asked without a job."""

    def __init__(self, connection: Connection, call: Call[Any]) -> None:
        self._connection = connection
        self._call = call

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self._connection.under_way.pop(request, None)
        self._call.settle(value, error)

    def progressed(self, request: Request, progress: object) -> None:
        """Nobody asks."""


def _words(operation: str, domain: DomainRef | None) -> str:
    name = operation.replace("_", " ")
    return name if domain is None else f"{name} of {domain.name or domain.uuid or domain.id}"


def open(
    uri: str, bridge: Bridge, *, reconnect: Backoff | None = RECONNECT, audit: float | None = AUDIT_SECONDS
) -> Connection:
    """A connection on a bridge of yours, on any loop; returns at once: see `Connection.opened`.  Any thread."""
    return Connection(uri, bridge, reconnect=reconnect, audit=audit)


def connect(
    uri: str,
    *,
    bridge: Bridge | None = None,
    reconnect: Backoff | None = RECONNECT,
    audit: float | None = AUDIT_SECONDS,
) -> Connection:
    """A connection on the loop that is running in this thread, for ``async with``.  All those of one loop share a
    bridge, which lives as long as they do, unless one is given.
    """
    if bridge is not None:
        return Connection(uri, bridge, reconnect=reconnect, audit=audit)
    lease = shared_bridge.lease()
    return Connection(uri, lease.bridge, reconnect=reconnect, audit=audit, on_close=lease.end)
