"""A driver as somebody else would announce it, that does on purpose what real hypervisors do seldom.

``fake:///NAME``: each name is a method of `Behaviour`, called in `subscribe`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from eventbridge import Bridge, HypervisorError
from eventbridge.hypervisor.events import Emit, Kind, Sequencer
from eventbridge.hypervisor.model import DomainRef

DIST_INFO = "announced_driver-1.0.dist-info"


def announce(directory: Path) -> str:
    """Make ``directory`` one that announces the driver to whoever has it on PYTHONPATH; returns that path."""
    (directory / DIST_INFO).mkdir()
    (directory / DIST_INFO / "METADATA").write_text("Metadata-Version: 2.1\nName: announced-driver\nVersion: 1.0\n")
    (directory / DIST_INFO / "entry_points.txt").write_text(
        "[eventbridge.hypervisors]\nfake = announced_driver:driver\n"
    )
    return f"{directory}:{Path(__file__).parent}"


class Subscription:
    """What `subscribe` returns; ``closing`` is what happens in `close`."""

    def __init__(self, closing: Callable[[], object] = lambda: None) -> None:
        self._closing = closing

    def close(self) -> None:
        self._closing()


class Behaviour:
    """What a URI does."""

    def __init__(self, uri: str, bridge: Bridge, emit: Emit) -> None:
        self.uri = uri
        self.bridge = bridge
        self.tell = Sequencer(uri, emit)

    def later(self, step: Callable[[], object]) -> None:
        """On the loop's thread, and after `subscribe` has returned."""

        def once(id: int, opaque: object) -> None:
            self.bridge.remove_timeout(id)
            step()

        self.bridge.add_timeout(50, once)

    def quiet(self) -> Subscription:
        return Subscription()

    def escapes(self) -> Subscription:
        self.later(lambda: self.tell(Kind.STARTED, DomainRef("\x1b[2Jevil\nname"), "boo\x07ted"))
        return Subscription()

    def refuses(self) -> Subscription:
        raise HypervisorError(f"{self.uri}: cannot open: somebody else\nis using it")

    def blunders(self) -> Subscription:
        raise ValueError("a driver's own mistake")

    def breaks(self) -> Subscription:
        self.later(lambda: self.tell(Kind.CONNECTION_LOST, None, "eof"))
        return Subscription()

    def hangs(self) -> Subscription:
        threading.Event().wait()
        return Subscription()

    def sticks(self) -> Subscription:
        def closing() -> None:
            print("closing", file=sys.stderr, flush=True)
            threading.Event().wait()

        return Subscription(closing)


class Driver:
    """`eventbridge.hypervisor.driver.Driver`."""

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> Subscription:
        opened: Subscription = getattr(Behaviour(uri, bridge, emit), uri.removeprefix("fake:///"))()
        return opened

    def version(self) -> str:
        return "announced 1.0"


driver = Driver()
