"""One open ``sim`` URI: the two halves of a connection to a world, what it is told and what it asks.

The kernel promises no order between fds, so each record has its number among all that happens in the world, and what
overtook another waits for it here: what is emitted is the same, in the same order, on every host.

A call waits on the world's agenda until it is due, and is done there; what it does travels as everything does.  Its
answer waits until all is told that had happened when it was done, and comes before what happened later: so answers and
events are one history, and a call's own event comes before its answer.

The world's lock is held over its state, never while an event is emitted or a request answered.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from time import monotonic

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.dispatcher import BUDGET_SECONDS
from eventbridge.errors import ConnectionLost, EventBridgeError
from eventbridge.hypervisor.events import Emit, Kind, Sequencer
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted

from .callback_model import CallbackLibrary
from .commands import refused
from .direct_model import GuestSource
from .guests import Guest, Happening
from .hypervisor import World, lane_of
from .later import LATER
from .operations import CALLS
from .uri import Parameters


class InOrder:
    """What overtook another waits for it."""

    def __init__(self, told: int) -> None:
        self._next = told + 1
        self._early: dict[int, Happening] = {}

    def put(self, arrived: Iterable[Happening]) -> Iterator[Happening]:
        """What can be told now."""
        self._early.update((happening.number, happening) for happening in arrived)
        while (happening := self._early.pop(self._next, None)) is not None:
            self._next += 1
            yield happening


class Session:
    """A `eventbridge.hypervisor.driver.Session`."""

    operations = frozenset(CALLS)

    def __init__(self, uri: str, parameters: Parameters, world: World, bridge: BridgeCore, emit: Emit) -> None:
        self.uri = uri
        self.world = world
        self.parameters = parameters
        self.closed = False
        self.told = 0
        """The number of the last happening that was emitted."""
        self._bridge = bridge
        self._emit = Sequencer(uri, emit)
        self._idle = threading.Condition(world.lock)
        self._emitting = 0  # calls of `deliver` under way, one inside the other where emit() runs the loop,
        self._emitter = 0  # on this thread
        self._ready: deque[Happening] = deque()
        self._under_way: dict[Request, None] = {}
        self._answers: deque[tuple[int, Request, object, BaseException | None]] = deque()  # once that much is told
        self._lost: str | None = None
        self._loss: tuple[str, list[Request]] | None = None  # not told yet: why, and who is to be refused
        self._library = CallbackLibrary(self, bridge)
        self._sources: dict[int, GuestSource] = {}  # by lane

    @property
    def is_open(self) -> bool:
        """Neither closed nor lost."""
        return not self.closed and self._lost is None

    def open(self) -> None:
        """Register everything, then join the world.  Whatever fails, nothing stays registered."""
        world = self.world
        try:
            with world.lock:
                self._library.open(guest.index for guest in world.cast if not lane_of(guest.index))
                for guest in world.cast:
                    self._plug(lane_of(guest.index))
                self.told = world.join(self)
                self._in_order = InOrder(self.told)
                self.arm()
                for source in self._sources.values():
                    self._bridge.update_source(source)
        except BaseException:
            self.close()
            raise

    # -- for the world.  Any thread, under its lock

    def arm(self) -> None:
        """Something else is due next."""
        if self.is_open:
            self._library.arm()

    def send(self, records: list[tuple[int, bytes]]) -> None:
        """Let them travel, each on its guest's fd."""
        by_fd: dict[tuple[int, int], list[bytes]] = {}
        for guest, record in records:
            lane = lane_of(guest)
            by_fd.setdefault((lane, 0 if lane else guest), []).append(record)
        for (lane, guest), sent in by_fd.items():
            if lane:
                self._sources[lane].send(b"".join(sent))
            else:
                self._library.send(guest, b"".join(sent))

    def attach(self, guest: int) -> None:
        """A new one.  OSError where there is no fd for it."""
        lane = lane_of(guest)
        with suppress(EventBridgeError):  # the bridge was closed meanwhile
            if lane:
                self._plug(lane)
            else:
                self._library.attach(guest)

    def detach(self, guest: int) -> None:
        """It is gone, and that was told."""
        if not lane_of(guest):
            self._library.detach(guest)

    def _plug(self, lane: int) -> None:
        if lane and lane not in self._sources:
            source = self._sources[lane] = GuestSource(self, lane)
            self._bridge.add_source(source)

    # -- what is asked

    def begin(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.begin`."""
        with self.world.lock:
            is_open = self.is_open
            if is_open:
                self._under_way[request] = None
                self.world.schedule(self.parameters.latency / 1000, partial(self._perform, request))
                self.arm()
        if not is_open:
            request.refuse(self._gone(request, "is closed" if self._lost is None else "was lost"))

    def given_up(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.given_up`: the simulation goes on with it all the same."""
        with self.world.lock:
            self.world.faults.given_up.append(request)

    def has(self, request: Request) -> bool:
        """Is it still to be answered, and by this connection?  Under the lock."""
        return request in self._under_way

    def finish(self, request: Request, value: object = None, error: BaseException | None = None) -> None:
        """It is to be answered, or refused.  Any thread, under the lock."""
        if self.has(request):
            del self._under_way[request]
            self._answers.append((self.world.cast.number, request, value, error))
            self._library.deliver_soon()

    def _perform(self, request: Request) -> None:
        """Its turn has come.  Some loop's thread, without the lock."""
        with self.world.lock:
            if not self.has(request) or self.world.faults.hangs(request, partial(self._perform, request)):
                return
            try:
                value = self._do(request)
            except EventBridgeError as error:
                self.finish(request, error=error)
            except Exception as error:  # a defect: the bridge reports it, and whoever asked does not wait for ever
                words = f"a defect of the simulation: {type(error).__name__}: {error}"
                self.finish(request, error=refused(self.uri, request.operation, None, words))
                raise
            else:
                if value is not LATER:
                    self.finish(request, value)

    def _do(self, request: Request) -> object:
        """Under the lock."""
        if request.aborted:
            raise JobAborted(f"{self.uri}: {request.operation}: aborted before it had begun")
        planned = self.world.faults.planned_for(request)
        if planned is not None:
            raise planned
        return CALLS[request.operation](self, request)

    def _gone(self, request: Request, how: str) -> ConnectionLost:
        return ConnectionLost(f"{self.uri}: cannot {request.operation}: the connection {how}: open another")

    # -- what is told.  The loop's thread, without the lock

    def deliver(self, arrived: list[Happening]) -> None:
        """Emit what can be told now, for a pass's budget (D2); the rest soon, also where ``emit`` raises."""
        with self.world.lock:
            self._ready.extend(self._in_order.put(arrived))
            self._emitting += 1
            self._emitter = threading.get_ident()
        try:
            until = monotonic() + BUDGET_SECONDS
            while self._tell_next() and monotonic() < until:
                pass
            self._tell_loss()
        finally:
            with self.world.lock:
                self._emitting -= 1
                self._idle.notify_all()
                if self._ready or self._loss or self._can_answer():
                    self._library.deliver_soon()

    def _can_answer(self) -> bool:
        return bool(self._answers) and self._answers[0][0] <= self.told

    def _tell_next(self) -> bool:
        """The next answer, or the next event; False where there is neither now."""
        with self.world.lock:
            answer = happening = None
            if not self.is_open:
                return False
            if self._can_answer():
                answer = self._answers.popleft()
            elif self._ready:
                happening = self._ready.popleft()
                guest = self.world.cast[happening.guest]
                self.told = happening.number
        if answer is not None:
            _give(*answer)
        elif happening is not None:
            self._tell(happening, guest)
        return answer is not None or happening is not None

    def _tell(self, happening: Happening, guest: Guest) -> None:
        model = "direct-fd" if happening.guest % 2 else "callback"
        raw = {"simulated": True, "model": model, "number": happening.number}
        ref = DomainRef(guest.name, guest.uuid, happening.id or None)
        self._emit(happening.kind, ref, happening.reason, raw)

    def _tell_loss(self) -> None:
        with self.world.lock:
            loss, self._loss = self._loss, None
        if loss is None:
            return
        reason, requests = loss
        try:
            self._emit(Kind.CONNECTION_LOST, None, reason, {"simulated": True, "event": "connection_lost"})
        finally:
            for request in requests:
                request.refuse(self._gone(request, "was lost"))

    # -- the end

    def lose(self, reason: str) -> None:
        """The hypervisor has gone, as far as this connection can see.  Any thread; told on the loop's."""
        with self.world.lock:
            if self.is_open:
                self._lost = reason
                self._loss = (reason, self._leave())
                self._library.deliver_soon()

    def close(self) -> None:
        """Nothing is emitted after it returns, and no fd is left open.  Any thread, also within ``emit``; idempotent.

        From a thread other than the loop's it waits for an ``emit`` that is under way, and for nothing else.
        """
        with self.world.lock:
            self.closed = True
            requests = self._leave()
            if self._loss is not None:
                requests += self._loss[1]
                self._loss = None
            while self._emitting and self._emitter != threading.get_ident():
                self._idle.wait()
            self._library.close()
        for request in requests:
            request.refuse(self._gone(request, "was closed"))

    def _leave(self) -> list[Request]:
        """Leave the world, with every fd; whose requests are to be refused."""
        self.world.leave(self)
        self._ready.clear()
        self._library.unplug()
        while self._sources:
            source = self._sources.popitem()[1]
            with suppress(EventBridgeError):
                self._bridge.remove_source(source)
            source.close()
        requests = [*(answer[1] for answer in self._answers), *self._under_way]
        self._answers.clear()
        self._under_way.clear()
        for incoming in list(self.world.incoming):
            if incoming.session is self and not incoming.runs:
                incoming.cancel("its destination has gone")
        return requests


def _give(number: int, request: Request, value: object, error: BaseException | None) -> None:
    if error is None:
        request.answer(value)
    else:
        request.refuse(error)
