"""All bridges of a process: traced from their making on, or asked about on one socket.  Any thread."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Iterator

from eventbridge.core.bridge import BORN, BridgeCore, living
from eventbridge.errors import BridgeClosed, BridgeForked

from .server import Server
from .tracing import Trace

log = logging.getLogger("eventbridge")
_lock = threading.Lock()
_served: set[tuple[int, str]] = set()  # by this very process


@contextlib.contextmanager
def traced(limit: int) -> Iterator[list[Trace]]:
    """A trace of each bridge there is, and of each that is made, until the block ends; ``limit`` as `Bridge.trace`
    has it.
    """
    traces: list[Trace] = []

    def begin(bridge: BridgeCore) -> None:
        with contextlib.suppress(BridgeClosed, BridgeForked):
            traces.append(Trace(bridge, limit).start())

    for bridge in living():
        begin(bridge)
    BORN.append(begin)
    try:
        yield traces
    finally:
        BORN.remove(begin)
        for trace in traces:
            trace.stop()


def serve(path: str) -> None:
    """What EVENTBRIDGE_DIAGNOSIS asks for: once in a process, until it ends.  Where it cannot be, as in a child of who
    serves there, that is logged: it is no reason for a daemon not to run.
    """
    with _lock:
        if (os.getpid(), path) in _served:
            return
        _served.add((os.getpid(), path))
    try:
        server = Server(path, living)
    except OSError as error:
        log.warning("no diagnosis on %s: %s", path, error)
    else:
        atexit.register(server.close)
