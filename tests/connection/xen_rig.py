"""A Xen whose xenstored is killed while its domains go on, for a connection to find again: the real xenstored and
libraries over the stand-in for the hypervisor; what is true, and what a stream of events implies."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable

from eventbridge import Connection
from eventbridge.connection.inventory import alike
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainRef, State
from tests.support.xen import table
from tests.support.xen.standin import CRASH, POWEROFF, SUSPEND, Guest, XenStandIn

# Way: the URI, and is libxl to be 4.1's?
WAYS = {"libxl": ("libxl:///", False), "libxl 4.1": ("libxl:///", True), "xenstore": ("xenstore:///", False)}

How = dict[str, tuple[int | None, State]]
"""Domains by UUID: the id, and the state."""

STOPPED: dict[int, State] = {POWEROFF: State.SHUTDOWN, CRASH: State.CRASHED, SUSPEND: State.PAUSED}
REACHED: dict[Kind, State] = {
    Kind.STARTED: State.RUNNING,
    Kind.RESUMED: State.RUNNING,
    Kind.SUSPENDED: State.PAUSED,
    Kind.SHUTDOWN: State.SHUTDOWN,
    Kind.CRASHED: State.CRASHED,
}


class Fates:
    """What becomes of a stand-in's domains.  One thread at a time."""

    def __init__(self, xen: XenStandIn, seed: int = 1) -> None:
        self._xen = xen
        self._random = random.Random(seed)
        self._next = 1

    def create(self, count: int) -> None:
        made = range(self._next, self._next + count)
        self._next += count
        self._xen.create_many(made)

    def die(self, count: int) -> None:
        self._xen.die(*self._some(count))

    def reboot(self, count: int) -> None:
        """As toolstacks do it: another domain, of another id, with the name and the UUID of the one before."""
        for domid in self._some(count):
            guest = self._xen.guests[domid]
            self._xen.die(domid)
            self._xen.create(self._next, guest.name, guest.uuid)
            self._next += 1

    def stop(self, count: int) -> None:
        for domid in self._some(count):
            self._xen.shutdown(domid, reason=self._random.choice(list(STOPPED)))

    def pause(self, count: int) -> None:
        """Of which Xen announces nothing: only while nobody listens."""
        for domid in self._some(count):
            flags = self._xen.table.flags(domid)
            if not flags & table.SHUTDOWN:
                self._xen.table.set_flags(domid, flags ^ table.PAUSED)

    def _some(self, count: int) -> list[int]:
        return self._random.sample(sorted(self._xen.guests), count)


class Crowd:
    """A thread on which domains come, reboot, stop and go until it is left."""

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._enough = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="domains that come and go")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._enough.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._enough.wait(0.001):
                self._fates.create(3)
                self._fates.reboot(1)
                self._fates.stop(1)
                self._fates.die(3)
        except BaseException as error:
            self._failure = error


def truth(xen: XenStandIn, uri: str) -> How:
    """xenstored knows of a domain that it is there, and no more."""
    return {
        str(guest.uuid): (domid, State.RUNNING if uri.startswith("xenstore") else _state(xen, guest))
        for domid, guest in xen.guests.items()
    }


def _state(xen: XenStandIn, guest: Guest) -> State:
    flags = xen.table.flags(guest.domid)
    if flags & table.SHUTDOWN:
        return STOPPED[flags >> table.REASON_SHIFT]
    return State.PAUSED if flags & table.PAUSED else State.RUNNING


def known(hv: Connection) -> How:
    """Without domain 0."""
    return {_key(domain.ref): (domain.ref.id, alike(domain.state)) for domain in hv.known if domain.ref.id != 0}


def implied(before: How, seen: Iterable[DomainEvent]) -> How:
    """By the stream alone."""
    how = dict(before)
    for event in seen:
        if event.domain is None or event.domain.id == 0:
            continue
        if event.kind is Kind.STOPPED:
            how.pop(_key(event.domain), None)
        elif event.kind in REACHED:
            how[_key(event.domain)] = (event.domain.id, REACHED[event.kind])
    return how


def told_twice(seen: Iterable[DomainEvent]) -> list[tuple[Kind, str, int | None]]:
    """A domain starts once and stops once."""
    once = Counter(
        (event.kind, _key(event.domain), event.domain.id)
        for event in seen
        if event.domain is not None and event.kind in (Kind.STARTED, Kind.STOPPED)
    )
    return [told for told, count in once.items() if count > 1]


class Seen:
    """What a connection has told since this was made, and what it knew then."""

    def __init__(self, hv: Connection) -> None:
        self.events: list[DomainEvent] = []
        self._before = known(hv)
        hv.subscribe(self.events.append)

    def has(self, kind: Kind, count: int) -> Callable[[], bool]:
        """So many of them?"""
        return lambda: sum(event.kind is kind for event in self.events) == count

    @property
    def implied(self) -> How:
        return implied(self._before, self.events)

    def check(self) -> None:
        """No gap, and nothing twice."""
        first = self.events[0].sequence
        assert [event.sequence for event in self.events] == list(range(first, first + len(self.events)))
        twice = told_twice(self.events)
        assert twice == [], "\n".join(self.of(twice[0][1]))

    def last(self) -> list[str]:
        return self.words()[-12:]

    def of(self, *uuids: str) -> list[str]:
        return self.words(lambda event: event.domain is not None and event.domain.uuid in uuids)

    def words(self, wanted: Callable[[DomainEvent], bool] = lambda event: True) -> list[str]:
        return [
            f"{event.sequence}: {event}{' *' if event.synthetic else ''} {event.domain and event.domain.id}"
            for event in self.events
            if wanted(event)
        ]


def _key(ref: DomainRef) -> str:
    return ref.uuid or ref.name or str(ref.id)
