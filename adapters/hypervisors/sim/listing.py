"""The answer to ``list``: made in pieces, so that ten thousand domains do not hold the loop up, and true at its end.

Who changes while it is made is looked at once more in the last piece, which is made together with the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbridge.hypervisor.model import DomainInfo
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted

from .guests import Guest, State

if TYPE_CHECKING:
    from .session import Session

PIECE = 256
"""Domains that are looked at in one callback: about a millisecond."""


class Listing:
    """Under the world's lock from its making to its first `go_on`; then by itself."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._left = list(session.world.cast)
        self._left.reverse()
        self._seen: dict[Guest, DomainInfo] = {}
        self._changed: set[Guest] = set()
        session.world.listings.append(self._changed)

    def go_on(self) -> None:
        """A loop's thread."""
        world = self._session.world
        with world.lock:
            for _ in range(min(PIECE, len(self._left))):
                self._look_at(self._left.pop())
            over = self._request.aborted or not self._session.has(self._request)
            if self._left and not over:
                world.schedule(0, self.go_on)
                self._session.arm()
                return
            world.listings.remove(self._changed)
            for guest in self._changed:
                self._look_at(guest)
            error = JobAborted(f"{self._session.uri}: list: aborted") if self._request.aborted else None
            self._session.finish(self._request, list(self._seen.values()), error)

    def _look_at(self, guest: Guest) -> None:
        if guest.state is State.ABSENT:
            self._seen.pop(guest, None)
        else:
            self._seen[guest] = guest.info()
