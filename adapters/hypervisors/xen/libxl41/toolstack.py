"""libxl 4.1 as the toolstack of a lookout: the domains, and how those end that are followed.

The worker's thread, which may block, but for `Libxl41Toolstack.close` and what the loop's thread drains.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import BridgeClosed, BridgeForked, UnknownHandle
from eventbridge.hypervisor.model import DomainRef

from ..domain_watcher import Facts, Seen
from .context import Context, reason, ref
from .ejects import Ejects
from .waiter import EventSource

CLOSE_SECONDS = 2.0
"""How long `Libxl41Toolstack.close` waits for a teardown that a frozen xenstored keeps."""


class Libxl41Toolstack:
    """`eventbridge.adapters.hypervisors.xen.domain_watcher.Toolstack`."""

    def __init__(self, uri: str, bridge: BridgeCore, facts: Facts) -> None:
        self._bridge = bridge
        self.context = Context(uri, self._teardown)
        self._source: EventSource | None = None
        try:
            self._ejects = Ejects(facts.store, facts.ejected)
            facts.on_watch = self._ejects.fired
            self._source = EventSource(self.context, facts)
            self._source.wait()
            bridge.add_source(self._source)
        except BaseException:
            self.context.close()
            raise

    def list(self) -> list[Seen]:
        """Without their names, which cost a round trip each."""
        return [Seen(ref(info), reason(info), bool(info.dying)) for info in self.context.list() if info.domid]

    def look(self, domid: int) -> Seen | None:
        info = self.context.one(domid)
        if info is None:
            return None
        name = None if info.dying else self.context.name(domid)
        return Seen(ref(info, name), reason(info), bool(info.dying))

    def ref(self, domid: int) -> DomainRef | None:
        """One domain, domain 0 too; None where it is gone.  Any thread that may block."""
        seen = self.look(domid)
        return None if seen is None or seen.dying else seen.ref

    def refs(self) -> Sequence[DomainRef]:
        """All of them, without their names."""
        return [ref(info, None) for info in self.context.list() if not info.dying]

    def follow(self, domid: int) -> None:
        assert self._source is not None
        self._source.followed[domid] = None
        self._ejects.wait(domid)

    def forget(self, domid: int) -> None:
        assert self._source is not None
        self._source.followed.pop(domid, None)
        self._ejects.stop(domid)

    def close(self) -> None:
        """In 4.1's order: the handle, the waiter, the ctx; the last two when the last one is out."""
        if self._source is not None:
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                self._bridge.remove_source(self._source)
        closing = threading.Thread(target=self.context.close, name=f"close {self.context.uri}", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _teardown(self) -> None:
        if self._source is not None:
            self._source.stop()


def open_toolstack(uri: str, bridge: BridgeCore, facts: Facts) -> Libxl41Toolstack:
    """Blocks; `HypervisorError` where libxl cannot be opened."""
    return Libxl41Toolstack(uri, bridge, facts)
