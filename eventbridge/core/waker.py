"""A bell: what a task that waits for something leaves behind, for whoever makes it come true to ring.

The two are on one thread as a rule, and on two where the bridge has moved away from the task's loop.  So nothing here
is looked at and then taken: a pop from a list is both.  Whoever waits leaves his ``done`` first and then looks whether
what he waits for has come already; whoever rings has made it come before.  So one of the two always sees the other.
Any thread; ``done`` is `AwaitingHost.wait_for`'s, which any thread may call, and more than once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable


class Bell:
    """For one at a time who waits.  ``if bell.waits: bell.ring()`` spares the call where nobody does."""

    __slots__ = ("waits",)

    def __init__(self) -> None:
        self.waits: list[Callable[[], None]] = []

    def wait(self, done: Callable[[], None], come: Callable[[], bool]) -> None:
        """Have ``done()`` called by the next ring; or now, where it has ``come()`` already."""
        self.waits[:] = (done,)  # in the place of one that was given up
        if come():
            self.ring()

    def ring(self) -> None:
        """Whoever waits."""
        with contextlib.suppress(IndexError):  # another thread has taken the last
            while self.waits:
                self.waits.pop()()
