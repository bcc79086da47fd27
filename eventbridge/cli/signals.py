"""Ctrl-C and SIGTERM as the bridge's own events, the same on every host loop.

A Python signal handler runs between any two lines of the main thread, perhaps inside the registry.  So it does no
more than write to a pipe, and what is to happen happens in a pass, which also wakes a loop that sleeps.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from eventbridge.bridge import Bridge
from eventbridge.core.masks import Events

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_signals(bridge: Bridge, end: Callable[[], None]) -> Iterator[None]:
    """Call ``end()`` on the loop at the first SIGINT or SIGTERM; a second raises KeyboardInterrupt, for whoever will
    not wait.  Main thread only.  A signal that is ignored, as a shell's background job ignores SIGINT, stays so.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    seen = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise KeyboardInterrupt
        os.write(writer, b"!")

    def ready(id: int, fd: int, events: int, opaque: object) -> None:
        os.read(fd, 1)
        end()

    handle = bridge.add_handle(reader, Events.READABLE, ready)
    wanted = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
        bridge.remove_handle(handle)
        os.close(reader)
        os.close(writer)
