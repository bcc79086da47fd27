"""The half of the simulated hypervisor that registers with us, as libvirt and libxl 4.2 do.

It is given the bridge as its `CallbackModel` and nothing else of it.  It registers a pipe for each domain, a timeout
for what is due next, its guests' happenings and everybody's calls, and one that delivers what has been read (libvirt's
test driver does so: -1, set to 0 by each event, and back to -1 when the queue is empty).  A guest whose pipe is full
waits with a handle of its own for the pipe to be writable.

Like a real library it calls the bridge with its lock held, and delivers without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from eventbridge.core.dispatcher import BUDGET_SECONDS
from eventbridge.core.masks import Events
from eventbridge.core.models import CallbackModel
from eventbridge.errors import EventBridgeError

from .guests import Happening
from .hypervisor import Action
from .wire import Channel

if TYPE_CHECKING:
    from .session import Session

READABLE, WRITABLE = int(Events.READABLE), int(Events.WRITABLE)


class CallbackLibrary:
    """Of one connection.  Its callbacks find that closed where they were decided on before their removal by another
    thread (H6).
    """

    def __init__(self, session: Session, model: CallbackModel) -> None:
        self._session = session
        self._world = session.world
        self._model = model
        self._channels: dict[int, tuple[Channel, int]] = {}  # by guest, with its handle
        self._waiting: dict[int, int] = {}  # handles on full pipes, by the pipe's writer
        self._timeouts: list[int] = []
        self._queue: list[Happening] = []
        self._actions: deque[Action] = deque()

    def open(self, guests: Iterable[int]) -> None:
        """Any thread, under the world's lock.  OSError, or the bridge's error: `close` then undoes what was done."""
        model = self._model
        # A bridge that is closed takes its hypervisor with it.
        self._clock = model.add_timeout(-1, self._due, None, lambda _: self._session.close())
        self._timeouts.append(self._clock)
        self._delivery = model.add_timeout(-1, self._deliver)
        self._timeouts.append(self._delivery)
        for guest in guests:
            self.attach(guest)

    def attach(self, guest: int) -> None:
        """As `open`."""
        channel = Channel.pipe()
        try:
            handle = self._model.add_handle(channel.reader, READABLE, self._readable, channel)
        except BaseException:
            channel.close()
            raise
        self._channels[guest] = (channel, handle)

    def detach(self, guest: int) -> None:
        """Any thread, under the world's lock."""
        if guest not in self._channels:
            return
        channel, handle = self._channels.pop(guest)
        self._remove_handle(handle)
        if channel.writer in self._waiting:
            self._remove_handle(self._waiting.pop(channel.writer))
        channel.close()

    # -- the clock

    def arm(self) -> None:
        """For what is due next.  Any thread, under the world's lock."""
        at = self._world.next_at()
        # Rounded up: never early (T3).
        ms = -1 if at is None else max(0, -int((monotonic() - at) * 1000 // 1))
        with suppress(EventBridgeError):  # the bridge was closed meanwhile
            self._model.update_timeout(self._clock, 0 if self._actions else ms)

    def _due(self, id: int, opaque: object) -> None:
        """Something happens in the guests, or it is a call's turn."""
        with self._world.lock:
            if not self._session.is_open:
                with suppress(EventBridgeError):  # it was removed meanwhile
                    self._model.update_timeout(id, -1)
                return
            self._world.advance()
            if not self._actions:
                self._actions = self._world.due()
        until = monotonic() + BUDGET_SECONDS  # D2: the rest in another pass
        try:
            while self._actions and monotonic() < until:
                self._actions.popleft()()
        finally:
            self._go_on()

    def _go_on(self) -> None:
        with self._world.lock:
            if self._session.is_open:
                self.arm()
            else:
                self._world.hand_on(self._actions)
                self._actions.clear()

    # -- what travels

    def send(self, guest: int, records: bytes) -> None:
        """Any thread, under the world's lock."""
        if guest not in self._channels:
            return  # the bridge was closed when it came
        channel = self._channels[guest][0]
        channel.send(records)
        if channel.blocked and channel.writer not in self._waiting:
            with suppress(EventBridgeError):  # the bridge was closed meanwhile
                handle = self._model.add_handle(channel.writer, WRITABLE, self._writable, channel)
                self._waiting[channel.writer] = handle

    def _writable(self, id: int, fd: int, events: int, channel: Channel) -> None:
        with self._world.lock:
            if self._waiting.get(channel.writer) != id:
                return
            channel.flush()
            if not channel.blocked:
                self._model.remove_handle(self._waiting.pop(channel.writer))

    def _readable(self, id: int, fd: int, events: int, channel: Channel) -> None:
        with self._world.lock:
            if channel.closed:
                return
            self._queue += channel.receive()
            if self._queue:
                self.deliver_soon()

    def deliver_soon(self) -> None:
        """Any thread, under the world's lock."""
        with suppress(EventBridgeError):  # the bridge was closed meanwhile
            self._model.update_timeout(self._delivery, 0)

    def _deliver(self, id: int, opaque: object) -> None:
        with self._world.lock:
            if self._session.closed:
                return
            queue, self._queue = self._queue, []
            self._model.update_timeout(self._delivery, -1)
        self._session.deliver(queue)

    # -- the end

    def unplug(self) -> None:
        """Close every pipe.  Any thread, under the world's lock; the bridge may be gone already.  Idempotent."""
        for guest in list(self._channels):
            self.detach(guest)
        self._queue.clear()

    def close(self) -> None:
        """As `unplug`, and no callback begins any more."""
        self.unplug()
        while self._timeouts:
            with suppress(EventBridgeError):
                self._model.remove_timeout(self._timeouts.pop())

    def _remove_handle(self, id: int) -> None:
        with suppress(EventBridgeError):
            self._model.remove_handle(id)
