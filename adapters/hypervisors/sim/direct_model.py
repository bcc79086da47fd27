"""The half of the simulated hypervisor that we ask: a `DirectSource` for up to a hundred domains, as libxl 4.1 is.

It has one fd, a wish (to be readable), and a deadline: when something next happens in its guests.  Drained for its
deadline, it lets that happen; drained for its fd, it reads what came of it.

A full socket needs no wish to write: full means that there is something to read, and each read makes room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbridge.core.masks import Events

from .guests import Happening
from .wire import Channel

if TYPE_CHECKING:
    from .session import Session


class GuestSource:
    """Lane ``lane`` of a connection; a `eventbridge.core.models.DirectSource`."""

    def __init__(self, session: Session, lane: int) -> None:
        self._session = session
        self._world = session.world
        self._lane = lane
        self._channel = Channel.socketpair()

    def fileno(self) -> int:
        return self._channel.reader

    def events(self) -> int:
        return int(Events.READABLE)

    def deadline(self) -> float | None:
        with self._world.lock:
            return self._world.next_turn(self._lane) if self._session.is_open else None

    def drain(self, events: int) -> None:
        arrived: list[Happening] = []
        with self._world.lock:
            if self._channel.closed or not self._session.is_open:
                return  # decided on before the source was removed (H6)
            self._world.advance()
            if events:
                arrived = self._channel.receive()
            self._channel.flush()
        self._session.deliver(arrived)

    def send(self, records: bytes) -> None:
        """Any thread, under the world's lock."""
        self._channel.send(records)

    def detached(self) -> None:
        """Nothing to do: `close` closes the fds, on whichever thread."""

    def close(self) -> None:
        """Any thread, under the world's lock, after the source was removed."""
        self._channel.close()
