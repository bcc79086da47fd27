"""libvirt's events out: a connection of its own, every domain event it offers, told as eventbridge's.

Opening and closing block and belong on a thread of their own where a loop is running.  Events arrive on the loop's
thread, in libvirt's order; that a connection is lost libvirt may tell on whichever thread noticed, and it is passed on
to the loop's.  No exception is let back into libvirt, whose binding would print it and go on (or, for SystemExit, end
the process there and then): it is raised again in a callback of the bridge's, where D4 holds."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any

import libvirt

from eventbridge.bridge import Bridge
from eventbridge.domain import DomainRef
from eventbridge.errors import EventBridgeError, HypervisorError
from eventbridge.events import Emit, Kind, Sequencer

from . import install, installed
from .events import TOLD_BETTER_BY, event_ids, translate, translate_close

KEEPALIVE = (5, 3)
"""Ask a remote daemon that is silent for so many seconds whether it lives; so many times before it counts as lost."""

# By libvirt's error code: what to do about a connection that cannot be opened.
HINTS: dict[int, str] = {
    libvirt.VIR_ERR_SYSTEM_ERROR: "is the daemon running?",
    libvirt.VIR_ERR_NO_CONNECT: "is that driver part of this libvirt?",
    libvirt.VIR_ERR_AUTH_FAILED: "may this user connect to it?",
    libvirt.VIR_ERR_AUTH_CANCELLED: "may this user connect to it without being asked for a password?",
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: "may this user connect to it without being asked for a password?",
}

log = logging.getLogger(__name__)


class LibvirtDriver:
    """`eventbridge.drivers.Driver` for every URI that libvirt knows."""

    def __init__(self, keepalive: tuple[int, int] = KEEPALIVE) -> None:
        self._keepalive = keepalive

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> LibvirtSubscription:
        """Open ``uri`` and emit its events; libvirt is installed on ``bridge`` if it is not yet.  Blocks.

        `HypervisorError` where it cannot be opened or tells no events; nothing is then left behind."""
        _quieten()
        if installed() is not bridge:
            install(bridge)
        try:
            connection = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise _refusal(uri, "cannot open", error) from error
        subscription = LibvirtSubscription(uri, connection, emit)
        try:
            subscription.register(self._keepalive)
        except BaseException:
            subscription.close()
            raise
        return subscription

    def version(self) -> str:
        """As in "libvirt 9.0.0 (libvirt-python 12.8.0)"."""
        number = libvirt.getVersion()
        library = f"libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
        try:
            return f"{library} (libvirt-python {metadata.version('libvirt-python')})"
        except metadata.PackageNotFoundError:  # some distributions leave a binding's metadata out
            return library


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
        with self._closing:
            if self._closed:
                return
            self._closed = True
        for callback in self._callbacks:
            with contextlib.suppress(libvirt.libvirtError):  # of a lost connection; forgotten all the same
                self._connection.domainEventDeregisterAny(callback)
        with contextlib.suppress(libvirt.libvirtError):  # a driver that took none
            self._connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    # -- registering

    def _register(self, name: str, event: int) -> None:
        def ask() -> None:
            self._callbacks.append(self._connection.domainEventRegisterAny(None, event, self._on_event, event))

        error = self._try(name, ask)
        if error is not None and name == "LIFECYCLE":
            raise _refusal(self.uri, "tells no domain events", error) from error

    def _try(self, name: str, ask: Callable[[], object]) -> Exception | None:
        try:
            ask()
        except libvirt.libvirtError as error:
            self.refused[name] = _words(error)
            log.info("%s: its driver refuses %s: %s", self.uri, name, self.refused[name])
            refusal: Exception = error
            return refusal
        return None

    # -- what libvirt calls

    def _on_event(self, connection: Any, domain: Any, *given: Any) -> None:
        try:
            kind, reason, raw = translate(given[-1], given[:-1])
            self._emit(kind, _ref(domain), reason, raw)
        except BaseException as error:  # see the module's docstring
            self._raise_on_loop(error)

    def _on_close(self, connection: Any, number: int, opaque: object) -> None:
        def lost() -> None:
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


def _soon(bridge: Bridge, step: Callable[[], None]) -> None:
    """Call ``step`` once on the loop's thread."""

    def once(timeout: int, opaque: object) -> None:
        bridge.remove_timeout(timeout)
        step()

    bridge.add_timeout(0, once)


def _ref(domain: Any) -> DomainRef:
    """What the event's own domain object holds; asking libvirt for more would cost a call to the daemon."""
    id = domain.ID()
    return DomainRef(domain.name(), domain.UUIDString(), None if id < 0 else id)


def _words(error: Any) -> str:
    """libvirt's message, in one line."""
    return " ".join((error.get_error_message() or str(error)).split())


def _refusal(uri: str, what: str, error: Any) -> HypervisorError:
    code = error.get_error_code()
    hint = HINTS.get(code)
    return HypervisorError(
        f"{uri}: {what}: {_words(error)}" + (f"; {hint}" if hint else ""), code=code, operation="open"
    )


@functools.cache
def _quieten() -> None:
    """libvirt prints every error to standard error unless somebody takes them; they reach us as exceptions."""
    libvirt.registerErrorHandler(lambda _, error: log.debug("libvirt: %s", error[2]), None)


driver = LibvirtDriver()
