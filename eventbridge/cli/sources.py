"""URIs opened and closed on one bridge while its loop runs.

Opening blocks, and so may closing (a daemon that has stopped does not answer): each is done on a thread of its own,
and what came of it is told on the loop's thread, in a pass.  All state here belongs to that thread.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from eventbridge import drivers
from eventbridge.bridge import Bridge
from eventbridge.errors import BridgeClosed
from eventbridge.events import DomainEvent

SLOW_SECONDS = 2


class Listener(Protocol):
    """Who is told.  On the loop's thread."""

    def opened(self, uri: str) -> None: ...

    def failed(self, uri: str, error: Exception) -> None: ...

    def slow(self, uri: str) -> None:
        """Opening it has taken `SLOW_SECONDS` and goes on."""

    def event(self, event: DomainEvent) -> None: ...


class Sources:
    """Several sources of events on one bridge."""

    def __init__(self, bridge: Bridge, listener: Listener) -> None:
        self._bridge = bridge
        self._listener = listener
        self.opening: set[str] = set()
        self.open: dict[str, drivers.Subscription] = {}
        self.closing: set[str] = set()
        self._over = False

    def start(self, uris: Iterable[str]) -> None:
        """Begin to open each.  Before the loop runs, or on its thread."""
        for uri in uris:
            self.opening.add(uri)
            self._on_a_thread(self._open, uri)
        self._slow = self._bridge.add_timeout(SLOW_SECONDS * 1000, self._tell_slow)

    def drop(self, uri: str) -> None:
        """Begin to close one."""
        self.closing.add(uri)
        self._on_a_thread(self._close, uri, self.open.pop(uri))

    def close(self, seconds: float) -> None:
        """Close what is open, running the loop meanwhile, for at most so long; what has not closed then is in
        ``closing``.  What is still opening is closed when it has opened, if that is soon.
        """
        self._over = True
        for uri in list(self.open):
            self.drop(uri)
        with contextlib.suppress(KeyError):
            self._bridge.remove_timeout(self._slow)
        self._bridge.run(until=lambda: not self.closing, timeout=seconds)

    def _tell_slow(self, id: int, opaque: object) -> None:
        self._bridge.remove_timeout(id)
        for uri in sorted(self.opening):
            self._listener.slow(uri)

    def _has_opened(self, uri: str, subscription: drivers.Subscription) -> None:
        self.opening.discard(uri)
        self.open[uri] = subscription
        if self._over:
            self.drop(uri)
        else:
            self._listener.opened(uri)

    def _has_failed(self, uri: str, error: Exception) -> None:
        self.opening.discard(uri)
        if not self._over:
            self._listener.failed(uri, error)

    # -- on threads of their own

    @staticmethod
    def _on_a_thread(work: Callable[..., None], uri: str, *args: object) -> None:
        # A daemon: one that hangs in a library must not keep the process.
        threading.Thread(target=work, args=(uri, *args), name=f"{work.__name__} {uri}", daemon=True).start()

    def _open(self, uri: str) -> None:
        try:
            subscription = drivers.find(uri).subscribe(uri, self._bridge, self._listener.event)
        except Exception as error:
            self._tell(functools.partial(self._has_failed, uri, error))
            return
        if not self._tell(functools.partial(self._has_opened, uri, subscription)):
            subscription.close()

    def _close(self, uri: str, subscription: drivers.Subscription) -> None:
        try:
            subscription.close()
        finally:
            self._tell(functools.partial(self.closing.discard, uri))

    def _tell(self, step: Callable[[], None]) -> bool:
        """Take ``step()`` in a pass of the loop; False where the bridge is closed by now."""

        def once(id: int, opaque: object) -> None:
            self._bridge.remove_timeout(id)
            step()

        try:
            self._bridge.add_timeout(0, once)
        except BridgeClosed:
            return False
        return True
