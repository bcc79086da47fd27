"""One open ``sim`` URI: the two halves, the clock of their story, and its order.

The kernel promises no order between fds, so each record has its number in the story, and what overtook another waits
for it here: what is emitted is the same, in the same order, on every host.

One lock over everything, held while the bridge is called and while fds are read and written, never while an event is
emitted.  Callbacks and drains run on the loop's thread; `Simulation.open` and `Simulation.close` on any.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from time import monotonic

from eventbridge.bridge import Bridge
from eventbridge.domain import DomainRef
from eventbridge.errors import EventBridgeError
from eventbridge.events import Emit, Sequencer

from . import guests
from .callback_model import CallbackLibrary
from .direct_model import GuestSource, lanes
from .guests import Happening, Story
from .uri import Parameters

AT_ONCE = 256
"""Happenings that a lane catches up with, or that are emitted, in one callback, where the loop was late."""


class InOrder:
    """What overtook another waits for it."""

    def __init__(self) -> None:
        self._next = 1
        self._early: dict[int, Happening] = {}

    def put(self, arrived: Iterable[Happening]) -> Iterator[Happening]:
        """What can be told now."""
        self._early.update((happening.number, happening) for happening in arrived)
        while (happening := self._early.pop(self._next, None)) is not None:
            self._next += 1
            yield happening


class Simulation:
    """A `eventbridge.drivers.Subscription`."""

    def __init__(self, uri: str, parameters: Parameters, bridge: Bridge, emit: Emit) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self._bridge = bridge
        self._parameters = parameters
        self._emit = Sequencer(uri, emit)
        self._idle = threading.Condition(self.lock)
        self._emitting = 0  # calls of `_tell` under way, one inside the other where emit() runs the loop,
        self._emitter = 0  # on this thread
        self._in_order = InOrder()
        self._ready: deque[Happening] = deque()
        self._started: float | None = None
        self._domains = [
            (guests.name(guest), guests.uuid_of(parameters.seed, guest)) for guest in range(parameters.domains)
        ]
        self._callback_guests = range(0, parameters.domains, 2)
        direct = lanes(range(1, parameters.domains, 2))
        lane_of = [0] * parameters.domains
        for lane, members in enumerate(direct, 1):
            for guest in members:
                lane_of[guest] = lane
        self._story = Story(parameters.seed, lane_of, parameters.events)
        self._library = CallbackLibrary(self, 0, bridge)
        self._direct_lanes = range(1, len(direct) + 1)
        self._sources: list[GuestSource] = []

    def open(self) -> None:
        """Register everything, then let the story begin.  Whatever fails, nothing stays registered."""
        try:
            with self.lock:
                self._library.open(self._callback_guests)
            for lane in self._direct_lanes:
                source = GuestSource(self, lane)
                self._sources.append(source)
                self._bridge.add_source(source)
            with self.lock:
                self._started = monotonic()
                self._library.start()
            for source in self._sources:
                self._bridge.update_source(source)
        except BaseException:
            self.close()
            raise

    # -- the clock.  Under the lock

    def next_at(self, lane: int) -> float | None:
        """When something next happens in a lane, in seconds of `time.monotonic`; None: never."""
        if self.closed or self._started is None:
            return None
        happening = self._story.peek(lane)
        return None if happening is None else self._started + happening.number / self._parameters.rate

    def milliseconds_until_next(self, lane: int) -> int:
        """As a timeout: rounded up, 0 where it is due, -1 for never."""
        at = self.next_at(lane)
        return -1 if at is None else max(0, -int((monotonic() - at) * 1000 // 1))

    def due(self, lane: int) -> list[Happening]:
        """What has happened in a lane by now, at most AT_ONCE of it."""
        now = monotonic()
        happened: list[Happening] = []
        while len(happened) < AT_ONCE and (at := self.next_at(lane)) is not None and at <= now:
            happened.append(self._story.take(lane))
        return happened

    # -- what flows out

    def deliver(self, arrived: list[Happening]) -> None:
        """Emit what can be told now, at most AT_ONCE of it; the rest soon, also where ``emit`` raises.  The loop's
        thread, without the lock.
        """
        with self.lock:
            self._ready.extend(self._in_order.put(arrived))
            self._emitting += 1
            self._emitter = threading.get_ident()
        try:
            for _ in range(AT_ONCE):
                if not self._ready or self.closed:
                    break
                self._tell(self._ready.popleft())
        finally:
            with self.lock:
                self._emitting -= 1
                self._idle.notify_all()
                if self._ready and not self.closed:
                    self._library.deliver_soon()

    def _tell(self, happening: Happening) -> None:
        name, uuid = self._domains[happening.guest]
        model = "direct-fd" if happening.guest % 2 else "callback"
        raw = {"simulated": True, "model": model, "number": happening.number}
        self._emit(happening.kind, DomainRef(name, uuid, happening.id or None), happening.reason, raw)

    def close(self) -> None:
        """Nothing is emitted after it returns, and no fd is left open.  Any thread, also within ``emit``; idempotent.

        From a thread other than the loop's it waits for an ``emit`` that is under way, and for nothing else.
        """
        with self.lock:
            first, self.closed = not self.closed, True
            while self._emitting and self._emitter != threading.get_ident():
                self._idle.wait()
        if not first:
            return
        self._library.close()
        for source in self._sources:
            with suppress(EventBridgeError):
                self._bridge.remove_source(source)
            source.close()
