"""The bridge that everybody on one loop shares who has brought none: made by the first, closed after the last."""

from __future__ import annotations

import threading

from eventbridge.bridge import Bridge
from eventbridge.core import host_lookup
from eventbridge.core.host import HostLoop

_lock = threading.Lock()
_leases: dict[Bridge, int] = {}


class Lease:
    """One user's part of ``bridge``."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self._ended = False

    def end(self) -> None:
        """Once is enough.  The loop's thread."""
        with _lock:
            if self._ended:
                return
            self._ended = True
            _leases[self.bridge] -= 1
            last = not _leases[self.bridge]
            if last:
                del _leases[self.bridge]
        if last:
            self.bridge.close()


def lease() -> Lease:
    """On the loop that is running in this thread; `HostUnavailable` where none is."""
    running = host_lookup.running()
    with _lock:
        bridge = next((bridge for bridge in _leases if _is_on(bridge, running)), None) or Bridge(running)
        _leases[bridge] = _leases.get(bridge, 0) + 1
    return Lease(bridge)


def _is_on(bridge: Bridge, running: HostLoop) -> bool:
    """A host adapter is a thin thing, made anew each time; the loop beneath says whether two are alike."""
    host = bridge.host
    return not bridge.closed and type(host) is type(running) and _loop(host) is _loop(running)


def _loop(host: HostLoop) -> object:
    return getattr(host, "loop", host)
