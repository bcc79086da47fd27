"""Several URIs, connected to and closed again on one bridge while its loop runs.

A `Connection` each; what becomes of them is told on the loop's thread, in a pass.  All state here belongs to that
thread.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from typing import Any, Protocol

from eventbridge.bridge import Bridge
from eventbridge.connection.backoff import Backoff
from eventbridge.connection.call import Call
from eventbridge.connection.connection import Connection
from eventbridge.hypervisor.events import DomainEvent

SLOW_SECONDS = 2


class Listener(Protocol):
    """Who is told.  On the loop's thread."""

    def opened(self, uri: str) -> None: ...

    def failed(self, uri: str, error: Exception) -> None: ...

    def slow(self, uri: str) -> None:
        """Opening it has taken `SLOW_SECONDS` and goes on."""

    def event(self, event: DomainEvent) -> None: ...


class Sources:
    """Several sources of events on one bridge.  ``reconnect``: as `Connection` has it."""

    def __init__(self, bridge: Bridge, listener: Listener, reconnect: Backoff | None = None) -> None:
        self._bridge = bridge
        self._listener = listener
        self._reconnect = reconnect
        self.opening: dict[str, Connection] = {}
        self.open: dict[str, Connection] = {}
        self.closing: set[str] = set()
        self._over = False

    def start(self, uris: Iterable[str]) -> None:
        """Begin to open each.  Before the loop runs, or on its thread."""
        for uri in uris:
            connection = self.opening[uri] = Connection(uri, self._bridge, reconnect=self._reconnect)
            connection.subscribe(self._listener.event)
            connection.opened.on_done(functools.partial(self._has_opened, uri))
        self._slow = self._bridge.add_timeout(SLOW_SECONDS * 1000, self._tell_slow)

    def drop(self, uri: str) -> None:
        """Begin to close one."""
        connection = self.open.pop(uri, None) or self.opening.pop(uri)
        self.closing.add(uri)
        connection.close().on_done(lambda call: self.closing.discard(uri))

    def close(self, seconds: float) -> None:
        """Close all, running the loop meanwhile, for at most so long; what has not closed then is in ``closing``.
        What is still opening is closed when it has opened.
        """
        self._over = True
        for uri in [*self.open, *self.opening]:
            self.drop(uri)
        with contextlib.suppress(KeyError):
            self._bridge.remove_timeout(self._slow)
        self._bridge.run(until=lambda: not self.closing, timeout=seconds)

    def _tell_slow(self, id: int, opaque: object) -> None:
        self._bridge.remove_timeout(id)
        for uri in sorted(self.opening):
            self._listener.slow(uri)

    def _has_opened(self, uri: str, call: Call[Any]) -> None:
        connection = self.opening.pop(uri, None)
        if self._over or connection is None:
            return
        if isinstance(call.error, Exception):
            connection.close()
            self._listener.failed(uri, call.error)
        else:
            self.open[uri] = connection
            self._listener.opened(uri)
