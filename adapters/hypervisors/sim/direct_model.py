"""The half of the simulated hypervisor that we ask: a `DirectSource` for up to a hundred domains, as libxl 4.1 is.

It has one fd, a wish (to be readable), and a deadline: when something next happens in its guests.  Drained for its
deadline, it lets that happen; drained for its fd, it reads what came of it.

A full socket needs no wish to write: full means that there is something to read, and each read makes room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eventbridge.masks import Events

from .wire import Channel, encode

if TYPE_CHECKING:
    from .simulation import Simulation

PER_SOURCE = 100
"""Domains behind one fd."""


class GuestSource:
    """Lane ``lane`` of a simulation; a `eventbridge.models.DirectSource`."""

    def __init__(self, simulation: Simulation, lane: int) -> None:
        self._simulation = simulation
        self._lane = lane
        self._channel = Channel.socketpair()

    def fileno(self) -> int:
        return self._channel.reader

    def events(self) -> int:
        return int(Events.READABLE)

    def deadline(self) -> float | None:
        with self._simulation.lock:
            return self._simulation.next_at(self._lane)

    def drain(self, events: int) -> None:
        with self._simulation.lock:
            if self._simulation.closed:
                return  # decided on before the source was removed (H6)
            happened = b"".join(encode(happening) for happening in self._simulation.due(self._lane))
            if happened:
                self._channel.send(happened)
            arrived = self._channel.receive() if events else []
            self._channel.flush()
        self._simulation.deliver(arrived)

    def detached(self) -> None:
        """Nothing to do: `close` closes the fds, on whichever thread."""

    def close(self) -> None:
        """Any thread, after the simulation was marked closed and the source removed."""
        self._channel.close()


def lanes(guests: Sequence[int]) -> list[Sequence[int]]:
    """The guests of each source."""
    return [guests[start : start + PER_SOURCE] for start in range(0, len(guests), PER_SOURCE)]
