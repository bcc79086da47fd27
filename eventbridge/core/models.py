"""The two ways in which a hypervisor's library meets an event loop, as protocols.

*Callback model* (libvirt, libxl 4.2 and later): the library is given six functions and registers with us what it
wants watched.  A `Bridge` is such a set of functions; `CallbackModel` is the part of it that a library's hooks are
translated to.

*Direct-fd model* (libxl 4.1, libxenstore, QMP): the library, or we in its place, has one fd; we ask what it wishes to
be polled for and when it wants to be called at the latest, and drain it when either comes true.  That is a
`DirectSource`.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any, Protocol

from eventbridge.errors import BridgeClosed, UnknownHandle

from .affinity import loop_side
from .handles import FreeCallback, HandleCallback, TimeoutCallback
from .masks import ALL


class CallbackModel(Protocol):
    """What a library that registers with us is given.  Hook side: any thread.  See `eventbridge.Bridge` for what each
    does.
    """

    def add_handle(
        self, fd: int, events: int, callback: HandleCallback, opaque: object = None, free: FreeCallback | None = None
    ) -> int: ...

    def update_handle(self, id: int, events: int) -> None: ...

    def remove_handle(self, id: int) -> None: ...

    def add_timeout(
        self, ms: int, callback: TimeoutCallback, opaque: object = None, free: FreeCallback | None = None
    ) -> int: ...

    def update_timeout(self, id: int, ms: int) -> None: ...

    def remove_timeout(self, id: int) -> None: ...


class DirectSource(Protocol):
    """One fd with somebody behind it who must be drained.  All methods are called on the loop's thread, but for the
    first look at `fileno`, `events` and `deadline`, which `Bridge.add_source` takes on the caller's.
    """

    def fileno(self) -> int:
        """The fd.  The same for the source's life."""

    def events(self) -> int:
        """What to poll for now, a mask of `eventbridge.Events`; 0: nothing."""

    def deadline(self) -> float | None:
        """When to drain at the latest, in seconds of `time.monotonic`; None: only when the fd is ready."""

    def drain(self, events: int) -> None:
        """The fd is ready for ``events``, or (0) the deadline has passed: take what is there, without blocking.
        Afterwards `events` and `deadline` are asked again.
        """

    def detached(self) -> None:
        """The source is removed, or the bridge closed: the last call it gets.  The fd may be closed now."""


class AttachedSource:
    """A `DirectSource` served by a bridge's callback model: one handle, and a timeout once it first names a
    deadline.

    Any thread may add, refresh and detach while the loop's own drains: ``lock`` is the registry's, is held over what
    is registered and known of that, and never over the source's own code.
    """

    def __init__(self, bridge: CallbackModel, source: DirectSource, lock: AbstractContextManager[object]) -> None:
        self._bridge = bridge
        self._source = source
        self._lock = lock
        self._attached = True
        self._timeout: int | None = None
        self._left = 1  # frees until the source is told
        self._asked = self._taken = 0  # looks at its wishes: the last that was begun, and that is in force
        self._events = source.events()
        fd = source.fileno()
        with lock:
            self._handle = bridge.add_handle(fd, self._events, self._ready, None, self._freed)
        self.refresh()

    def refresh(self) -> None:
        """Ask the source again what it wants.  Where two threads do at once, who asked first must not have the last
        word: what it was told may be old by then.
        """
        with self._lock:
            self._asked += 1
            asked = self._asked
        events, ms = self._source.events(), _milliseconds_until(self._source.deadline())
        with self._lock:
            # Detached meanwhile, by its own drain perhaps: nothing may be registered for it any more.
            if self._attached and asked > self._taken:
                self._taken = asked
                self._wish(events, ms)

    def detach(self) -> None:
        with self._lock:
            self._attached = False
            self._bridge.remove_handle(self._handle)
            if self._timeout is not None:
                self._bridge.remove_timeout(self._timeout)

    def _wish(self, events: int, ms: int) -> None:
        if events != self._events:
            self._bridge.update_handle(self._handle, events & ALL)
            self._events = events
        if self._timeout is not None:
            self._bridge.update_timeout(self._timeout, ms)
        elif ms >= 0:
            self._timeout = self._bridge.add_timeout(ms, self._overdue, None, self._freed)
            self._left += 1

    def _ready(self, id: int, fd: int, events: int, opaque: Any) -> None:
        self._drain(events)

    def _overdue(self, id: int, opaque: Any) -> None:
        self._drain(0)

    @loop_side
    def _drain(self, events: int) -> None:
        try:
            self._source.drain(events)
        finally:
            with contextlib.suppress(UnknownHandle, BridgeClosed):  # the bridge was closed meanwhile
                self.refresh()

    @loop_side
    def _freed(self, opaque: Any) -> None:
        self._left -= 1
        if not self._left:
            self._source.detached()


def _milliseconds_until(deadline: float | None) -> int:
    """As a timeout, rounded up: a source is never drained early (T3)."""
    return -1 if deadline is None else max(0, -int((monotonic() - deadline) * 1000 // 1))
