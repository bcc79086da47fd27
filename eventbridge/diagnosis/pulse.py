"""How late the host loop is: a pulse, one timeout of the bridge's own that is due every so often.

The host is told by the poller's fd that there is work; a pulse that is called late says how long the host, or a
callback before it, was at something else.  It is no registration: `Bridge.is_empty` and `drain` do not know of it.  It
wakes the loop as often as it beats, so it beats only while somebody diagnoses.

It beats on the loop's thread; what it has found may be asked for on any.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.timers import Timer

SECONDS = 0.05
KEEP = 1000


class Lag(NamedTuple):
    """How late calls came, in seconds, of the last ``calls`` of them."""

    calls: int
    p50: float
    p99: float
    most: float


NO_LAG = Lag(0, 0.0, 0.0, 0.0)


class Pulse:
    """``bridge``'s, every so many ``seconds`` (0.001 or more), from its making until `close`; a context manager.

    The last ``keep`` are kept; ``told(at, late)``, in nanoseconds, is called at each, on the loop's thread.
    """

    def __init__(
        self,
        bridge: BridgeCore,
        seconds: float = SECONDS,
        *,
        keep: int = KEEP,
        told: Callable[[int, int], object] | None = None,
    ) -> None:
        self._bridge = bridge
        self._registry = bridge._registry
        self._late: collections.deque[int] = collections.deque(maxlen=keep)
        self._told = told
        self._timer = Timer(self._beat, None, None)
        bridge.check()
        with self._registry.lock:
            self._registry.set_timer(self._timer, max(1, int(seconds * 1000)))
            self._due = self._timer.deadline
        _pulses[bridge] = (*_pulses.get(bridge, ()), self)

    def lag(self) -> Lag:
        """Of the last beats."""
        late = sorted(self._late.copy())
        if not late:
            return NO_LAG
        last = len(late) - 1
        return Lag(len(late), late[last // 2] / 1e9, late[-(-last * 99 // 100)] / 1e9, late[last] / 1e9)

    def close(self) -> None:
        """No beat begins after this.  Idempotent; any thread."""
        _pulses[self._bridge] = tuple(pulse for pulse in _pulses.get(self._bridge, ()) if pulse is not self)
        with self._registry.lock:
            self._registry.timers.forget(self._timer)

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _beat(self, id: int, opaque: object) -> None:
        now = monotonic_ns()
        late = max(0, now - self._due)
        self._due = self._timer.deadline  # the next, set before this was called (T4)
        self._late.append(late)
        if self._told is not None:
            self._told(now, late)


_pulses: weakref.WeakKeyDictionary[BridgeCore, tuple[Pulse, ...]] = weakref.WeakKeyDictionary()


def lag_of(bridge: BridgeCore) -> Lag:
    """Return how late the bridge's host calls, by the pulse that was begun last; `NO_LAG` if there is none."""
    pulses = _pulses.get(bridge)
    return pulses[-1].lag() if pulses else NO_LAG
