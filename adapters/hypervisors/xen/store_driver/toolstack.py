"""The domains as xenstored knows them, for a `eventbridge.adapters.hypervisors.xen.domain_watcher.Lookout`.

A domain is there while it is introduced to xenstored and not dead.  That is all that xenstored knows of its life: it
announces that some guest has stopped, but not which, and never why.  The best that can be read is the toolstack's
request in the guest's ``control/shutdown`` (docs/misc/xenstore-paths.pandoc of Xen), which the guest clears when it
sets about it.  So a domain's last request, where it was cleared and none came after it, is told as what its guest did
once the domain has really ended, and not before; a guest that stops of its own accord, or crashes, counts as destroyed.
One that was suspended, went on, and is destroyed without another request counts as saved: nothing in the store tells.
A request that was cleared, or whose node was removed, before it could be read here leaves no trace either: on a busy
machine that is a matter of many milliseconds.  A domain that ended while the connection was lost ends as "inferred".

The lookout's worker thread, all of it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainRef

from ..domain_watcher import Facts, Seen
from ..xenstore.store import Store, Watched

# What is written to control/shutdown: the shutdown reason (`..xen.reasons.SHUTDOWN`) that it leads to.
REQUESTS = {b"poweroff": 0, b"halt": 0, b"reboot": 1, b"suspend": 2, b"crash": 3}

_HOME = "/local/domain"
_CONTROL = _HOME + "/{}/control/shutdown"
_WHOSE = re.compile(rf"{_HOME}/(\d+)/control/shutdown")
_TOKEN = "eventbridge control/shutdown"
_NOT_THERE = (errno.ENOENT, errno.EACCES)


@dataclass(slots=True)
class _Guest:
    ref: DomainRef
    asked: bytes | None = None
    """The request that stands in control/shutdown."""
    doing: int | None = None
    """The reason that the request leads to which its guest has cleared last."""


class XenstoreToolstack:
    """`eventbridge.adapters.hypervisors.xen.domain_watcher.Toolstack`."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._store: Store = facts.store
        self._guests: dict[int, _Guest] = {}
        facts.on_watch = self.fired

    def list(self) -> list[Seen]:
        """Of those that it finds ended it tells what their guests did."""
        found = [seen for domid in self._domids() if (seen := self.look(domid)) is not None]
        there = {seen.ref.id: seen.ref.uuid for seen in found}
        for domid, guest in self._guests.items():
            if domid not in there or there[domid] != guest.ref.uuid:
                if domid not in there:  # its nodes may be left, with what its guest has done since the last look
                    self._take_note(guest, self._read(_CONTROL.format(domid)))
                if guest.doing is not None:
                    self._facts.shut_down(domid, guest.doing)
        return found

    def look(self, domid: int) -> Seen | None:
        """A domain without a name and a UUID is about to end: a toolstack removes its nodes first."""
        if not self._store.is_introduced(domid):
            return None
        vm, guest = _text(self._read(f"{_HOME}/{domid}/vm")), self._guests.get(domid)
        uuid = vm.rpartition("/")[2].lower() if vm else None
        if guest is not None and uuid in (None, guest.ref.uuid):
            return Seen(guest.ref, None)
        name = _text(self._read(f"{_HOME}/{domid}/name"))
        return None if uuid is name is None else Seen(DomainRef(name, uuid, domid), None)

    def follow(self, domid: int) -> None:
        seen = self.look(domid)
        if seen is not None:
            watched = domid in self._guests
            self._guests[domid] = _Guest(seen.ref)
            if not watched:
                self._store.watch(_CONTROL.format(domid), _TOKEN)

    def forget(self, domid: int) -> None:
        if self._guests.pop(domid, None) is not None:
            self._store.unwatch(_CONTROL.format(domid), _TOKEN)

    def close(self) -> None:
        """Its watches end with the lookout's connection."""

    def fired(self, watched: Watched) -> None:
        """Something has happened to a guest's control/shutdown; what, is to be read."""
        matched = _WHOSE.fullmatch(watched.path)
        guest = self._guests.get(int(matched[1])) if matched else None
        if guest is None:
            return
        self._take_note(guest, self._read(watched.path))

    def _take_note(self, guest: _Guest, value: bytes | None) -> None:
        if value:
            guest.asked, guest.doing = value, None
        elif value is not None and guest.asked is not None:  # not removed with all the rest of the domain
            guest.doing, guest.asked = REQUESTS.get(guest.asked), None

    # -- reading

    def _domids(self) -> Iterable[int]:
        """All that have a place in the store or had one when they were followed, but domain 0."""
        try:
            names = self._store.list(_HOME)
        except HypervisorError as error:
            if error.code != errno.ENOENT:
                raise
            names = []
        return sorted({int(name) for name in names if name.isdecimal()} - {0} | self._guests.keys())

    def _read(self, path: str) -> bytes | None:
        try:
            return self._store.read(path)
        except HypervisorError as error:
            if error.code in _NOT_THERE:
                return None
            raise


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def open_toolstack(uri: str, bridge: BridgeCore, facts: Facts) -> XenstoreToolstack:
    """`eventbridge.adapters.hypervisors.xen.domain_watcher.OpenToolstack`."""
    return XenstoreToolstack(facts)
