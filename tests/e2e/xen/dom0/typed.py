"""A guest's console, opened through a bridge."""

from __future__ import annotations

from collections.abc import Callable

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.console import console_info
from eventbridge.adapters.hypervisors.xen.xenstore import open_store
from eventbridge.connection.console_session import ConsoleStream, open_console
from eventbridge.hypervisor.model import ConsoleInfo
from tests.support.patience import PATIENCE


def console_of(domid: int) -> ConsoleInfo:
    """Its first console, once xenconsoled serves it.  Blocks."""
    store = open_store()
    try:
        return console_info(store, domid)
    finally:
        store.close()


class Typed:
    """What a guest has written, in ``data``, and how the console ended, in ``ends``."""

    def __init__(self, bridge: Bridge, domid: int) -> None:
        self.info = console_of(domid)
        self.data = bytearray()
        self.ends: list[OSError | None] = []
        self._bridge = bridge
        self.stream: ConsoleStream = open_console(bridge, self.info, self.data.extend, self.ends.append)

    def until(self, condition: Callable[[bytes], object]) -> None:
        """Run the loop until what was written is so."""
        arrived = self._bridge.run(until=lambda: bool(condition(bytes(self.data))), timeout=PATIENCE)
        assert arrived, f"within {PATIENCE} s the guest wrote {bytes(self.data[-200:])!r}"

    def answers(self, data: bytes) -> None:
        """The small guest echoes ``data``: it runs, and these are its next words exactly."""
        before = len(self.data)
        self.stream.write(data)
        self.until(lambda written: len(written) >= before + len(data))
        assert self.data[before:] == data
