"""tinyloop: an event loop of sixty lines over poll(2).  It knows nothing of eventbridge."""

from __future__ import annotations

import collections
import os
import select
import threading
from collections.abc import Callable

_here = threading.local()


def current() -> Loop | None:
    """The loop that is running in this thread."""
    return getattr(_here, "loop", None)


class Loop:
    """Readers, and calls from any thread."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._stopping = False
        self.add_reader(self._bell, self._rung)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._poll.register(fd, select.POLLIN)

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Any thread."""
        self._calls.append(callback)
        os.eventfd_write(self._bell, 1)

    def _rung(self) -> None:
        os.eventfd_read(self._bell)
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    def run(self) -> None:
        """Until `stop`; what a callback raises comes out of it."""
        outer, _here.loop = current(), self
        self._stopping = False
        try:
            while not self._stopping:
                for fd, _ in self._poll.poll():
                    if fd in self._readers:
                        self._readers[fd]()
        finally:
            self._stopping = False
            _here.loop = outer

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self.remove_reader(self._bell)
        os.close(self._bell)
