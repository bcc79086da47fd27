"""Bridge: what an application holds.  The core's bridge, and what its operator asks of it."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from .core.affinity import DEBUG
from .core.bridge import BridgeCore, ErrorHandler
from .core.host import HostLoop
from .core.poller import PollerProtocol
from .diagnosis import pulse
from .diagnosis.slow import Handler, SlowReport
from .diagnosis.stats import Stats, snapshot

if TYPE_CHECKING:
    from .diagnosis.server import Server
    from .diagnosis.tracing import Trace

DEBUG_SLOW_SECONDS = 0.1
ENVIRONMENT = "EVENTBRIDGE_DIAGNOSIS"
"""A path: all bridges of the process are served there (`Bridge.serve_diagnosis`)."""


class Bridge(BridgeCore):
    """One dispatcher on one host loop.

    ``host`` is a name (``"select"``, ``"libuv"``, ``"asyncio"``...), a `HostLoop`, or None for the loop that is
    running in this thread.  By name, a host that finds no running loop makes one of its own, to be run by `run`.
    ``on_error(exception, context)`` is called with each exception of a callback or free, on the loop thread; without
    it the host loop's own exception handler is.  ``debug``: callbacks of 0.1 s and more are logged, with their stack
    (`report_slow`); by default so in Python's development mode (see affinity.py).

    Raises `HostUnavailable` if there is no such host or no such loop.  Every method may be called from any thread
    unless it says otherwise.  Upstream of the six: libvirt's ``virEventRegisterImpl`` (libvirt-event.h).
    """

    def __init__(
        self,
        host: HostLoop | str | None = None,
        *,
        on_error: ErrorHandler | None = None,
        poller: PollerProtocol | None = None,
        debug: bool = DEBUG,
    ) -> None:
        self._servers: tuple[Server, ...] = ()
        super().__init__(host, on_error=on_error, poller=poller)
        if debug:
            self.report_slow(DEBUG_SLOW_SECONDS, stack=True)
        path = os.environ.get(ENVIRONMENT)
        if path:
            from .diagnosis.process_wide import serve

            serve(path)

    def stats(self) -> Stats:
        """What it has done so far, and what is on it: a snapshot, which costs nothing but when it is asked for (0.5 ms
        with 1000 handles).
        """
        return snapshot(self)

    def report_slow(self, seconds: float, handler: Handler | None = None, *, stack: bool = False) -> SlowReport:
        """Have ``handler(slow)`` told of each callback that takes ``seconds`` or more: which handle or timeout it is
        of, which hypervisor's, and how long it took (`SlowCallback`).  Until `SlowReport.close`, or the end of a
        ``with`` block.

        It is told on the loop's thread when the callback has returned, and, of one that blocks still, before that by
        a thread of its own (within a quarter of ``seconds``); with ``stack`` it is also told what the loop's thread is
        at there.  Without a handler it is a warning of the logger "eventbridge".  While it is on a callback costs
        about 2 us more.
        """
        return SlowReport(self, seconds, handler, stack=stack)

    def diagnose(self, pulse_seconds: float = pulse.SECONDS) -> pulse.Pulse:
        """Measure from now on how late the host calls: `Pulse.lag`, or ``stats().host_lag``.  The loop is woken every
        ``pulse_seconds`` for that, until `Pulse.close` or the end of a ``with`` block.
        """
        return pulse.Pulse(self, pulse_seconds)

    def trace(self, limit: int = 100_000, *, pulse_seconds: float | None = 0.1) -> Trace:
        """Record what happens from now on: passes, callbacks, the host's time between them, jobs, calls, errors, lost
        connections; until `Trace.stop` or the end of a ``with`` block.  ``trace.write(path)`` makes it a file that
        https://ui.perfetto.dev and chrome://tracing open.

        Of each of two kinds, what the loop does and what calls and jobs do, the last ``limit`` are kept, at about 200
        bytes each.  ``pulse_seconds``: how often the host's lag is measured; None: not.
        """
        from .diagnosis.tracing import Trace

        return Trace(self, limit, pulse_seconds=pulse_seconds).start()

    def serve_diagnosis(self, path: str | os.PathLike[str]) -> Server:
        """Answer on a Unix socket at ``path``, which only this user may open, who asks how this bridge fares:
        ``eventbridge trace PATH``.  Until `Server.close`, or the end of a ``with`` block, or of the bridge.

        A thread of its own answers, so that a loop that hangs can be asked about.  FileExistsError where somebody
        answers there already, or it is another kind of file.  EVENTBRIDGE_DIAGNOSIS=PATH in the environment does it
        for all bridges of a process.
        """
        from .diagnosis.server import Server

        self.check()
        bridge = weakref.ref(self)
        server = Server(path, lambda: [found for found in (bridge(),) if found is not None])
        self._servers = (*self._servers, server)
        return server

    def has_ended(self, host: HostLoop) -> None:
        """End what serves the bridge's diagnosis, then the bridge; as `binding.Mover.has_ended`."""
        for server in self._servers:
            server.close()
        super().has_ended(host)


def attach(*, on_error: ErrorHandler | None = None) -> Bridge:
    """Return a new bridge on the loop that is running in this thread, whichever it is.

    Raises `HostUnavailable` if none is running.
    """
    return Bridge(on_error=on_error)
