"""One subscription to the domains of a Xen host, whichever library tells of them.

xenstored says that some domain has come or gone, and not which; a library, the `Toolstack`, knows the domains and,
of those it follows, tells how they end.  The lookout joins the two: it surveys the domains when one has come, has
each new one followed, and looks at it once more after that, so that nothing falls between the look and the following.

Three threads meet here.  The toolstack tells its facts on whichever is inside its library (`Facts`: hook side); they
go through the mailbox to the loop's thread, which alone knows the `Lives` and emits.  What may block, for xenstored may
be frozen, is done by the lookout's own worker.  No lock is held while any of them calls another.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from eventbridge.bridge import Bridge
from eventbridge.domain import DomainRef
from eventbridge.errors import BridgeClosed, BridgeForked, ConnectionLost, EventBridgeError, UnknownHandle
from eventbridge.events import DomainEvent, Emit, Sequencer
from eventbridge.mailbox import Mailbox

from ..xenstore.source import WatchSource
from ..xenstore.store import INTRODUCED, RELEASED, Store, Watched
from .lives import Lives

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
"""How long `Lookout.close` waits for a worker that is inside a library."""
_TOKEN = "eventbridge"


class Seen(NamedTuple):
    """A domain that exists; the shutdown reason where its guest has stopped."""

    ref: DomainRef
    reason: int | None


class Facts(Protocol):
    """What a toolstack tells, as often as it likes; hook side."""

    mailbox: Mailbox
    store: Store
    """For the worker's thread: its calls block."""
    on_watch: Callable[[Watched], None]
    """A toolstack's, for the watches of its own that it sets on ``store``; on the worker's thread."""

    def shut_down(self, domid: int, reason: int) -> None: ...

    def gone(self, domid: int) -> None: ...

    def ejected(self, domid: int, vdev: str) -> None: ...


class Toolstack(Protocol):
    """A library that knows the domains.  On the worker's thread, but for `close`; all of it may block on xenstored."""

    tells_ends: bool
    """Does it tell by itself how the domains end that it follows?  If not, it is asked again at every change."""

    def list(self) -> list[Seen]:
        """All domains but domain 0.  Names may be left out here."""

    def look(self, domid: int) -> Seen | None:
        """One domain; None where it is gone."""

    def follow(self, domid: int) -> None:
        """From now on tell how it ends, and of its disks; if that was told of it before, once more how it ends."""

    def forget(self, domid: int) -> None:
        """It has ended: free what `follow` made."""

    def close(self) -> None:
        """Nothing is told after this.  Any thread but inside the library; never waits for a dead xenstored."""


OpenToolstack = Callable[[str, Bridge, Facts], Toolstack]
OnLost = Callable[[str], object]
"""Called once on the loop's thread where xenstored has gone, after that was told: how that shows."""


class Lookout:
    """See above.  A `eventbridge.drivers.Subscription`, and the `Facts` of its toolstack."""

    def __init__(self, uri: str, bridge: Bridge, emit: Emit, store: Store, on_lost: OnLost) -> None:
        self.uri = uri
        self.store = store
        self._on_lost = on_lost
        self._bridge = bridge
        self._emit = emit
        self._toolstack: Toolstack | None = None
        self._lives = Lives(Sequencer(uri, self._pass_on))
        self._followed: dict[int, str | None] = {}  # domid: UUID.  The worker's
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._run, name=f"lookout {uri}", daemon=True)
        self._surveying = False
        self._closing = threading.RLock()  # held while an event is emitted, so that none is after `close`
        self._closed = False
        self.on_watch: Callable[[Watched], None] = lambda watched: None
        self.mailbox = Mailbox(bridge)
        self._source = WatchSource(store, self._fired, self._lost, self._look_at_suspended)
        self._attached = False

    @classmethod
    def open(
        cls,
        uri: str,
        bridge: Bridge,
        emit: Emit,
        store: Store,
        open_toolstack: OpenToolstack,
        on_lost: OnLost = lambda words: None,
    ) -> Lookout:
        """Watch ``uri`` from now on; ``store`` is the lookout's from here on.  Blocks; leaves nothing behind where it
        raises.
        """
        try:
            lookout = cls(uri, bridge, emit, store, on_lost)
        except BaseException:
            store.close()
            raise
        try:
            lookout._toolstack = open_toolstack(uri, bridge, lookout)
            # Watched first: who comes after the survey is announced.
            store.watch(INTRODUCED, _TOKEN)
            store.watch(RELEASED, _TOKEN)
            lookout._survey(opening=True)
            bridge.add_source(lookout._source)
            lookout._attached = True
        except BaseException:
            lookout.close()
            raise
        lookout._worker.start()
        return lookout

    @property
    def toolstack(self) -> Toolstack:
        """Of one that is open."""
        assert self._toolstack is not None
        return self._toolstack

    # -- Facts: hook side

    def shut_down(self, domid: int, reason: int) -> None:
        self.mailbox.put(functools.partial(self._lives.shut_down, domid, reason))

    def gone(self, domid: int) -> None:
        self.mailbox.put(functools.partial(self._gone, domid))

    def ejected(self, domid: int, vdev: str) -> None:
        self.mailbox.put(functools.partial(self._lives.ejected, domid, vdev))

    def paused(self, domid: int) -> None:
        """It was paused from here: Xen announces nothing of that."""
        self.mailbox.put(functools.partial(self._lives.paused, domid))

    def unpaused(self, domid: int) -> None:
        self.mailbox.put(functools.partial(self._lives.unpaused, domid))

    def leaving(self, domid: int) -> None:
        """It is to be ended, for it runs elsewhere."""
        self.mailbox.put(functools.partial(self._lives.leaving, domid))

    def stays(self, domid: int) -> None:
        """It does not, after all."""
        self.mailbox.put(functools.partial(self._lives.leaving, domid, False))

    def renamed(self, domid: int, name: str) -> None:
        self.mailbox.put(functools.partial(self._lives.renamed, domid, name))

    # -- the loop's thread

    def _gone(self, domid: int) -> None:
        if domid not in self._lives:
            return  # told already
        uuid = self._lives.ref(domid).uuid
        self._lives.gone(domid)
        self._work.put(functools.partial(self._forget, domid, uuid))

    def _fired(self, watched: Watched) -> None:
        assert self._toolstack is not None
        if watched.token != _TOKEN:
            self._work.put(functools.partial(self.on_watch, watched))
        elif watched.path == INTRODUCED or not self._toolstack.tells_ends:
            self._ask_for_survey()
        else:
            self._look_at_suspended()

    def _lost(self, error: ConnectionLost) -> None:
        self._lives.lost("eof", str(error))
        self._on_lost(str(error))

    def _pass_on(self, event: DomainEvent) -> None:
        with self._closing:
            if not self._closed:
                self._emit(event)

    def _ask_for_survey(self) -> None:
        """One at a time, and one more if somebody comes during it."""
        if not self._surveying:
            self._surveying = True
            self._work.put(self._survey)

    def _look_at_suspended(self) -> None:
        """Nothing announces that a domain was resumed."""
        suspended = self._lives.suspended()
        if suspended:
            self._work.put(functools.partial(self._see_who_runs, suspended))

    # -- the worker's thread

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            try:
                job()
            except ConnectionLost as error:  # the source notices it too, and tells
                log.debug("%s: %s", self.uri, error)
            except EventBridgeError as error:
                log.warning("%s: %s", self.uri, error)
            except Exception:
                log.exception("%s: a look at its domains failed", self.uri)

    def _survey(self, opening: bool = False) -> None:
        assert self._toolstack is not None
        self._surveying = False  # who comes from here on wants another
        there = {seen.ref.id: seen for seen in self._toolstack.list()}
        for domid in [domid for domid in self._followed if domid not in there]:
            self.gone(domid)
        for seen in there.values():
            self._take_in(seen, opening)

    def _take_in(self, seen: Seen, opening: bool) -> None:
        assert self._toolstack is not None and seen.ref.id is not None
        domid, uuid = seen.ref.id, seen.ref.uuid
        if domid in self._followed:
            if self._followed[domid] == uuid:
                return
            self.gone(domid)
            self._forget(domid, self._followed[domid])
        if seen.ref.name is None:
            seen = self._toolstack.look(domid) or seen
            if seen.ref.name is None and not opening and not self.store.is_introduced(domid):
                return  # it is being made, and is introduced once it has its name
        self._followed[domid] = uuid
        if opening:
            self.mailbox.put(functools.partial(self._lives.found, seen.ref, seen.reason))
        else:
            self.mailbox.put(functools.partial(self._lives.appeared, seen.ref))
        self._toolstack.follow(domid)
        self._look_again(domid)

    def _look_again(self, domid: int) -> None:
        """What happened before it was followed."""
        assert self._toolstack is not None
        seen = self._toolstack.look(domid)
        if seen is None:
            self.gone(domid)
        elif seen.reason is not None:
            self.shut_down(domid, seen.reason)

    def _see_who_runs(self, suspended: list[int]) -> None:
        """libxl tells of a domain's shutdown once; of one that was resumed it must be asked anew."""
        assert self._toolstack is not None
        for domid in suspended:
            seen = self._toolstack.look(domid)
            if seen is not None and seen.reason is None and domid in self._followed:
                self.mailbox.put(functools.partial(self._lives.resumed, domid))
                self._toolstack.follow(domid)
                self._look_again(domid)

    def _forget(self, domid: int, uuid: str | None) -> None:
        """Unless the domid is another domain's by now."""
        if self._toolstack is not None and self._followed.get(domid, "") == uuid:
            del self._followed[domid]
            self._toolstack.forget(domid)

    # -- the end

    def close(self) -> None:
        """As `eventbridge.drivers.Subscription.close`.  Waits at most `CLOSE_SECONDS` for a library that hangs, and
        leaves it to itself then.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._work.put(None)
        if self._attached:
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                self._bridge.remove_source(self._source)  # which closes the store, on the loop's thread
        else:
            self.store.close()
        self.mailbox.close()
        if self._worker.ident is not None and self._worker is not threading.current_thread():
            self._worker.join(CLOSE_SECONDS)
        if self._toolstack is not None:
            self._toolstack.close()
