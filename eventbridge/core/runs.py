"""`Bridge.run`: the runs of host loops that are ours to run, each with the condition that ends it.

A bridge may be run on several hosts at once, for a while: one thread runs the loop that it is on, another the one that
it is about to move to.  So a condition belongs to a run, and is asked after the passes that its own host makes; where
runs are nested, the innermost's.  A run ends where the bridge leaves its host: there are no more passes there, after
which the condition would be asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from .dispatcher import Dispatcher
from .host import HostLoop, RunnableHost, on_loop

Condition: TypeAlias = Callable[[], bool]


class Runs:
    """Those of one bridge.  Any thread; its lock is held over these alone."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._lock = threading.RLock()  # a signal's handler may come in
        self._runs: list[_Run] = []

    def run(self, host: RunnableHost, until: Condition | None) -> None:
        """In this thread, until ``until()`` after a pass, or `end`."""
        run = _Run(host, until)
        with self._lock:
            self._runs.append(run)
            self._renew()
        try:
            host.run()
        finally:
            with self._lock:
                self._runs.remove(run)
                self._renew()
                outer = next((other for other in reversed(self._runs) if other.host is host), None)
            if outer is not None and outer.is_over:
                host.stop()

    def end(self, host: HostLoop) -> None:
        """The bridge has left that host.  On its thread, or where it is closed on any."""
        with self._lock:
            ended = [run for run in self._runs if run.host is host]
            for run in ended:
                run.is_over = True
        if ended:
            ended[-1].host.stop()

    def _renew(self) -> None:
        """What is asked after each pass.  One condition, as nearly always, without ado."""
        innermost = {id(run.host): run for run in self._runs}
        runs = [run for run in innermost.values() if run.until is not None]
        self._dispatcher.each_pass = None if not runs else runs[0].check if len(runs) == 1 else partial(_check, runs)


class _Run:
    __slots__ = ("host", "is_over", "until")

    def __init__(self, host: RunnableHost, until: Condition | None) -> None:
        self.host = host
        self.until = until
        self.is_over = False

    def check(self) -> None:
        """On the thread that has made a pass, which is this host's unless the bridge is on its way."""
        if self.until is not None and self.until():
            on_loop(self.host, self.host.stop)


def _check(runs: list[_Run]) -> None:
    for run in runs:
        run.check()
