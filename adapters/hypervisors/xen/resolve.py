"""Which of a Xen host's domains is meant: by its id, where that is still its own, else by its UUID, else by its name.

A domid says least: Xen gives it to another domain in time, though not before it has given out the 32751 others (the
``rover`` of xen/common/domctl.c), which is why one that was looked at a moment ago may be acted on.  A UUID is a
domain's for good; so whoever names one never gets another domain, whatever has become of its id and its name.
Blocks.  Any thread that may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainRef

from .errors import no_such

INCOMING, AWAY = "--incoming", "--migratedaway"
"""What xl, and we, have a guest's name end with until it has come in, and what is left of it where it was."""

Look = Callable[[int], DomainRef | None]
"""A domain by its domid, with its name; None where there is none."""
All = Callable[[], Iterable[DomainRef]]
"""All of them; their names may be left out."""


class Resolver:
    """``Resolver(uri, look, all)``, and `find`."""

    def __init__(self, uri: str, look: Look, all: All) -> None:
        self._uri = uri
        self._look = look
        self._all = all

    def find(self, ref: DomainRef) -> DomainRef:
        """All that is known of a domain of which ``ref`` knows something; `NoSuchDomain`."""
        there = None if ref.id is None else self._look(ref.id)
        if there is not None and _is_the_same(ref, there):
            return there
        if ref.uuid is not None:
            found = self._by_uuid(ref.uuid.lower())
        else:
            found = None if ref.name is None else self._by_name(ref.name)
        if found is None:
            raise no_such(self._uri, ref, _instead(ref, there))
        return found

    def domid(self, ref: DomainRef) -> int:
        """Of one that something is to be done to; `HypervisorError` for domain 0, which does it."""
        found = self.find(ref)
        assert found.id is not None
        if found.id == 0:
            raise HypervisorError(
                f"{self._uri}: domain 0 is the host itself, which is not to be paused, saved or ended from here",
                domain=found.name or "0",
            )
        return found.id

    def _by_uuid(self, uuid: str) -> DomainRef | None:
        """While a guest moves within its host there are two: the one that runs is meant."""
        found = [self._look(ref.id) for ref in self._all() if ref.uuid == uuid and ref.id is not None]
        there = [ref for ref in found if ref is not None]
        return min(there, key=lambda ref: (ref.name or "").endswith((INCOMING, AWAY)), default=None)

    def _by_name(self, name: str) -> DomainRef | None:
        for ref in self._all():
            known = ref if ref.name is not None or ref.id is None else self._look(ref.id)
            if known is not None and known.name == name:
                return known
        return None


def _is_the_same(ref: DomainRef, there: DomainRef) -> bool:
    if ref.uuid is not None:
        return there.uuid == ref.uuid.lower()
    return ref.name in (None, there.name)


def _instead(ref: DomainRef, there: DomainRef | None) -> str:
    return "" if there is None else f"its id {ref.id} is now {there.name or there.uuid}'s"
