"""libxl as the toolstack of a lookout: the domains, and how those end that are followed.

What libxl tells it tells by itself, on whichever thread is inside it, and so it is passed on.  A domain that is dying
counts as gone, as libxl itself has it: libxl tells its death then, and of a shutdown that it had not seen before that
nothing any more, though the domain says its reason for as long as it is listed.  The worker's thread, which may block,
but for `close`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventbridge.core.bridge import BridgeCore
from eventbridge.hypervisor.model import DomainRef

from ..disks import drives
from ..domain_watcher import Facts, Seen
from . import domains
from .context import Context
from .events import Event, EventKind, Generator


class LibxlToolstack:
    """`eventbridge.adapters.hypervisors.xen.domain_watcher.Toolstack`."""

    def __init__(self, uri: str, bridge: BridgeCore, facts: Facts) -> None:
        self._facts = facts
        self._followed: dict[int, list[Generator]] = {}
        self._tell: dict[EventKind, Callable[[Event], None]] = {
            EventKind.DOMAIN_SHUTDOWN: lambda event: facts.shut_down(
                event.domid, -1 if event.reason is None else event.reason
            ),
            EventKind.DOMAIN_DEATH: lambda event: facts.gone(event.domid),
            EventKind.DISK_EJECT: lambda event: facts.ejected(event.domid, event.vdev or ""),
        }
        self.context = Context(bridge, uri, tell=self._told, mailbox=facts.mailbox)
        """For any thread."""

    def list(self) -> list[Seen]:
        """Without their names, which cost a round trip each."""
        return [
            Seen(domains.ref(facts), domains.reason(facts), domains.is_dying(facts))
            for facts in self.context.domains.all()
            if facts.get("domid", 0)
        ]

    def look(self, domid: int) -> Seen | None:
        facts = self.context.domains.one(domid)
        if facts is None:
            return None
        dying = domains.is_dying(facts)
        name = None if dying else self.context.domains.name(domid)
        return Seen(domains.ref(facts, name), domains.reason(facts), dying)

    def ref(self, domid: int) -> DomainRef | None:
        """One domain, domain 0 too; None where it is gone.  Any thread that may block."""
        seen = self.look(domid)
        return None if seen is None or seen.dying else seen.ref

    def refs(self) -> Sequence[DomainRef]:
        """All of them, without their names."""
        return [domains.ref(facts) for facts in self.context.domains.all() if not domains.is_dying(facts)]

    def follow(self, domid: int) -> None:
        generators = self.context.generators
        followed = self._followed.setdefault(domid, [])
        followed.append(generators.of_death(domid))
        # Of its shutdown the generator before this one tells no more.  Those of disks go on telling.
        for generator in [generator for generator in followed[:-1] if generator.vdev is None]:
            followed.remove(generator)
            generators.disable(generator)
        watched = {generator.vdev for generator in followed}
        for drive in drives(self._facts.store, domid):
            if drive.vdev not in watched:
                followed.append(generators.of_eject(domid, drive.vdev))

    def forget(self, domid: int) -> None:
        for generator in self._followed.pop(domid, ()):
            self.context.generators.disable(generator)

    def close(self) -> None:
        self.context.close()

    def _told(self, event: Event) -> None:
        tell = self._tell.get(event.kind)
        if tell is not None:  # the end of an operation is none of a domain's
            tell(event)


def open_toolstack(uri: str, bridge: BridgeCore, facts: Facts) -> LibxlToolstack:
    """Blocks; `HypervisorError` where libxl cannot be opened."""
    return LibxlToolstack(uri, bridge, facts)
