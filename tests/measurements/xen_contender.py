"""Ours in the benchmark of Xen's events: ``libxl:///`` on one host loop, told what to do by lines on standard input as
``libxl_loop.c`` is, and answering alike.

    python -m tests.measurements.xen_contender LOOP

The main thread runs the loop; the URI is opened on a thread of its own, as a daemon would."""

from __future__ import annotations

import os
import resource
import sys
import threading
from functools import partial

from eventbridge import Bridge, Events
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind

URI = "libxl:///"


class Contender:
    """Counts what is told until it is asked."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._started: set[int] = set()
        self._ended = 0
        self._awaited: int | None = None
        self._wanted: range | None = None
        self._cpu = 0.0
        self._line = b""

    def open(self) -> None:
        self._subscription = lookup.find(URI).subscribe(URI, self._bridge, self._told)
        self._bridge.add_handle(sys.stdin.fileno(), Events.READABLE, self._read)

    def _told(self, event: DomainEvent) -> None:
        if event.kind is Kind.STARTED and event.domain is not None and event.domain.id is not None:
            self._started.add(event.domain.id)
            self._answer_if_ready()
        elif event.kind in (Kind.SHUTDOWN, Kind.STOPPED):
            self._ended += 1
            self._answer_if_done()

    def _answer_if_ready(self) -> None:
        if self._wanted is not None and self._started.issuperset(self._wanted):
            self._wanted = None
            self._started.clear()
            self._cpu = cpu()
            print("ready", flush=True)

    def _answer_if_done(self) -> None:
        if self._awaited is not None and self._ended >= self._awaited:
            print(f"done {cpu() - self._cpu:.6f}", flush=True)
            self._ended -= self._awaited
            self._awaited = None
            self._cpu = cpu()

    def _read(self, id: int, fd: int, events: int, opaque: object) -> None:
        got = os.read(fd, 4096)
        if not got:
            self._bridge.remove_handle(id)
            threading.Thread(target=self._close).start()
        *lines, self._line = (self._line + got).split(b"\n")
        for line in lines:
            word, *numbers = line.split()
            if word == b"follow":
                first, count = map(int, numbers)
                self._wanted = range(first, first + count)
                self._answer_if_ready()
            else:
                self._awaited = int(numbers[0])
                self._answer_if_done()

    def _close(self) -> None:
        self._subscription.close()
        self._bridge.stop()


def cpu() -> float:
    """Seconds, of all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(loop: str) -> None:
    if loop == "uvloop":
        import asyncio

        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        loop = "asyncio"
    with Bridge(loop) as bridge:
        threading.Thread(target=partial(Contender(bridge).open), daemon=True).start()
        bridge.run()


if __name__ == "__main__":
    main(sys.argv[1])
