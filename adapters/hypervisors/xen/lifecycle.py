"""Which domains live, and what has been told of each: facts in, each event out exactly once.

Xen says things twice, late, and in whatever order they are noticed: a watch that fires for somebody else, a domain
that is listed and gone again, a death reported both by libxl and by a look at the list.  All of Xen's adapters put
the facts as they find them in here, and what comes out is the same for the same story, whichever library told it.

Sans-IO: no library, no clock, no thread.  It belongs to one thread at a time, in practice the loop's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import DomainRef

from .support.reasons import DESTROYED, MIGRATED, Meaning, meaning


class Tell(Protocol):
    """Where events go: an `eventbridge.hypervisor.events.Sequencer`."""

    def __call__(
        self, kind: Kind, domain: DomainRef | None, reason: str | None = None, raw: Mapping[str, Any] | None = None
    ) -> None: ...


@dataclass(slots=True)
class _Life:
    ref: DomainRef
    stopped: Meaning | None = None  # its guest has: what was told of that
    end: str | None = None  # where that says nothing of why


class Lives:
    """The domains of one host, by domid."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lives: dict[int, _Life] = {}
        self._coming: dict[int, DomainRef] = {}  # of the UUID of one that lives: told when that has ended

    def __contains__(self, domid: int) -> bool:
        return domid in self._lives or domid in self._coming

    def domids(self) -> list[int]:
        return list(self._lives)

    def ref(self, domid: int) -> DomainRef:
        """What is known of a domain; a `DomainRef` of its domid alone, where it is not."""
        life = self._lives.get(domid)
        return self._coming.get(domid, DomainRef(None, None, domid)) if life is None else life.ref

    def suspended(self) -> list[int]:
        """Those whose guest has stopped to be saved: they alone may go on without another word of Xen's."""
        return [domid for domid, life in self._lives.items() if life.stopped and life.stopped.kind is Kind.SUSPENDED]

    def is_explained(self, domid: int) -> bool:
        """Is it known why it ends, if it ends now?  A guest that has stopped to be saved may have gone on since."""
        life = self._lives.get(domid)
        return life is not None and (
            life.end is not None or (life.stopped is not None and life.stopped.kind is not Kind.SUSPENDED)
        )

    # -- facts

    def found(self, ref: DomainRef, reason: int | None = None) -> None:
        """It was there before we were, perhaps stopped with ``reason`` already: nothing is told."""
        self._lives[_domid(ref)] = _Life(ref, None if reason is None else meaning(reason))

    def appeared(self, ref: DomainRef) -> None:
        """It lives.  A domid that another domain had until now: that one has ended, unseen.  While a guest moves within
        its host there are two of its UUID, which are told one after the other, as of two hosts.
        """
        domid = _domid(ref)
        known = self._lives.get(domid)
        if known is not None and (known.ref.uuid is None or ref.uuid is None or known.ref.uuid == ref.uuid):
            return
        if known is not None:
            self.gone(domid)
        if ref.uuid is not None and any(life.ref.uuid == ref.uuid for life in self._lives.values()):
            self._coming[domid] = ref
            return
        self._lives[domid] = _Life(ref)
        self._tell(Kind.STARTED, ref, None, {"event": "@introduceDomain", "domid": domid})

    def shut_down(self, domid: int, reason: int) -> None:
        """Its guest has stopped, with one of `reasons.SHUTDOWN`."""
        life = self._lives.get(domid)
        if life is None:
            return
        meant = meaning(reason)
        if life.stopped is meant:
            return
        life.stopped = meant
        raw = {"event": "DOMAIN_SHUTDOWN", "domid": domid, "shutdown_reason": meant.name}
        self._tell(meant.kind, life.ref, meant.reason, raw)

    def resumed(self, domid: int) -> None:
        """It runs, though its guest had stopped to be saved."""
        life = self._lives.get(domid)
        if life is not None and life.stopped is not None:
            life.stopped = None
            self._tell(Kind.RESUMED, life.ref, None, {"event": "resumed", "domid": domid})

    def paused(self, domid: int) -> None:
        """It was paused, by whoever asked us to: of others' doing Xen announces nothing."""
        self._tell(Kind.SUSPENDED, self.ref(domid), "paused", {"event": "paused", "domid": domid})

    def unpaused(self, domid: int) -> None:
        self._tell(Kind.RESUMED, self.ref(domid), None, {"event": "unpaused", "domid": domid})

    def leaving(self, domid: int, does: bool = True) -> None:
        """Its guest goes on as another domain: what ends now has migrated.  Or it does not, after all."""
        life = self._lives.get(domid)
        if life is not None:
            life.end = MIGRATED if does else None

    def renamed(self, domid: int, name: str) -> None:
        """It is called so from now on, in what is told of it: of that itself nothing is."""
        life = self._lives.get(domid)
        if life is not None:
            life.ref = replace(life.ref, name=name)
        elif domid in self._coming:
            self._coming[domid] = replace(self._coming[domid], name=name)

    def gone(self, domid: int) -> None:
        """It has ended."""
        self._coming.pop(domid, None)
        life = self._lives.pop(domid, None)
        if life is None:
            return
        end = life.end or (DESTROYED if life.stopped is None else life.stopped.end)
        self._tell(Kind.STOPPED, life.ref, end, {"event": "DOMAIN_DEATH", "domid": domid})
        for next_domid, ref in list(self._coming.items()):
            if ref.uuid == life.ref.uuid:
                del self._coming[next_domid]
                self.appeared(ref)

    def ejected(self, domid: int, vdev: str) -> None:
        """The medium of its disk ``vdev`` is out."""
        self._tell(Kind.DISK_EJECTED, self.ref(domid), vdev, {"event": "DISK_EJECT", "domid": domid, "vdev": vdev})

    def lost(self, reason: str, words: str) -> None:
        """xenstored, or the library's way to it, is gone."""
        self._tell(Kind.CONNECTION_LOST, None, reason, {"event": "connection_lost", "error": words})

    def seen(self, refs: Iterable[DomainRef]) -> None:
        """The whole truth: these live, and nobody else."""
        now = {_domid(ref): ref for ref in refs}
        for domid in self.domids():
            if domid not in now:
                self.gone(domid)
        for ref in now.values():
            self.appeared(ref)


def _domid(ref: DomainRef) -> int:
    if ref.id is None:
        raise ValueError(f"{ref!r} has no domid: a domain of Xen's that lives has one")
    return ref.id
