"""What is known of a hypervisor's domains: kept by its events, compared with what it says, and the difference told.

The stream of events implies a state; this is that state.  `Known.apply` folds an event in; `Known.settle` takes the
hypervisor's own word for a domain and returns what must have happened unseen, as the events that would have told it.
So the fold of a stream, synthetic events included, is always what the hypervisor said last.

Sans-IO: no clock, no thread.  It belongs to one thread at a time, in practice the loop's.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainInfo, DomainRef, State

Key: TypeAlias = Hashable
"""What names a domain for good: its UUID, or its name, or its id, the first of them that its hypervisor tells."""

Told: TypeAlias = tuple[Kind, DomainRef, str | None]
"""What a synthetic event is made from: its kind, its domain, its reason."""

INFERRED = "inferred"
"""The reason of an event whose true one nobody has seen."""

# The state that an event leaves its domain in; a kind that is not here leaves it as it was.
AFTER: dict[Kind, State] = {
    Kind.STARTED: State.RUNNING,
    Kind.RESUMED: State.RUNNING,
    Kind.WOKEN: State.RUNNING,
    Kind.REBOOTED: State.RUNNING,
    Kind.SUSPENDED: State.PAUSED,
    Kind.PM_SUSPENDED: State.PM_SUSPENDED,
    Kind.SHUTDOWN: State.SHUTDOWN,
    Kind.CRASHED: State.CRASHED,
    Kind.STOPPED: State.STOPPED,
}

SAYS_HOW = frozenset({*AFTER, Kind.DEFINED, Kind.UNDEFINED})
"""The kinds that say how a domain is; others tell of what was done to it, and perhaps when it is no more."""

# States between which no hypervisor tells an event, by the one that stands for them.
ALIKE: dict[State, State] = {
    State.BLOCKED: State.RUNNING,
    State.SUSPENDED: State.PAUSED,
    State.NO_MACHINE: State.PAUSED,  # QEMU tells STOP and RESUME of a process without a machine, too
    State.DYING: State.SHUTDOWN,
}

# How a domain that has started got where it is.
_REACHED_BY: dict[State, Kind] = {
    State.PAUSED: Kind.SUSPENDED,
    State.PM_SUSPENDED: Kind.PM_SUSPENDED,
    State.SHUTDOWN: Kind.SHUTDOWN,
    State.CRASHED: Kind.CRASHED,
}

# How one that runs again got there, by where it was.
_LEFT_BY: dict[State, Kind] = {State.PAUSED: Kind.RESUMED, State.PM_SUSPENDED: Kind.WOKEN}


@dataclass(frozen=True, slots=True)
class KnownDomain:
    """One that exists, as it was when it was asked for."""

    ref: DomainRef
    state: State
    persistent: bool
    """Does it stay when it stops?"""

    @property
    def runs(self) -> bool:
        return self.state is not State.STOPPED


def key_of(ref: DomainRef) -> Key:
    return ref.uuid or ref.name or ref.id


def alike(state: State) -> State:
    return ALIKE.get(state, state)


class Known:
    """The domains of one hypervisor, by key."""

    def __init__(self) -> None:
        self._domains: dict[Key, KnownDomain] = {}
        self._by_name: dict[str, Key] = {}

    def __len__(self) -> int:
        return len(self._domains)

    def __iter__(self) -> Iterator[KnownDomain]:
        return iter(list(self._domains.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._domains

    def get(self, key: Key) -> KnownDomain | None:
        return self._domains.get(key)

    def named(self, name_or_uuid: str) -> KnownDomain | None:
        """By UUID (in any writing of it), or by name."""
        return self._domains.get(name_or_uuid.lower()) or self._domains.get(self._by_name.get(name_or_uuid))

    def key(self, ref: DomainRef) -> Key:
        """Of a domain that an event names in part: one that is known by the same name or id is that one."""
        if ref.uuid is not None:
            return ref.uuid
        if ref.name is not None and ref.name in self._by_name:
            return self._by_name[ref.name]
        if ref.id is not None:
            for key, domain in self._domains.items():
                if domain.ref.id == ref.id and (ref.name is None or domain.ref.name in (None, ref.name)):
                    return key
        return key_of(ref)

    def copy(self) -> Known:
        """As it is now."""
        other = Known()
        other._domains = dict(self._domains)
        other._by_name = dict(self._by_name)
        return other

    # -- events

    def apply(self, event: DomainEvent) -> Key:
        """Fold an event in; the key of its domain, or None where it is about none."""
        return None if event.domain is None else self._fold(event.kind, event.domain)

    def is_news(self, kind: Kind, ref: DomainRef) -> bool:
        """Would folding that in change anything?  Kinds that change no state always count as news."""
        domain = self._domains.get(self.key(ref))
        if kind is Kind.UNDEFINED:
            return domain is not None and domain.persistent
        if kind is Kind.DEFINED:
            return domain is None or not domain.persistent or domain.ref.name != ref.name
        if kind not in AFTER:
            return True
        if domain is None:
            return kind is not Kind.STOPPED
        return AFTER[kind] is not alike(domain.state) or is_another_life(domain.ref, ref)

    def _fold(self, kind: Kind, ref: DomainRef) -> Key:
        key = self.key(ref)
        known = self._domains.get(key)
        if known is None:
            if kind not in SAYS_HOW:
                return key
            known = KnownDomain(ref, State.STOPPED if kind is Kind.DEFINED else State.RUNNING, False)
        persistent = kind is Kind.DEFINED or (known.persistent and kind is not Kind.UNDEFINED)
        self._put(key, known, KnownDomain(ref, AFTER.get(kind, known.state), persistent))
        return key

    def _put(self, key: Key, known: KnownDomain, domain: KnownDomain) -> None:
        name = known.ref.name
        if name is not None and self._by_name.get(name) == key:
            del self._by_name[name]
        if not (domain.runs or domain.persistent):
            self._domains.pop(key, None)
            return
        ref = _merged(known.ref, domain)
        self._domains[key] = domain if ref == domain.ref else replace(domain, ref=ref)
        if ref.name is not None:
            self._by_name[ref.name] = key

    # -- the hypervisor's own word

    def learn(self, info: DomainInfo) -> None:
        """Take it as it is; nothing is told."""
        key = self.key(info.domain)
        domain = KnownDomain(info.domain, info.state, bool(info.persistent))
        self._put(key, self._domains.get(key, domain), domain)

    def settle(self, key: Key, info: DomainInfo | None) -> list[Told]:
        """The hypervisor says that the domain is as ``info``, or is not there: what must have happened, in order.

        Nothing is folded in here: what is returned is, by `apply`, when it is told; then `learn` may be given ``info``
        for what no event tells.
        """
        return difference(self._domains.get(key), info)


def difference(before: KnownDomain | None, now: DomainInfo | None) -> list[Told]:
    """What happened to a domain between the two; None: it did not exist."""
    if before is None:
        return [] if now is None else _came(now)
    return _went(before) if now is None else _changed(before, now)


def _came(info: DomainInfo) -> list[Told]:
    told: list[Told] = [(Kind.DEFINED, info.domain, INFERRED)] if info.persistent else []
    return told + _started(info)


def _started(info: DomainInfo) -> list[Told]:
    if info.state is State.STOPPED:
        return []
    told: list[Told] = [(Kind.STARTED, info.domain, INFERRED)]
    reached = _REACHED_BY.get(alike(info.state))
    return told if reached is None else [*told, (reached, info.domain, INFERRED)]


def _went(domain: KnownDomain) -> list[Told]:
    told: list[Told] = [(Kind.STOPPED, domain.ref, INFERRED)] if domain.runs else []
    return [*told, (Kind.UNDEFINED, domain.ref, INFERRED)] if domain.persistent else told


def _changed(domain: KnownDomain, info: DomainInfo) -> list[Told]:
    told: list[Told] = []
    ref = info.domain
    renamed = ref.name is not None and domain.ref.name is not None and ref.name != domain.ref.name
    if info.persistent and (renamed or not domain.persistent):
        told.append((Kind.DEFINED, ref, "renamed" if renamed else INFERRED))
    runs = info.state is not State.STOPPED
    if domain.runs and (not runs or is_another_life(domain.ref, ref)):
        told.append((Kind.STOPPED, domain.ref, INFERRED))
        told += _started(info)
    elif runs and not domain.runs:
        told += _started(info)
    elif alike(info.state) is not alike(domain.state):
        told += _moved(alike(domain.state), info)
    if domain.persistent and info.persistent is False:
        told.append((Kind.UNDEFINED, ref, INFERRED))
    return told


def _moved(was: State, info: DomainInfo) -> list[Told]:
    """Within one life."""
    now = alike(info.state)
    if now is State.RUNNING:
        return [(_LEFT_BY.get(was, Kind.REBOOTED), info.domain, INFERRED)]
    return [(_REACHED_BY[now], info.domain, INFERRED)]


def is_another_life(known: DomainRef, now: DomainRef) -> bool:
    """A domain has a new id at each start."""
    return known.id is not None and now.id is not None and known.id != now.id


def _merged(known: DomainRef, domain: KnownDomain) -> DomainRef:
    """What an event leaves out of a domain's names is as it was; an id ends with the run."""
    ref = domain.ref
    id = ref.id if ref.id is not None else known.id
    return DomainRef(ref.name or known.name, ref.uuid or known.uuid, id if domain.runs else None)
