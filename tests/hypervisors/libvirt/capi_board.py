"""The board of the eventtest cases: 31 pipes and 31 timers, registered with libvirt, and a record of who was called.

A call is recorded with all that the callback was told, so that a wrong watch, fd or event shows.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import libvirt

from eventbridge.testing.conformance.harness import PATIENCE, Rig

COUNT = 31
LAST = COUNT - 1
READABLE = libvirt.VIR_EVENT_HANDLE_READABLE

Call = tuple[Any, ...]


class Board:
    """A handle's callback reads one byte, a timer's disables the timer; then each does what ``then`` says for it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.calls: list[Call] = []
        self.then: dict[tuple[str, int], Callable[[], object]] = {}
        self.pipes = [rig.pipe() for _ in range(COUNT)]
        self.handles = [
            libvirt.virEventAddHandle(reader, READABLE, self._readable, n) for n, (reader, _) in enumerate(self.pipes)
        ]
        self.timers = [libvirt.virEventAddTimeout(-1, self._expired, n) for n in range(COUNT)]

    def _readable(self, watch: int, fd: int, events: int, n: int) -> None:
        os.read(fd, 1)
        self._record(("handle", n), watch, fd, events)

    def _expired(self, timer: int, n: int) -> None:
        libvirt.virEventUpdateTimeout(timer, -1)
        self._record(("timer", n), timer)

    def _record(self, who: tuple[str, int], *told: int) -> None:
        self.calls.append((*who, *told))
        if who in self.then:
            self.then[who]()
        self.rig.note(who)

    # -- what a test does

    def write(self, *numbers: int) -> None:
        for n in numbers:
            os.write(self.pipes[n][1], b"!")

    def fire(self, ms: int, *numbers: int) -> None:
        for n in numbers:
            libvirt.virEventUpdateTimeout(self.timers[n], ms)

    def remove_handle(self, n: int) -> None:
        libvirt.virEventRemoveHandle(self.handles[n])

    def remove_timer(self, n: int) -> None:
        libvirt.virEventRemoveTimeout(self.timers[n])

    @contextlib.contextmanager
    def while_polling(self, act: Callable[[], object]) -> Iterator[None]:
        """Another thread does this once the loop turns; the block is where the test waits."""
        turning = threading.Event()

        def run() -> None:
            if turning.wait(PATIENCE):
                act()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.rig.bridge.host.call_soon_threadsafe(turning.set)
        yield
        thread.join(PATIENCE)
        assert not thread.is_alive()

    # -- what it expects

    def handle(self, n: int) -> Call:
        """The call of handle n that is right."""
        return ("handle", n, self.handles[n], self.pipes[n][0], READABLE)

    def timer(self, n: int) -> Call:
        return ("timer", n, self.timers[n])

    def called(self, *expected: Call) -> None:
        """These calls are made, in whatever order, and no other."""
        assert self.called_one_of([*expected], how_many=len(expected)) == sorted(expected)

    def called_one_of(self, expected: list[Call], how_many: int = 1) -> list[Call]:
        """So many of these calls are made, and no other; returns them, sorted."""
        self.rig.until(lambda: len(self.calls) >= how_many)
        self.rig.settle()
        calls, self.calls = sorted(self.calls), []
        assert len(calls) == how_many
        assert set(calls) <= set(expected)
        return calls
