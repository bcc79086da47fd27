"""A host that turns when the test says so, once: nothing happens in between."""

from __future__ import annotations

import collections
import select
from collections.abc import Callable
from time import monotonic


class ManualHost:
    """A HostLoop without a loop: `turn` is one turn of it."""

    name = "manual"

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.soon: collections.deque[Callable[[], None]] = collections.deque()
        self.reported: list[tuple[BaseException, str]] = []
        self.here = True

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

    def turn(self, timeout: float = 0) -> bool:
        """Wait at most so many seconds; call what is ready; was anything?"""
        while self.soon:
            self.soon.popleft()()
        ready, _, _ = select.select(list(self.watched), [], [], timeout)
        for fd in ready:
            self.watched[fd]()
        return bool(ready)

    def turn_until(self, happened: Callable[[], bool], patience: float) -> bool:
        """Turn until then, for so many seconds; did it happen?"""
        give_up = monotonic() + patience
        while not happened() and monotonic() < give_up:
            self.turn(0.01)
        return happened()

    def turn_until_idle(self, most: int = 1000) -> int:
        """Turn while there is work; how often that was."""
        for turns in range(most):
            if not self.turn():
                return turns
        raise AssertionError(f"still busy after {most} turns")
