"""What a bridge offers whoever wants to know how it fares.  Any thread may call any of it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from . import pulse
from .slow import Handler, SlowReport
from .stats import Stats, snapshot

if TYPE_CHECKING:
    from eventbridge.bridge import Bridge
    from eventbridge.core.observed import Observer

    from .server import Server
    from .tracing import Trace

DEBUG_SLOW_SECONDS = 0.1


class Diagnosed:
    """A bridge, as its operator sees it."""

    observers: tuple[Observer, ...] = ()
    """Who is told of what it does (observed.py)."""
    pulses: tuple[pulse.Pulse, ...] = ()
    """What measures its host's lag now."""
    _servers: tuple[Server, ...] = ()
    moves = 0
    """How often it was moved to another host."""

    def stats(self) -> Stats:
        """What it has done so far, and what is on it: a snapshot, which costs nothing but when it is asked for (0.5 ms
        with 1000 handles).
        """
        return snapshot(self._bridge)

    def report_slow(self, seconds: float, handler: Handler | None = None, *, stack: bool = False) -> SlowReport:
        """Have ``handler(slow)`` told of each callback that takes ``seconds`` or more: which handle or timeout it is
        of, which hypervisor's, and how long it took (`SlowCallback`).  Until `SlowReport.close`, or the end of a
        ``with`` block.

        It is told on the loop's thread when the callback has returned, and, of one that blocks still, before that by
        a thread of its own (within a quarter of ``seconds``); with ``stack`` it is also told what the loop's thread is
        at there.  Without a handler it is a warning of the logger "eventbridge".  While it is on a callback costs
        about 2 us more.
        """
        return SlowReport(self._bridge, seconds, handler, stack=stack)

    def diagnose(self, pulse_seconds: float = pulse.SECONDS) -> pulse.Pulse:
        """Measure from now on how late the host calls: `Pulse.lag`, or ``stats().host_lag``.  The loop is woken every
        ``pulse_seconds`` for that, until `Pulse.close` or the end of a ``with`` block.
        """
        return pulse.Pulse(self._bridge, pulse_seconds)

    def trace(self, limit: int = 100_000, *, pulse_seconds: float | None = 0.1) -> Trace:
        """Record what happens from now on: passes, callbacks, the host's time between them, jobs, calls, errors, lost
        connections; until `Trace.stop` or the end of a ``with`` block.  ``trace.write(path)`` makes it a file that
        https://ui.perfetto.dev and chrome://tracing open.

        Of each of two kinds, what the loop does and what calls and jobs do, the last ``limit`` are kept, at about 200
        bytes each.  ``pulse_seconds``: how often the host's lag is measured; None: not.
        """
        from .tracing import Trace

        return Trace(self._bridge, limit, pulse_seconds=pulse_seconds).start()

    def serve_diagnosis(self, path: str | os.PathLike[str]) -> Server:
        """Answer on a Unix socket at ``path``, which only this user may open, who asks how this bridge fares:
        ``eventbridge trace PATH``.  Until `Server.close`, or the end of a ``with`` block, or of the bridge.

        A thread of its own answers, so that a loop that hangs can be asked about.  FileExistsError where somebody
        answers there already, or it is another kind of file.  EVENTBRIDGE_DIAGNOSIS=PATH in the environment does it
        for all bridges of a process.
        """
        from .server import Server

        self._bridge.check()
        bridge = weakref.ref(self._bridge)
        server = Server(path, lambda: [found for found in (bridge(),) if found is not None])
        self._servers = (*self._servers, server)
        return server

    @property
    def _bridge(self) -> Bridge:
        return cast("Bridge", self)

    def _begin_diagnosis(self, debug: bool) -> None:
        """The end of a bridge's making."""
        if debug:
            self.report_slow(DEBUG_SLOW_SECONDS, stack=True)
        for told in list(BORN):
            told(self._bridge)
        path = os.environ.get(ENVIRONMENT)
        if path:
            from .process_wide import serve

            serve(path)

    def _end_diagnosis(self) -> None:
        """It is closed."""
        for server in self._servers:
            server.close()


ENVIRONMENT = "EVENTBRIDGE_DIAGNOSIS"
BORN: list[Callable[[Bridge], object]] = []
"""Told of each bridge that is made, on whichever thread makes it."""
