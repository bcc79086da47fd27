"""One subscription to the domains of a Xen host, whichever library tells of them.

xenstored says that some domain has come or gone, and not which; a library, the `Toolstack`, knows the domains and,
of those it follows, tells how they end.  The lookout joins the two: it surveys the domains when one has come, has
each new one followed, and looks at it once more after that, so that nothing falls between the look and the following.

Three threads meet here.  The toolstack tells its facts on whichever is inside its library (`Facts`: hook side); they
go through the mailbox to the loop's thread, which alone knows the `Lives` and emits.  What may block, for xenstored may
be frozen, is done by the lookout's own worker.  No lock is held while any of them calls another.

A domain's end is told last, for it says why the domain ended, and each thread may know that before it has said so.  So
an end that the library tells goes to the worker first, behind the worker's own looks; the worker asks the toolstack
once more, for a domain that is dying is listed still and says how its guest had stopped; and the end comes back to the
loop's thread behind all that the library has told that thread (`Lookout._last`).  Likewise an answer that shows a
domain gone waits until its end was emitted (`Lookout.up_to_date`), and so does the loss of the connection.

The limit: a guest that stops, and whose domain is destroyed and has vanished from Xen's list before the library or the
worker has looked, ends as "destroyed".  Xen keeps no record of a domain, and xenstored announces that some domain has
stopped and not why: nothing that could be asked knows better.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.mailbox import Mailbox, Step
from eventbridge.errors import BridgeClosed, BridgeForked, ConnectionLost, EventBridgeError, UnknownHandle
from eventbridge.hypervisor.events import DomainEvent, Emit, Sequencer
from eventbridge.hypervisor.model import DomainRef

from .lifecycle import Lives
from .xenstore.source import WatchSource
from .xenstore.store import INTRODUCED, RELEASED, Store, Watched

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
"""How long `Lookout.close` waits for a worker that is inside a library."""
_TOKEN = "eventbridge"


class Seen(NamedTuple):
    """A domain that Xen lists; the shutdown reason if its guest has stopped."""

    ref: DomainRef
    reason: int | None
    dying: bool = False
    """It has been destroyed, and is listed until the last of its memory is given back: it counts as gone."""


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

    def list(self) -> list[Seen]:
        """All domains but domain 0, those that are dying too.  Names may be left out here."""

    def look(self, domid: int) -> Seen | None:
        """One domain; None if Xen does not list it.  Of one that is dying the name may be left out; then, and if it is
        not listed, nothing is asked of xenstored, for it may be gone.
        """

    def follow(self, domid: int) -> None:
        """From now on tell how it ends, and of its disks; if that was told of it before, once more how it ends."""

    def forget(self, domid: int) -> None:
        """It has ended: free what `follow` made."""

    def close(self) -> None:
        """Nothing is told after this.  Any thread but inside the library; never waits for a dead xenstored."""


OpenToolstack = Callable[[str, BridgeCore, Facts], Toolstack]
OnLost = Callable[[str], object]
"""Called once on the loop's thread where xenstored has gone, after that was told: how that shows."""


class UpToDate:
    """What a request waits for: an `eventbridge.adapters.hypervisors.xen.call.Awaited` of `Lookout.up_to_date`."""

    error = None

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout

    def on_done(self, callback: Callable[[Any], object]) -> None:
        self._lookout.when_up_to_date(functools.partial(callback, self))


class Lookout:
    """See above.  A `eventbridge.hypervisor.driver.Subscription`, and the `Facts` of its toolstack."""

    def __init__(self, uri: str, bridge: BridgeCore, emit: Emit, store: Store, on_lost: OnLost) -> None:
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
        bridge: BridgeCore,
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
        self.mailbox.put(functools.partial(self._has_gone, domid))

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

    def suspect(self) -> None:
        """A call has found xenstored gone: see whether it has, before the next probe."""
        self.mailbox.put(functools.partial(self._source.drain, 0))

    def up_to_date(self) -> UpToDate:
        """Ends when all has been emitted that Xen shows by now, so that an answer never shows more than the events."""
        return UpToDate(self)

    def when_up_to_date(self, then: Step) -> None:
        """Have ``then()`` called on the loop's thread at that moment; never, if the lookout is closed before."""
        self._work.put(functools.partial(self._survey_and, then))

    # -- the loop's thread

    def _has_gone(self, domid: int) -> None:
        """The library says so."""
        if domid not in self._lives:
            return  # told already
        uuid = self._lives.ref(domid).uuid
        if self._lives.is_explained(domid):
            self._end(domid, uuid)
        else:
            self._work.put(functools.partial(self._look_for_its_end, domid, uuid))

    def _end(self, domid: int, uuid: str | None) -> None:
        if domid in self._lives and self._lives.ref(domid).uuid == uuid:
            self._lives.gone(domid)
        self._work.put(functools.partial(self._forget, domid, uuid))

    def _end_and_survey(self, domid: int, uuid: str | None) -> None:
        """Its domid is another domain's by now, which is taken in when this one's end was told."""
        self._end(domid, uuid)
        self._ask_for_survey()

    def _fired(self, watched: Watched) -> None:
        if watched.token != _TOKEN:
            self._work.put(functools.partial(self.on_watch, watched))
            return
        # Also if a domain was released: the library's own watch may be late, and the domain gone by then.
        self._ask_for_survey()
        if watched.path == RELEASED:
            self._look_at_suspended()

    def _lost(self, error: ConnectionLost) -> None:
        # Behind all that is on its way, and a last look: hypercalls need no xenstored.
        self._work.put(functools.partial(self._survey_and, functools.partial(self._tell_lost, str(error))))

    def _tell_lost(self, words: str) -> None:
        self._lives.lost("eof", words)
        self._on_lost(words)

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
        found = {seen.ref.id: seen for seen in self._toolstack.list()}
        # First what became of those that are followed: this needs no xenstored, which may have gone.
        for domid, uuid in list(self._followed.items()):
            seen = found.get(domid)
            if seen is None:
                self._look_for_its_end(domid, uuid)  # a library's list may be cut off: it is asked by itself
            elif seen.ref.uuid == uuid:
                self._note(domid, uuid, seen)
            else:
                self._last(functools.partial(self._end_and_survey, domid, uuid))
        for seen in found.values():
            if not seen.dying:
                self._take_in(seen, opening)

    def _survey_and(self, then: Step) -> None:
        """Have ``then()`` called on the loop's thread when all that shows in a survey of now was told."""
        try:
            self._survey()
        finally:
            self._last(then)

    def _take_in(self, seen: Seen, opening: bool) -> None:
        assert self._toolstack is not None and seen.ref.id is not None
        domid = seen.ref.id
        if domid in self._followed:
            return
        if seen.ref.name is None:
            seen = self._toolstack.look(domid) or seen
        if seen.ref.name is None:
            if not self.store.is_introduced(domid) and not opening:
                return  # it is being made, and is introduced once it has its name
            # It may have got its name, and been introduced, since it was looked at.
            seen = self._toolstack.look(domid) or seen
        uuid = self._followed[domid] = seen.ref.uuid
        if opening:
            self.mailbox.put(functools.partial(self._lives.found, seen.ref, seen.reason))
        else:
            self.mailbox.put(functools.partial(self._lives.appeared, seen.ref))
        self._toolstack.follow(domid)
        self._note(domid, uuid, self._toolstack.look(domid))  # what happened before it was followed

    def _look_for_its_end(self, domid: int, uuid: str | None) -> None:
        """It has gone, says a library; by itself it may say why, or that it has not."""
        assert self._toolstack is not None
        seen = None
        with contextlib.suppress(EventBridgeError):
            seen = self._toolstack.look(domid)
        self._note(domid, uuid, seen)

    def _note(self, domid: int, uuid: str | None, seen: Seen | None) -> None:
        """How one that is followed is now."""
        if seen is None or seen.ref.uuid != uuid:
            self._last(functools.partial(self._end, domid, uuid))
            return
        if seen.reason is not None:
            self.shut_down(domid, seen.reason)
        if seen.dying:
            self._last(functools.partial(self._end, domid, uuid))

    def _last(self, step: Step) -> None:
        """Have ``step()`` called on the loop's thread, behind all that the library has seen by now.

        The loop's thread may be inside the library, with a fact that it has not put into the mailbox yet.  It takes no
        step there: when it takes the first of these two, that fact is in the mailbox, and the second is behind it.
        (A thread that libxl runs its own loop on, within a synchronous call, is not waited for: such a call may take
        minutes.  Of those there are few, and what libxl tells them they put into the mailbox at once.)
        """
        self.mailbox.put(functools.partial(self.mailbox.put, step))

    def _see_who_runs(self, suspended: list[int]) -> None:
        """libxl tells of a domain's shutdown once; of one that was resumed it must be asked anew."""
        assert self._toolstack is not None
        for domid in suspended:
            seen = self._toolstack.look(domid)
            if seen is not None and seen.reason is None and not seen.dying and domid in self._followed:
                self.mailbox.put(functools.partial(self._lives.resumed, domid))
                self._toolstack.follow(domid)
                self._note(domid, self._followed[domid], self._toolstack.look(domid))

    def _forget(self, domid: int, uuid: str | None) -> None:
        """Unless the domid is another domain's by now."""
        if self._toolstack is not None and self._followed.get(domid, "") == uuid:
            del self._followed[domid]
            self._toolstack.forget(domid)

    # -- the end

    def close(self) -> None:
        """As `eventbridge.hypervisor.driver.Subscription.close`.  Waits at most `CLOSE_SECONDS` for a library that
        hangs, and leaves it to itself then.
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
