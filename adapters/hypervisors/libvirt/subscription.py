"""libvirt's events out: every domain event that a connection offers, told as eventbridge's.

Registering and closing block and belong on a thread of their own where a loop is running.  Events arrive on the loop's
thread, in libvirt's order; that a connection is lost libvirt may tell on whichever thread noticed, and it is passed on
to the loop's.  No exception is let back into libvirt, whose binding would print it and go on (or, for SystemExit, end
the process there and then): it is raised again in a callback of the bridge's, where D4 holds.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import EventBridgeError
from eventbridge.hypervisor.events import Emit, Kind, Sequencer
from eventbridge.hypervisor.model import DomainRef

from . import installed
from .domains import reference
from .errors import cannot_open, words
from .events import TOLD_BETTER_BY, event_ids, translate, translate_close

log = logging.getLogger(__name__)


class LibvirtSubscription:
    """One connection that is told.  ``refused`` holds what its driver does not offer, by the event's name, with
    libvirt's words."""

    def __init__(self, uri: str, connection: Any, emit: Emit) -> None:
        self.uri = uri
        self.refused: dict[str, str] = {}
        self._connection = connection
        self._tell = Sequencer(uri, emit)
        self._callbacks: list[int] = []
        self._closing = threading.RLock()  # held while an event is emitted, so that none is after `close`
        self._closed = False

    def register(self, keepalive: tuple[int, int]) -> None:
        """Ask for everything.  Blocks; `HypervisorError` where there are no lifecycle events."""
        self._try("close", lambda: self._connection.registerCloseCallback(self._on_close, None))
        self._try("keepalive", lambda: self._connection.setKeepAlive(*keepalive))
        ids = {name: number for number, name in event_ids().items()}
        first = [name for name in ids if name not in TOLD_BETTER_BY]
        for name in first:
            self._register(name, ids[name])
        for name, better in TOLD_BETTER_BY.items():
            if name in ids and better in self.refused:
                self._register(name, ids[name])

    def close(self) -> None:
        """No event is emitted after it returns.  Blocks; idempotent.

        libvirt's own race, seen with 9.0.0 in the drivers that live in this process and share one queue of events
        (``test:///default``, ``qemu:///embed``): where the last subscription is closed while another thread makes an
        event, that one may stay in the queue for good, and later subscriptions hear nothing until every connection is
        closed.  Daemons are not affected."""
        if self.hush():
            self.leave()

    def hush(self) -> bool:
        """No event is emitted after it returns; False where that was so already.  Waits for one that is."""
        with self._closing:
            was, self._closed = self._closed, True
        return not was

    def leave(self) -> None:
        """Take back what was registered, and close the connection.  Blocks; once."""
        for callback in self._callbacks:
            with contextlib.suppress(libvirt.libvirtError):  # of a lost connection; forgotten all the same
                self._connection.domainEventDeregisterAny(callback)
        with contextlib.suppress(libvirt.libvirtError):  # a driver that took none
            self._connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def lost(self) -> None:
        """The connection is lost; called on the loop's thread before that is told."""

    # -- registering

    def _register(self, name: str, event: int) -> None:
        def ask() -> None:
            self._callbacks.append(self._connection.domainEventRegisterAny(None, event, self._on_event, event))

        error = self._try(name, ask)
        if error is not None and name == "LIFECYCLE":
            raise cannot_open(self.uri, "tells no domain events", error) from error

    def _try(self, name: str, ask: Callable[[], object]) -> Exception | None:
        try:
            ask()
        except libvirt.libvirtError as error:
            self.refused[name] = words(error)
            log.info("%s: its driver refuses %s: %s", self.uri, name, self.refused[name])
            refusal: Exception = error
            return refusal
        return None

    # -- what libvirt calls

    def _on_event(self, connection: Any, domain: Any, *given: Any) -> None:
        try:
            kind, reason, raw = translate(given[-1], given[:-1])
            self._emit(kind, reference(domain), reason, raw)
        except BaseException as error:  # see the module's docstring
            self._raise_on_loop(error)

    def _on_close(self, connection: Any, number: int, opaque: object) -> None:
        def lost() -> None:
            self.lost()
            self._emit(Kind.CONNECTION_LOST, None, *translate_close(number))

        try:
            bridge = installed()
            if bridge is not None:
                _soon(bridge, lost)
        except BaseException as error:  # see the module's docstring
            self._raise_on_loop(error)

    def _emit(self, kind: Kind, domain: DomainRef | None, reason: str | None, raw: dict[str, Any]) -> None:
        with self._closing:
            if not self._closed:
                self._tell(kind, domain, reason, raw)

    def _raise_on_loop(self, error: BaseException) -> None:
        def again() -> None:
            raise error

        bridge = installed()
        try:
            if bridge is not None:
                _soon(bridge, again)
        except EventBridgeError:  # closed meanwhile
            log.error("%s: an event could not be handed on: %s", self.uri, error, exc_info=error)


def _soon(bridge: BridgeCore, step: Callable[[], None]) -> None:
    """Call ``step`` once on the loop's thread, and keep nothing of it: a bridge remembers its slowest callback."""
    steps = [step]

    def once(timeout: int, opaque: object) -> None:
        bridge.remove_timeout(timeout)
        steps.pop()()

    bridge.add_timeout(0, once)
