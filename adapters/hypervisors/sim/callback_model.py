"""The half of the simulated hypervisor that registers with us, as libvirt and libxl 4.2 do.

It is given the bridge as its `CallbackModel` and nothing else of it.  It registers a pipe for each domain, a timeout
for its guests' next happening, and one that delivers what has been read (libvirt's test driver does so: -1, set to 0
by each event, and back to -1 when the queue is empty).  A guest whose pipe is full waits with a handle of its own for
the pipe to be writable.

Like a real library it calls the bridge with its lock held, and delivers without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from eventbridge.errors import EventBridgeError
from eventbridge.masks import Events
from eventbridge.models import CallbackModel

from .guests import Happening
from .wire import Channel, encode

if TYPE_CHECKING:
    from .simulation import Simulation

READABLE, WRITABLE = int(Events.READABLE), int(Events.WRITABLE)


class CallbackLibrary:
    """Lane ``lane`` of a simulation.  Its callbacks find it closed where they were decided on before their removal
    by another thread (H6).
    """

    def __init__(self, simulation: Simulation, lane: int, model: CallbackModel) -> None:
        self._simulation = simulation
        self._lane = lane
        self._model = model
        self._channels: dict[int, Channel] = {}  # by guest
        self._handles: list[int] = []
        self._waiting: dict[int, int] = {}  # handles on full pipes, by the pipe's writer
        self._timeouts: list[int] = []
        self._queue: list[Happening] = []

    def open(self, guests: Iterable[int]) -> None:
        """Any thread, under the simulation's lock.  OSError, or the bridge's error: `close` then undoes what was
        done.
        """
        model = self._model
        # A bridge that is closed takes its hypervisor with it.
        self._clock = model.add_timeout(-1, self._due, None, lambda _: self._simulation.close())
        self._timeouts.append(self._clock)
        self._delivery = model.add_timeout(-1, self._deliver)
        self._timeouts.append(self._delivery)
        for guest in guests:
            channel = self._channels[guest] = Channel.pipe()
            self._handles.append(model.add_handle(channel.reader, READABLE, self._readable, channel))

    def start(self) -> None:
        """The guests begin to live.  Under the simulation's lock."""
        self._model.update_timeout(self._clock, self._simulation.milliseconds_until_next(self._lane))

    def _due(self, id: int, opaque: object) -> None:
        """Something happens in the guests."""
        with self._simulation.lock:
            if self._simulation.closed:
                return
            for happening in self._simulation.due(self._lane):
                channel = self._channels[happening.guest]
                channel.send(encode(happening))
                if channel.blocked:
                    self._wait_for_room(channel)
            self.start()

    def _wait_for_room(self, channel: Channel) -> None:
        if channel.writer not in self._waiting:
            self._waiting[channel.writer] = self._model.add_handle(channel.writer, WRITABLE, self._writable, channel)

    def _writable(self, id: int, fd: int, events: int, channel: Channel) -> None:
        with self._simulation.lock:
            if self._simulation.closed:
                return
            channel.flush()
            if not channel.blocked:
                self._model.remove_handle(self._waiting.pop(channel.writer))

    def _readable(self, id: int, fd: int, events: int, channel: Channel) -> None:
        with self._simulation.lock:
            if self._simulation.closed:
                return
            self._queue += channel.receive()
            if self._queue:
                self.deliver_soon()

    def deliver_soon(self) -> None:
        """Under the simulation's lock."""
        self._model.update_timeout(self._delivery, 0)

    def _deliver(self, id: int, opaque: object) -> None:
        with self._simulation.lock:
            if self._simulation.closed:
                return
            queue, self._queue = self._queue, []
            self._model.update_timeout(self._delivery, -1)
        self._simulation.deliver(queue)

    def close(self) -> None:
        """Any thread, after the simulation was marked closed.  The bridge may be gone already."""
        for remove, ids in (
            (self._model.remove_handle, [*self._handles, *self._waiting.values()]),
            (self._model.remove_timeout, self._timeouts),
        ):
            for id in ids:
                with suppress(EventBridgeError):
                    remove(id)
        for channel in self._channels.values():
            channel.close()
