"""What must and must not happen to one registration, and the list of what did.

A registration's owner holds the lock of its *subject* (a file, a timeout) around every change it makes, and every
callback takes that lock first: so what was asked for is always known when a call is judged.  A change made on the
loop's thread counts at once (H5); one made on another may be overtaken by one call that the dispatcher had already
decided on (H6), and by no second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from eventbridge.testing.patience import PATIENCE

KEPT = 20
"""Complaints kept in words; the rest is counted."""


class Planted(Exception):
    """What a callback or a free raises on purpose; each is to be told once (D4)."""


class Ledger:
    """What was found so far.  Any thread."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience  # s
        self.loop_thread = threading.get_ident()
        self.callbacks = 0
        self.added = 0  # registrations, each of which is owed one free
        self.freed = 0
        self.lost = 0
        self.wrong = 0
        self.told = 0  # planted exceptions
        self.in_free: Callable[[], None] | None = None  # what else happens in every free
        self.complaints: list[str] = []
        self._lock = threading.RLock()  # the handler of a signal may come in

    def add(self) -> None:
        with self._lock:
            self.added += 1

    def lose(self, what: str) -> None:
        """Something that should have come has not."""
        with self._lock:
            self.lost += 1
            self._complain(f"lost: {what}")

    def accuse(self, what: str) -> None:
        """Something happened that must not."""
        with self._lock:
            self.wrong += 1
            self._complain(f"wrong: {what}")

    def on_error(self, error: BaseException, context: str) -> None:
        """The bridge's."""
        if isinstance(error, Planted):
            self.told += 1
        else:
            self.accuse(f"{error!r} {context}")

    def _complain(self, what: str) -> None:
        if len(self.complaints) < KEPT:
            self.complaints.append(what)


class Registration:
    """One handle or timeout; the ``opaque`` of its callback and of its free."""

    __slots__ = ("allowed", "asked", "freed", "id", "ledger", "live", "lock", "orphan", "running", "what")

    def __init__(self, what: str, asked: int, ledger: Ledger, lock: threading.Lock) -> None:
        self.what = what
        self.asked = asked  # the events it may be told of; for a timeout 1, or 0 while it is disabled
        self.ledger = ledger
        self.lock = lock  # its subject's
        self.id = 0
        self.allowed = 0  # calls that may still overtake its last change
        self.live = True
        self.freed = False
        self.orphan = False  # its fd was closed before it was removed
        self.running = 0  # calls that have not returned
        ledger.add()

    def changed(self, asked: int, *, by_loop: bool) -> None:
        self.asked = asked
        self.allowed = 0 if by_loop else 1

    def removed(self, *, by_loop: bool) -> None:
        self.live = False
        self.changed(0, by_loop=by_loop)

    def overtaken(self, why: str) -> None:
        """A call that does not fit what was asked for last: allowed, or wrong."""
        if self.allowed:
            self.allowed -= 1
        else:
            self.ledger.accuse(f"{self.what} {self.id} {why}")

    def called(self, told: int) -> bool:
        """Is this call as it should be?  Under the lock, in every callback."""
        self.ledger.callbacks += 1
        if threading.get_ident() != self.ledger.loop_thread:
            self.ledger.accuse(f"{self.what} {self.id} was called on another thread than the loop's (D1)")
        if self.freed:
            self.ledger.accuse(f"{self.what} {self.id} was called after its free (H7)")
        if self.running:
            self.ledger.accuse(f"{self.what} {self.id} was called while its callback runs (D5)")
        if not self.live:
            self.overtaken("was called after it was removed (H5, H6)")
            return False
        if told & ~self.asked or not told:
            self.overtaken(f"was told {told}, having asked for {self.asked} (H2, H5)")
            return False
        return True


def on_free(registration: Any) -> None:
    """The ``free`` of every registration (H7)."""
    ledger: Ledger = registration.ledger
    ledger.freed += 1
    if threading.get_ident() != ledger.loop_thread:
        ledger.accuse(f"{registration.what} {registration.id} was freed on another thread than the loop's (H7)")
    if registration.running:
        ledger.accuse(f"{registration.what} {registration.id} was freed while its callback runs (H7)")
    # A free inside remove, or inside its own callback, finds its lock taken by this very thread.
    if not registration.lock.acquire(timeout=ledger.patience):
        ledger.accuse(f"{registration.what} {registration.id} was freed inside its own callback or removal (H7)")
        return
    try:
        if registration.freed:
            ledger.accuse(f"{registration.what} {registration.id} was freed twice (H7)")
        if registration.live:
            ledger.accuse(f"{registration.what} {registration.id} was freed while registered (H7)")
        registration.freed = True
    finally:
        registration.lock.release()
    if ledger.in_free is not None:
        ledger.in_free()
