"""A host that turns when the test says so, as if another thread ran it; and calls on the threads of real ones."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Any

from eventbridge import Bridge, HostUnavailable
from tests.support.patience import PATIENCE


class StandIn:
    """Stands in for a host whose loop another thread runs: what is left for it is done when the test says `turn`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.here = False
        self.closed = False
        self.watched: dict[int, Callable[[], None]] = {}
        self.soon: collections.deque[Callable[[], None]] = collections.deque()
        self.refuses: Exception | None = None
        self.elsewhere: list[str] = []

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._look("watch")
        if self.refuses is not None:
            raise self.refuses
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        self._look("unwatch")
        self.watched.pop(fd, None)

    def _look(self, what: str) -> None:
        if not self.here:
            self.elsewhere.append(what)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        if self.closed:
            raise HostUnavailable("this stand-in is closed")
        self.soon.append(callback)

    def is_loop_thread(self) -> bool:
        return self.here

    def report(self, exception: BaseException, context: str) -> None:
        raise exception

    def turn(self) -> None:
        self.here = True
        for _ in range(len(self.soon)):
            self.soon.popleft()()
        for callback in list(self.watched.values()):
            callback()
        self.here = False


def from_another_thread(step: Callable[[], Any]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def in_a_callback(bridge: Bridge, step: Callable[[], Any]) -> None:
    """On the loop's thread, in a pass; returns when it is done."""
    done = threading.Event()

    def fire(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        step()
        done.set()

    bridge.add_timeout(0, fire)
    assert done.wait(PATIENCE)
