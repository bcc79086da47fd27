"""A stand-in for a host: it has no loop, and takes a step when the test says so, once; nothing happens in between.

What a real host decides for itself is the test's to decide here: when there is a pass (`SteppingHost.step`), which
thread is the loop's (``here``), whether what was left for the loop is called (``soon``).
"""

from __future__ import annotations

import collections
import select
from collections.abc import Callable
from time import monotonic


class SteppingHost:
    """A `HostLoop` in the test's hand.  Not ours to run: `Bridge.run` refuses it."""

    name = "stepping"

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.soon: collections.deque[Callable[[], None]] = collections.deque()
        self.reported: list[tuple[BaseException, str]] = []
        """What `report` was told: each exception with its context."""
        self.here = True
        """Is the thread that asks the loop's?  Set it to False to be another."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def is_loop_thread(self) -> bool:
        return self.here

    def report(self, exception: BaseException, context: str) -> None:
        self.reported.append((exception, context))

    def step(self, timeout: float = 0) -> bool:
        """One turn of the loop: make the calls that were left for it, wait at most ``timeout`` seconds, and call what
        is ready; a bridge has one pass.  True if anything was ready.  What a callback raises through the host (D4)
        comes out of it.
        """
        while self.soon:
            self.soon.popleft()()
        ready, _, _ = select.select(list(self.watched), [], [], timeout)
        for fd in ready:
            if fd in self.watched:
                self.watched[fd]()
        return bool(ready)

    def step_until(self, happened: Callable[[], bool], patience: float) -> bool:
        """Step until then, for at most so many seconds of real time; did it happen?  For what other threads and
        processes do.
        """
        give_up = monotonic() + patience
        while not happened() and monotonic() < give_up:
            self.step(0.01)
        return happened()

    def step_until_idle(self, most: int = 1000) -> int:
        """Step while there is work; how often that was.  AssertionError where there is no end of it."""
        for steps in range(most):
            if not self.step():
                return steps
        raise AssertionError(f"still busy after {most} steps")
