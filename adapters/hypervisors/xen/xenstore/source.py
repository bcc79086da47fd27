"""The watches of one connection to xenstored, as a `eventbridge.core.models.DirectSource`.

Drained when its fd is ready, and looked at once a second besides: a xenstored that dies never makes libxenstore's fd
readable, and only a call tells.  Loop side, all of it; nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from eventbridge.core.masks import Events
from eventbridge.errors import ConnectionLost

from .store import Store, Watched

PROBE_SECONDS = 1.0
BATCH = 256
"""Watches in one drain; the fd stays readable while there are more."""


class WatchSource:
    """``fired(watched)`` for every watch that fires, ``probed()`` every ``probe_seconds`` (None: `PROBE_SECONDS`), and
    ``lost(error)`` once, if ever, after which there is nothing more.  ``detached`` closes the store.
    """

    def __init__(
        self,
        store: Store,
        fired: Callable[[Watched], object],
        lost: Callable[[ConnectionLost], object],
        probed: Callable[[], object] = lambda: None,
        probe_seconds: float | None = None,
    ) -> None:
        self._store = store
        self._fired = fired
        self._lost = lost
        self._probed = probed
        self._every = PROBE_SECONDS if probe_seconds is None else probe_seconds
        self._fd = store.fileno()
        self._probe_at: float | None = monotonic() + self._every
        self.alive = True

    def fileno(self) -> int:
        return self._fd

    def events(self) -> int:
        return int(Events.READABLE) if self.alive else 0

    def deadline(self) -> float | None:
        return self._probe_at

    def drain(self, events: int) -> None:
        if not self.alive:
            return
        try:
            self._take() if events else self._probe()
        except ConnectionLost as error:
            self.alive = False
            self._probe_at = None
            self._lost(error)

    def detached(self) -> None:
        self._store.close()

    def _take(self) -> None:
        for _ in range(BATCH):
            watched = self._store.next_watch()
            if watched is None:
                return
            self._fired(watched)

    def _probe(self) -> None:
        self._probe_at = monotonic() + self._every
        self._take()
        self._probed()
