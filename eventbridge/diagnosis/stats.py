"""What a bridge has done so far and what is on it, in figures.  A snapshot; any thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.handles import Handle
from eventbridge.core.origin import NOBODYS, Origin, owner
from eventbridge.core.timers import Timer

from .pulse import NO_LAG, Lag, lag_of


@dataclass(frozen=True, slots=True)
class Owned:
    """What one owner has registered."""

    handles: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What a bridge has done so far; the times are in seconds."""

    host: str
    handles: int
    timeouts: int
    passes: int
    callbacks: int
    errors: int
    slowest: float
    """How long the slowest callback took."""
    slowest_callback: str
    lag: float
    """The most that a timeout was called after its deadline."""
    lag_lately: float = 0.0
    """That of the timeout that was called last."""
    slowest_of: Origin = NOBODYS
    """Which handle or timeout the slowest callback was of, and whose."""
    moves: int = 0
    """How often it has gone to another host (D9)."""
    rebuilds: int = 0
    """How often the poller was made anew, to leave closed files behind (H11)."""
    frees_owed: int = 0
    """How many ``free`` are still to be called."""
    owners: Mapping[str, Owned] = field(default_factory=dict)
    """What is registered, by hypervisor library (libvirt, libxl, xenstore, qmp, sim); "eventbridge" is what the core
    has for itself, "application" everything else.
    """
    host_lag: Lag = NO_LAG
    """How late the host calls, where `Bridge.diagnose` measures it."""


def snapshot(bridge: BridgeCore) -> Stats:
    """What `Bridge.stats` returns."""
    dispatcher, registry = bridge._dispatcher, bridge._registry
    with registry.lock:
        handles, timeouts = list(registry.handles.values()), list(registry.timeouts.values())
    return Stats(
        host=bridge.host.name,
        handles=len(handles),
        timeouts=len(timeouts),
        passes=dispatcher.passes,
        callbacks=dispatcher.callbacks,
        errors=dispatcher.errors,
        slowest=dispatcher.slowest,
        slowest_callback=dispatcher.slowest_of.callback,
        lag=dispatcher.lag / 1e9,
        lag_lately=dispatcher.late / 1e9,
        slowest_of=dispatcher.slowest_of,
        moves=bridge.moves,
        rebuilds=dispatcher.rebuilds,
        frees_owed=len(registry.frees),
        owners=_owners(handles, timeouts),
        host_lag=lag_of(bridge),
    )


def _owners(handles: Iterable[Handle], timeouts: Iterable[Timer]) -> dict[str, Owned]:
    counts: dict[str, list[int]] = {}
    for handle in handles:
        counts.setdefault(owner(handle), [0, 0])[0] += 1
    for timer in timeouts:
        counts.setdefault(owner(timer), [0, 0])[1] += 1
    return {whose: Owned(*counts[whose]) for whose in sorted(counts)}
