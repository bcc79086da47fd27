"""What a bridge carries from loop to loop in these tests: live connections, whose events are counted against what was
caused, and which answer meanwhile.

Each has ``mark()``, to be called before a move, and ``moved_on()``: has it been told of something since, and has what
was asked been answered?  ``stop()``: nothing more is caused; ``finish()`` looks at what was told, and closes.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

import libvirt

import eventbridge
from eventbridge import Bridge, Connection, Job, Progress
from eventbridge.adapters.hypervisors.libvirt import install
from eventbridge.adapters.hypervisors.sim import simulation
from eventbridge.connection.call import Call
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from tests.moving.loops import Witness
from tests.support.libvirtd import Libvirtd
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN

AHEAD = 6
"""Events that are caused before they are told, at most."""
STORY, SEED = 4000, 11
SLOW = 4 << 20
"""Bytes/s."""
FAST = 1 << 40

Drive = Callable[[Callable[[], object]], None]
"""Has the loop turn until then."""
_numbers = itertools.count()


class Toggler:
    """A thread that pauses and resumes a domain over a connection of its own, and counts what that makes."""

    def __init__(self, domain: Any, told: Callable[[], int]) -> None:
        self.caused = 0
        self._domain = domain
        self._told = told
        self._going = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            self._domain.suspend()
            self._domain.resume()
            self.caused += 2
            with self._going:
                self._going.wait_for(lambda: self._stopped or self.caused - self._told() < AHEAD, 0.02)

    def more(self) -> None:
        with self._going:
            self._going.notify()

    def stop(self) -> None:
        self._stopped = True
        self.more()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        del self._domain  # a domain's object keeps its connection open


class RawLibvirt:
    """libvirt-python's own connections, of test:///default and of a private daemon with keepalive on."""

    def __init__(self, witness: Witness, daemon: Libvirtd) -> None:
        install(witness.bridge)
        self._witness = witness
        self._mark: list[int] = []
        self._acting: list[Any] = []
        self._watching: list[Any] = []
        self._registered: list[int] = []
        self.told: list[list[tuple[int, int]]] = []
        self.togglers: list[Toggler] = []
        for uri, acting in (("test:///default", "test:///default"), (daemon.unix_uri, daemon.tcp_uri)):
            self._watch(uri, acting)

    def _watch(self, uri: str, acting_uri: str) -> None:
        told: list[tuple[int, int]] = []
        self.told.append(told)
        acting, watching = libvirt.open(acting_uri), libvirt.open(uri)
        name = f"moved-{next(_numbers)}"
        domain = acting.createXML(DOMAIN.format(name))
        with contextlib.suppress(libvirt.libvirtError):  # not for a driver within the process
            watching.setKeepAlive(1, 3)

        def lifecycle(connection: Any, of: Any, event: int, detail: int, opaque: object) -> None:
            if of.name() == name:
                with self._witness.saw():
                    told.append((event, detail))

        registered = watching.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
        self._acting.append((acting, domain))
        self._watching.append(watching)
        self._registered.append(registered)
        self.togglers.append(Toggler(domain, lambda: len(told)))

    def mark(self) -> None:
        """An answer of a daemon may be read by the loop's thread, or by whoever asks."""
        self._mark = [len(told) for told in self.told]
        for connection in self._watching:
            assert connection.numOfDomains() >= 1

    def moved_on(self) -> bool:
        for toggler in self.togglers:
            toggler.more()
        return all(len(told) > mark for told, mark in zip(self.told, self._mark, strict=True))

    def stop(self) -> None:
        for toggler in self.togglers:
            toggler.stop()

    def finish(self, drive: Drive) -> None:
        pair = [
            (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED),
            (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED),
        ]
        drive(lambda: [len(told) for told in self.told] >= [toggler.caused for toggler in self.togglers])
        for told, toggler in zip(self.told, self.togglers, strict=True):
            assert told == pair * (toggler.caused // 2)
        assert all(connection.isAlive() for connection in self._watching)
        while self._acting:
            acting, domain = self._acting.pop()
            domain.destroy()
            watching = self._watching.pop()
            watching.domainEventDeregisterAny(self._registered.pop())
            watching.close()
            del domain
            acting.close()
        self.togglers.clear()


class OpenConnection:
    """`eventbridge.open`, with a stream, and a call under way at every move."""

    def __init__(self, witness: Witness, uri: str, drive: Drive, **options: Any) -> None:
        self._witness = witness
        self.uri = uri
        self.connection: Connection = eventbridge.open(uri, witness.bridge, audit=None, **options)
        self.events: list[DomainEvent] = []
        self.connection.soon(self._listen)
        self.calls: list[Call[Any]] = []
        self._mark = 0
        drive(lambda: self.connection.opened.done)
        self.connection.opened.result()

    def _listen(self) -> None:
        """On the loop's thread: both hear the same."""
        self.connection.subscribe(self._told)
        self.stream = self.connection.events(limit=1_000_000)

    def _told(self, event: DomainEvent) -> None:
        with self._witness.saw():
            self.events.append(event)

    def mark(self) -> None:
        self._mark = len(self.events)
        self.calls = [self.connection.domains(), *self.ask()]

    def ask(self) -> list[Call[Any]]:
        return []

    def moved_on(self) -> bool:
        if not all(call.done for call in self.calls):
            return False
        self._witness.errors += [f"{call}: {call.error}" for call in self.calls if call.error is not None]
        return self.has_more()

    def has_more(self) -> bool:
        return len(self.events) > self._mark

    def stop(self) -> None:
        """It ends by itself."""

    def finish(self, drive: Drive) -> None:
        first = self.events[0].sequence  # what others did before it listened is not for it
        assert [event.sequence for event in self.events] == list(range(first, first + len(self.events)))
        assert not any(event.synthetic for event in self.events)
        taken = []
        while (event := self.stream.take()) is not None:
            taken.append(event)
        assert taken == self.events
        closed = self.connection.close()
        drive(lambda: closed.done)


class OpenLibvirt(OpenConnection):
    """Over libvirt's driver; ``acting`` is another way to the same hypervisor."""

    def __init__(self, witness: Witness, uri: str, acting: str, drive: Drive) -> None:
        install(witness.bridge)
        self._acting = libvirt.open(acting)
        self._domain = self._acting.createXML(DOMAIN.format(f"open-{next(_numbers)}"))
        self._name = self._domain.name()
        self._ours: list[Kind] = []
        super().__init__(witness, uri, drive)
        self._toggler = Toggler(self._domain, lambda: len(self._ours))

    def _told(self, event: DomainEvent) -> None:
        super()._told(event)
        if event.domain is not None and event.domain.name == self._name and event.kind is not Kind.STARTED:
            self._ours.append(event.kind)  # its start may be told late, by a driver within the process

    def ask(self) -> list[Call[Any]]:
        return [self.connection.domain(self._name)]

    def has_more(self) -> bool:
        self._toggler.more()
        return super().has_more()

    def stop(self) -> None:
        self._toggler.stop()

    def finish(self, drive: Drive) -> None:
        drive(lambda: len(self._ours) >= self._toggler.caused)
        assert self._ours == [Kind.SUSPENDED, Kind.RESUMED] * (self._toggler.caused // 2)
        super().finish(drive)
        self._domain.destroy()
        del self._domain
        self._acting.close()


def story(events: list[DomainEvent]) -> list[tuple[Kind, str | None, str | None]]:
    return [(event.kind, event.domain and event.domain.name, event.reason) for event in events]


class OpenSim(OpenConnection):
    """A simulated hypervisor's, whose story is its seed's alone."""

    def __init__(self, witness: Witness, drive: Drive, rate: int = 1000) -> None:
        super().__init__(witness, f"sim:///default?domains=12&seed={SEED}&rate={rate}&events={STORY}", drive)

    def has_more(self) -> bool:
        return super().has_more() or len(self.events) == STORY

    def finish(self, drive: Drive) -> None:
        told = story(self.events)
        super().finish(drive)
        skipped = self.events[0].sequence - 1
        assert told == story_of_a_bridge_that_stays()[skipped : skipped + len(told)]


_told_once: list[tuple[Kind, str | None, str | None]] = []


def story_of_a_bridge_that_stays() -> list[tuple[Kind, str | None, str | None]]:
    """The same seed's, told at once on a bridge which never moves."""
    if not _told_once:
        with Bridge("select") as bridge:
            uri = f"sim:///default?domains=12&seed={SEED}&rate=100000&events={STORY}"
            connection = eventbridge.open(uri, bridge, audit=None)
            events: list[DomainEvent] = []
            connection.subscribe(events.append)
            assert bridge.run(lambda: len(events) == STORY, PATIENCE)
            closed = connection.close()
            assert bridge.run(lambda: closed.done, PATIENCE)
        _told_once.extend(story(events))
    return _told_once


class LongJob:
    """A migration between two simulated hypervisors that lasts as long as the walk, with progress and its domain
    held."""

    def __init__(self, witness: Witness, drive: Drive) -> None:
        self._witness = witness
        self._names = [f"moving-{next(_numbers)}" for _ in "ab"]
        uris = [f"sim:///default?world={name}&events=0&domains=2&memory=1048576" for name in self._names]
        worlds = [simulation.simulation_of(uri) for uri in uris]
        for info in worlds[1].domains():
            worlds[1].do("undefine", info.domain.name)
        worlds[0].do("start", "simulated-0")
        self._worlds = worlds
        self._ends = [eventbridge.open(uri, witness.bridge, audit=None) for uri in uris]
        drive(lambda: all(end.opened.done for end in self._ends))
        found = self._ends[0].domain("simulated-0")
        drive(lambda: found.done)
        self.domain = found.result()
        self.progress: list[Progress] = []
        self.call = self.domain.migrate(self._ends[1], bandwidth=SLOW)
        self.call.on_progress(self._progressed)
        drive(lambda: self.progress)
        self.held = 0.0
        self._mark = 0

    def _progressed(self, progress: Progress) -> None:
        with self._witness.saw():
            self.progress.append(progress)

    def mark(self) -> None:
        self._mark = len(self.progress)

    def moved_on(self) -> bool:
        job = self.domain.job
        if self.call.done or job is None or job.job is not Job.MIGRATION_OUT or job.held < self.held:
            self._witness.errors.append(f"it is not held by the same one all the time: {self.call}, {job}")
        else:
            self.held = job.held
        return True

    def stop(self) -> None:
        """It ends when it is let."""

    def finish(self, drive: Drive) -> None:
        drive(lambda: len(self.progress) > self._mark)
        faster = self.domain.set_bandwidth(FAST)
        drive(lambda: faster.done and self.call.done)
        self.call.result()
        processed = [progress.processed for progress in self.progress]
        assert processed == sorted(set(processed)), "each progress once"
        assert self.domain.job is None
        assert self._worlds[1].domain("simulated-0").state is State.RUNNING
        closed = [end.close() for end in self._ends]
        drive(lambda: all(call.done for call in closed))
        for name in self._names:
            simulation.forget(name)
