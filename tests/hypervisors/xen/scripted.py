"""A xenstored connection and a toolstack that do what a test says: stand-ins, for what the real ones cannot be made to
do at a chosen moment."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable

from eventbridge.adapters.hypervisors.xen.domain_watcher import Facts, Seen
from eventbridge.adapters.hypervisors.xen.xenstore.store import INTRODUCED, RELEASED, Watched
from eventbridge.errors import ConnectionLost
from eventbridge.hypervisor.model import DomainRef


class ScriptedStore:
    """Tells the watches that the test lets fire.  Only what a lookout uses."""

    address = "a scripted xenstored (a stand-in)"

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._fired: collections.deque[Watched] = collections.deque()
        self.watches: list[str] = []
        self.dead = False
        self.closed = 0
        self.introduced: set[int] = set()
        self.on_asked: Callable[[int], object] = lambda domid: None
        """What happens just before it is asked whether a domain is introduced."""

    def is_introduced(self, domid: int) -> bool:
        self.on_asked(domid)
        return domid in self.introduced

    def fire(self, path: str) -> None:
        self._fired.append(Watched(path, "eventbridge"))
        os.write(self._writer, b"!")

    def fileno(self) -> int:
        return self._reader

    def next_watch(self) -> Watched | None:
        self.check()
        if not self._fired:
            return None
        os.read(self._reader, 1)
        return self._fired.popleft()

    def check(self) -> None:
        if self.dead:
            raise ConnectionLost(f"{self.address} has gone")

    def watch(self, path: str, token: str) -> None:
        self.watches.append(path)
        self.fire(path)  # as xenstored does, once at once

    def close(self) -> None:
        self.closed += 1
        if self.closed == 1:
            os.close(self._reader)
            os.close(self._writer)


class ScriptedToolstack:
    """A host's domains as the test sets them; ``on_follow`` is what happens while one is being followed."""

    def __init__(self, facts: Facts, store: ScriptedStore) -> None:
        self.facts = facts
        self.domains: dict[int, Seen] = {}
        self.followed: list[int] = []
        self.forgotten: list[int] = []
        self.on_follow: Callable[[int], object] = lambda domid: None
        self.closed = 0
        self._store = store

    # -- what the test does

    def create(self, domid: int, generation: int = 1) -> None:
        """A domain that lives; another ``generation`` is another domain of the same domid."""
        self.domains[domid] = Seen(DomainRef(f"d{domid}", f"uuid-{domid}-{generation}", domid), None)
        self._store.introduced.add(domid)
        self._store.fire(INTRODUCED)

    def make(self, domid: int) -> None:
        """One that is listed, and has neither a name yet nor been introduced."""
        self.domains[domid] = Seen(DomainRef(None, f"uuid-{domid}-1", domid), None)

    def stop(self, domid: int, reason: int, tell: bool = True) -> None:
        self.domains[domid] = Seen(self.domains[domid].ref, reason)
        if tell:
            self.facts.shut_down(domid, reason)
        self._store.fire(RELEASED)

    def resume(self, domid: int) -> None:
        self.domains[domid] = Seen(self.domains[domid].ref, None)

    def destroy(self, domid: int, tell: bool = True) -> None:
        del self.domains[domid]
        if tell:
            self.facts.gone(domid)
        self._store.fire(RELEASED)

    # -- Toolstack

    def list(self) -> list[Seen]:
        return [seen._replace(ref=DomainRef(None, seen.ref.uuid, domid)) for domid, seen in self.domains.items()]

    def look(self, domid: int) -> Seen | None:
        return self.domains.get(domid)

    def follow(self, domid: int) -> None:
        self.followed.append(domid)
        self.on_follow(domid)

    def forget(self, domid: int) -> None:
        self.forgotten.append(domid)

    def close(self) -> None:
        self.closed += 1
