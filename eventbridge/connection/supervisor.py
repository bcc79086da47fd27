"""The way to one hypervisor: opened, lost, opened again, closed.

Opening a hypervisor may block, and so may closing one that has died: each is done on a thread of its own, and what
came of it is told on the loop's thread.  An *epoch* is one session, from the beginning of its opening to its loss; what
a session still tells when its epoch is over is dropped.

All state belongs to the loop's thread.  Whose link it is is told on that thread, too.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Protocol

from eventbridge.bridge import Bridge
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import BridgeClosed, BridgeForked, ConnectionLost, UnknownHandle
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.driver import Session, Subscription
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.request import Request

from .backoff import Backoff

SUSPICION_SECONDS = 1.0
"""How long a hypervisor has to tell by itself that it has gone, once a call has found it so."""

log = logging.getLogger(__name__)


class LinkState(enum.StrEnum):
    OPENING = "opening"
    OPEN = "open"
    LOST = "lost"
    """It is tried again, from time to time."""
    FAILED = "failed"
    """It could not be opened, or no more."""
    CLOSED = "closed"


class LinkOwner(Protocol):
    """Whose link it is.  The loop's thread."""

    def link_opened(self) -> None:
        """For the first time, or again."""

    def link_event(self, event: DomainEvent) -> None:
        """Something has happened, perhaps before `link_opened`."""

    def link_lost(self, session: Session | None, reason: str | None, words: str) -> None:
        """``session`` answers no more; None where opening it again has failed."""

    def link_failed(self, error: Exception) -> None:
        """It is not tried again."""


class Link:
    """``waits``: how often and when it is tried again after a loss; None: never."""

    def __init__(self, uri: str, bridge: Bridge, mailbox: Mailbox, owner: LinkOwner, backoff: Backoff | None) -> None:
        self.uri = uri
        self.state = LinkState.OPENING
        self.session: Session | None = None
        self.tries = 0
        """Of opening it again, since it was lost."""
        self.since = monotonic()
        """When it came into its state."""
        self.last_error: Exception | None = None
        self._bridge = bridge
        self._mailbox = mailbox
        self._owner = owner
        self._backoff = backoff
        self._waits: Iterator[float] = iter(())
        self._epoch = 0
        self._was_open = False
        self._gone_early: DomainEvent | None = None
        self._timer = bridge.add_timeout(-1, self._due)
        self._suspicion = bridge.add_timeout(-1, self._unexplained)
        bridge.links.add(self)
        self._tell()

    @property
    def state_name(self) -> str:
        """Return the state, for observers."""
        return str(self.state)

    @property
    def owner(self) -> LinkOwner:
        """Return the connection, for observers."""
        return self._owner

    def open(self) -> None:
        """Begin to.  Any thread, once."""
        self._in_a_thread(self._open, self._epoch)

    def close(self, closed: Callable[[], object]) -> None:
        """For good; ``closed()`` is called when the session is, on a thread of its own.  Idempotent but for that."""
        self._epoch += 1
        session, self.session = self.session, None
        self._to(LinkState.CLOSED)
        self._bridge.links.discard(self)
        for timer in (self._timer, self._suspicion):
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                self._bridge.remove_timeout(timer)
        self._in_a_thread(self._close, session, closed)

    def suspect(self) -> None:
        """A call found the hypervisor gone; where it does not say so itself, soon, it counts as lost."""
        if self.state is LinkState.OPEN:
            self._bridge.update_timeout(self._suspicion, int(SUSPICION_SECONDS * 1000))

    def lose(self, reason: str | None, words: str) -> None:
        """The session is of no use any more: drop it, and open another, in time."""
        if self.state is not LinkState.OPEN:
            return
        self._epoch += 1
        session, self.session = self.session, None
        self._bridge.update_timeout(self._suspicion, -1)
        self._to(LinkState.LOST, words)
        self._in_a_thread(self._close, session, _nothing)
        self._owner.link_lost(session, reason, words)
        self.tries = 0
        self._waits = iter(()) if self._backoff is None else self._backoff.waits()
        self._try_again(ConnectionLost(f"{self.uri}: {words}"))

    # -- the loop's thread

    def _try_again(self, error: Exception) -> None:
        if self.state is not LinkState.LOST:  # closed meanwhile, by who was told
            return
        wait = next(self._waits, None)
        if wait is not None:
            self._bridge.update_timeout(self._timer, max(1, int(wait * 1000)))
            return
        self._to(LinkState.FAILED)
        self._owner.link_failed(error)

    def _due(self, id: int, opaque: object) -> None:
        self._bridge.update_timeout(self._timer, -1)
        self.tries += 1
        self._in_a_thread(self._open, self._epoch)

    def _unexplained(self, id: int, opaque: object) -> None:
        self._bridge.update_timeout(self._suspicion, -1)
        self.lose("unexplained", "its calls fail as if it had gone, and it does not say why")

    def _told(self, epoch: int, event: DomainEvent) -> None:
        if epoch != self._epoch:
            return
        if event.kind is Kind.CONNECTION_LOST:
            self._has_gone(event)
        else:
            self._owner.link_event(event)

    def _has_gone(self, event: DomainEvent) -> None:
        if self.state is LinkState.OPEN:
            self.lose(event.reason, str(event.raw.get("error") or "it has gone"))
        else:  # it has opened, or is about to, and nobody here knows yet
            self._gone_early = event

    def _has_opened(self, epoch: int, session: Session) -> None:
        if epoch != self._epoch:
            self._in_a_thread(self._close, session, _nothing)
            return
        self.session = session
        self.last_error = None
        self._was_open = True
        self._to(LinkState.OPEN)
        self._owner.link_opened()
        gone, self._gone_early = self._gone_early, None
        if gone is not None:
            self._has_gone(gone)

    def _has_failed(self, epoch: int, error: Exception) -> None:
        if epoch != self._epoch:
            return
        self.last_error = error
        self._gone_early = None
        if self._was_open:
            log.info("%s: try %d to open it again: %s", self.uri, self.tries, error)
            self._try_again(error)
        else:
            self._to(LinkState.FAILED)
            self._owner.link_failed(error)

    def _to(self, state: LinkState, why: str = "") -> None:
        self.state = state
        self.since = monotonic()
        self._tell(why)

    def _tell(self, why: str = "") -> None:
        for observer in self._bridge.observers:
            observer.linked(self, why)

    # -- threads of their own

    def _in_a_thread(self, work: Callable[..., None], *given: object) -> None:
        # A daemon: one that hangs in a library must not keep the process.
        name = f"{work.__name__.strip('_')} {self.uri}"
        threading.Thread(target=work, args=given, name=name, daemon=True).start()

    def _open(self, epoch: int) -> None:
        try:
            driver = lookup.find(self.uri)
            session = _whole(driver.subscribe(self.uri, self._bridge, functools.partial(self._told, epoch)))
        except Exception as error:
            self._mailbox.put(functools.partial(self._has_failed, epoch, error))
            return
        if not self._mailbox.put(functools.partial(self._has_opened, epoch, session)):
            session.close()

    @staticmethod
    def _close(session: Session | None, closed: Callable[[], object]) -> None:
        try:
            if session is not None:
                session.close()
        except Exception:
            log.exception("a session did not close")
        finally:
            closed()


class EventsOnly:
    """A `driver.Session` of a driver that tells events and can do nothing."""

    operations: frozenset[str] = frozenset()

    def __init__(self, subscription: Subscription) -> None:
        self.close = subscription.close

    def begin(self, request: Request) -> None:
        """Never called: there are no operations."""

    def given_up(self, request: Request) -> None:
        """Never called."""


def _whole(opened: Session | Subscription) -> Session:
    """Somebody else's driver may know subscriptions alone."""
    return opened if hasattr(opened, "begin") else EventsOnly(opened)  # type: ignore[return-value]  # as it says


def _nothing() -> None:
    pass
