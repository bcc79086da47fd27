"""A Xen host that is open: what its lookout tells, and what can be asked of it, whichever library does it.

The events are the lookout's.  What can be asked is the library's table, from an operation's name to a function (see
call.py), which this has called on the workers' threads; nothing here blocks but `close`.  When xenstored has gone,
which the lookout finds out, or after `close`, whatever is under way is refused with `ConnectionLost`: its library may
never come back to say how it went.  What it says then is nobody's any more.

Any thread.  The lock is held over the set of calls alone.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.hypervisor.events import Emit
from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.hypervisor.worker_pool import Work, Workers
from eventbridge.jobs import JobAborted

from .call import Call, Steps
from .domain_watcher import Lookout, OpenToolstack
from .errors import Refusals, of
from .resolve import Resolver
from .xenstore.store import Store

log = logging.getLogger(__name__)

CLOSE_SECONDS = 12.0
"""How long `XenSession.close` waits for what takes long, that it has cut short, to be put back as it was.  A guest that
was told to stop itself for a save has 10 s for that (``libxl.save_restore``), and would be left standing before."""
# What is cut short once nobody waits for it: it waits for a guest that may be deaf, and holds its domain meanwhile.
CUT_SHORT = frozenset(("shutdown", "reboot"))
# What is cut short at the end, because somebody must put a guest back.
LONG = frozenset(("create", "restore", "save", "migrate", "migrate_prepare"))

Table = Mapping[str, Work]


class XenSession:
    """`eventbridge.hypervisor.driver.Session`.  `open` makes it; ``store`` is the lookout's connection to xenstored."""

    store: Store
    find: Callable[[DomainRef], DomainRef]
    domid: Callable[[DomainRef], int]

    def __init__(self, uri: str, bridge: BridgeCore) -> None:
        self.uri = uri
        self.bridge = bridge
        self.workers = Workers(uri)
        self.lookout: Lookout
        self._table: Table = {}
        self._refusals: Refusals
        self._lock = threading.Condition()
        self._under_way: set[Call] = set()
        self._ended: str | None = None
        """Why nothing can be asked any more."""
        self._closed = False
        self.at_close: list[Callable[[], object]] = []
        """What else is to be ended by `close`, first."""

    @classmethod
    def open(
        cls,
        uri: str,
        bridge: BridgeCore,
        emit: Emit,
        store: Store,
        open_toolstack: OpenToolstack,
        calls: Callable[[XenSession, Any], tuple[Resolver, Table]],
    ) -> XenSession:
        """As `Lookout.open`; ``calls(session, toolstack)`` says what its library can be asked, and finds domains."""
        session = cls(uri, bridge)
        session.store = store
        session.lookout = Lookout.open(uri, bridge, emit, store, open_toolstack, session._refuse_all)
        resolver, table = calls(session, session.lookout.toolstack)
        session._table = {**table, **{name: session._told_first(table[name]) for name in ("list", "info")}}
        session.find, session.domid = resolver.find, resolver.domid
        session._refusals = Refusals(uri, store, resolver.find)
        return session

    # -- what is asked

    @property
    def operations(self) -> frozenset[str]:
        return frozenset(self._table)

    def begin(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.begin`."""
        call = Call(self, request, self._table[request.operation])
        with self._lock:
            ended = self._ended
            if ended is None:
                self._under_way.add(call)
        if ended is None:
            call.begin()
        else:
            request.refuse(self._lost(request, ended))

    def given_up(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.given_up`."""
        self.workers.make_room()
        if request.operation in CUT_SHORT:
            request.abort()

    def domid_of(self, request: Request) -> int:
        """Of the domain that it is about, which something is to be done to.  Blocks."""
        assert request.domain is not None
        return self.domid(request.domain)

    def named(self, info: DomainInfo) -> DomainInfo:
        """As it is, unless it has no name because xenstored has gone: `ConnectionLost`.  Blocks."""
        if info.domain.name is None:
            self._refusals.must_live()
        return dataclasses.replace(info, persistent=False)  # Xen keeps no domain that has ended

    def cuts_short(self, request: Request, abort: Callable[[], object]) -> None:
        """From now on ``abort()``, which may block, and may be too late, cuts it short."""
        request.abortable(lambda: self.aside(abort))

    def aside(self, work: Callable[[], object]) -> None:
        """Have something done that would block this thread, and whose failure is only logged.  On a thread of its own:
        it is not to wait for workers that hang, and may be wanted after `close`.
        """

        def run() -> None:
            try:
                work()
            except EventBridgeError as error:
                log.info("%s", error)

        threading.Thread(target=run, name=f"aside of {self.uri}", daemon=True).start()

    def _told_first(self, look: Work) -> Work:
        """``look``, whose answer waits until what it shows was told as events.

        A connection compares its domains with what is known from the events, and for whatever is missing it says
        "inferred": a domain's end would be told without the reason that is on its way.
        """

        def steps(request: Request) -> Steps:
            try:
                answer = look(request)
            except HypervisorError:
                yield self.lookout.up_to_date()  # it may say that the domain has ended
                raise
            if request.operation == "list":  # what one domain's answer shows is told by the next survey
                yield self.lookout.up_to_date()
            return answer

        return steps

    # -- steps.Owner

    def understood(self, request: Request, error: HypervisorError | ConnectionLost) -> Exception:
        return self._refusals.understood(request, error)

    def over(self, call: Call, error: BaseException | None) -> None:
        with self._lock:
            self._under_way.discard(call)
            ended = self._ended
            self._lock.notify_all()
        if error is not None:
            if ended is None and isinstance(error, ConnectionLost):
                self.lookout.suspect()  # its last look at the domains comes before the connection is given up
            if ended is not None and isinstance(error, JobAborted | HypervisorError):
                error = self._lost(call.request, f"{ended}: {error}")
            call.request.refuse(error)

    # -- the end of the connection: the loop's thread, or whichever closes it

    def _refuse_all(self, why: str) -> None:
        with self._lock:
            self._ended = self._ended or why
            left, self._under_way = self._under_way, set()
            self._lock.notify_all()
        for call in left:
            call.request.refuse(self._lost(call.request, why))

    def _lost(self, request: Request, why: str) -> ConnectionLost:
        return ConnectionLost(f"{self.uri}: cannot {request.operation}{of(request.domain)}: {why}")

    def close(self) -> None:
        """As `eventbridge.hypervisor.driver.Subscription.close`.  What takes long is cut short first, and has
        `CLOSE_SECONDS` to leave its guest as it was, unless this thread is the loop's, which is needed for that.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            alive = self._ended is None
            self._ended = self._ended or "the connection was closed"
        for end in list(self.at_close):
            end()
        if alive:
            self._cut_short()
        self._refuse_all("the connection was closed")
        self.workers.close()
        self.lookout.close()

    def _cut_short(self) -> None:
        with self._lock:
            long = {call for call in self._under_way if call.request.operation in LONG}
        for call in long:
            call.request.abort()
        if long and not self.bridge.is_loop_thread():
            with self._lock:
                self._lock.wait_for(lambda: not long & self._under_way, CLOSE_SECONDS)
        for call in long & self._under_way:
            log.warning("%s: closed while %r was not done", self.uri, call.request)
