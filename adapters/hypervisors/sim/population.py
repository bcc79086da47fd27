"""All guests of one simulated hypervisor: who there is, how to find one, and what a step does to it.

Sans-IO, under its world's lock.  Guests that were there from the beginning stay for the story, which may define them
again; one that a call has made is gone when it is gone, but is known by its index until everybody has been told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import DomainRef

from . import guests
from .guests import Guest, Happening, State, Step


class Cast:
    """``count`` guests to begin with, of ``memory`` KiB each."""

    def __init__(self, seed: int, count: int, memory: int) -> None:
        self.seed = seed
        self.number = 0
        """How much has happened."""
        self.members: list[Guest] = []
        """Whom the story may draw: by chance, so their order is nobody's but the story's."""
        self.left: list[tuple[int, Guest]] = []
        """Who is gone for good, and the number of their last happening: in that order."""
        self._by_index: dict[int, Guest] = {}
        self._by_name: dict[str, Guest] = {}
        self._by_uuid: dict[str, Guest] = {}
        self._by_id: dict[int, Guest] = {}
        self._ids = 0
        self._next = 0
        self.joined: Callable[[int], object] = lambda index: None
        self.parted: Callable[[int], object] = lambda index: None
        for _ in range(count):
            self._add(guests.name(self._next), guests.uuid_of(seed, self._next), memory, False)

    # -- who there is

    def __len__(self) -> int:
        return len(self._by_index)

    def __iter__(self) -> Iterator[Guest]:
        """All that a connection needs a channel for."""
        return iter(list(self._by_index.values()))

    def __getitem__(self, index: int) -> Guest:
        return self._by_index[index]

    @property
    def next_index(self) -> int:
        """Of the next that is made."""
        return self._next

    def find(self, ref: DomainRef) -> Guest | None:
        """By its uuid, else its name, else its id; None for one that is absent."""
        if ref.uuid is not None:
            guest = self._by_uuid.get(ref.uuid)
        elif ref.name is not None:
            guest = self._by_name.get(ref.name)
        else:
            guest = self._by_id.get(ref.id or 0)
        return None if guest is None or guest.state is State.ABSENT else guest

    def absent(self, name: str, uuid: str | None) -> Guest | None:
        """The one whom the story may bring back, and who is just that."""
        guest = self._by_name.get(name)
        if guest is None or guest.state is not State.ABSENT or uuid not in (None, guest.uuid):
            return None
        return guest

    # -- coming and going

    def make(self, name: str, uuid: str, memory: int) -> Guest:
        """A new one, absent yet; whoever is absent and had that name or uuid does not come back."""
        for known in (self._by_name.get(name), self._by_uuid.get(uuid)):
            if known is not None and not known.left:
                self._part(known)
        return self._add(name, uuid, memory, True)

    def unmake(self, guest: Guest) -> None:
        """It came to nothing."""
        self._part(guest)

    def forget(self, guest: Guest) -> None:
        """Everybody has been told that it is gone."""
        del self._by_index[guest.index]

    def _add(self, name: str, uuid: str, memory: int, made: bool) -> Guest:
        guest = Guest(self._next, name, uuid, memory, made)
        self._next += 1
        self.members.append(guest)
        self._by_index[guest.index] = guest
        self._by_name[name] = guest
        self._by_uuid[uuid] = guest
        self.joined(guest.index)
        return guest

    def _part(self, guest: Guest) -> None:
        guest.left = True
        self.members.remove(guest)
        del self._by_name[guest.name], self._by_uuid[guest.uuid]
        self.left.append((self.number, guest))
        self.parted(guest.index)

    # -- what happens

    def apply(self, guest: Guest, step: Step) -> Happening:
        """It has happened."""
        self.number += 1
        guest.state = step.to
        then = _THEN.get(step.kind)
        if then is not None:
            then(self, guest)
        happening = Happening(self.number, guest.index, step.kind, step.reason, guest.id)
        if guest.made and guest.state is State.ABSENT:
            self._part(guest)
        return happening

    def _started(self, guest: Guest) -> None:
        self._ids += 1
        guest.id = self._ids
        self._by_id[guest.id] = guest

    def _stopped(self, guest: Guest) -> None:
        del self._by_id[guest.id]
        guest.id = 0
        if not guest.persistent:
            guest.state = State.ABSENT

    def _defined(self, guest: Guest) -> None:
        guest.persistent = True

    def _undefined(self, guest: Guest) -> None:
        guest.persistent = False


_THEN: dict[Kind, Callable[[Cast, Guest], None]] = {
    Kind.STARTED: Cast._started,
    Kind.STOPPED: Cast._stopped,
    Kind.DEFINED: Cast._defined,
    Kind.UNDEFINED: Cast._undefined,
}
