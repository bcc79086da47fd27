"""The destination's side of a migration: who is expected from where, and what becomes of it.

A guest is prepared for, arrives in the last moment of its transfer, begins to run, then or, where that is confirmed at
its source, when it is finished with; or it is cancelled, or its source fails.  Two simulated worlds of one process find
each other by the address that `prepare` answers with.

Everything here is under the lock of the destination's world, but for `Incoming.over`, which the source may read at any
time, and `Incoming.fail`, which takes the lock itself.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from eventbridge.errors import EventBridgeError, HypervisorError
from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request

from .commands import ADDED, ASKED, MIGRATED_IN, PAUSE, REMOVED, refused
from .guests import Guest, State, Step
from .later import LATER

if TYPE_CHECKING:
    from .hypervisor import World
    from .session import Session

_numbers = itertools.count(1)
_listening: dict[str, Incoming] = {}
"""By address; each operation on it is one of the interpreter's own, so it needs no lock."""


class Incoming:
    """One that is expected by ``session``."""

    def __init__(self, session: Session, source: DomainRef) -> None:
        self.session = session
        self.world: World = session.world
        self.source = source
        self.address = f"sim:///default/incoming/{next(_numbers)}"
        self.over: str | None = None
        """Why nobody can arrive any more; None: somebody can."""
        self.taken = False
        self._arrived: tuple[str, str, int] | None = None  # name, uuid, memory
        self._confirmed = False
        self._persistent = False
        self._paused: tuple[Step, ...] = ()
        self._guest: Guest | None = None
        self._run = 0  # its id here
        self._added = False
        self._waiting: Request | None = None
        _listening[self.address] = self
        self.world.incoming.append(self)

    @property
    def runs(self) -> bool:
        """Has it begun here, and not ended since?"""
        return self._guest is not None and self._guest.id == self._run != 0

    # -- its source's: under both locks

    def arrive(self, guest: Guest, persistent: bool, confirmed: bool) -> None:
        """It is here, whole: to `begin`, or, ``confirmed``, when it is finished with."""
        if self.over is not None:
            raise self._refused("migrate", self.over)
        here = self.world.present("migrate", guest.name, guest.uuid)
        if here is not None and here.state is not State.OFF:
            raise self._refused("migrate", f"at its destination it is {here.state.value}")
        self._confirmed, self._persistent = confirmed, persistent
        self._paused = (PAUSE,) if guest.state is State.PAUSED else ()
        if not confirmed:
            self._guest = self.world.claim("migrate", guest.name, guest.uuid)
        self._arrived = (guest.name, guest.uuid, guest.memory)
        self.over = "it has arrived already"
        _listening.pop(self.address, None)
        if confirmed:
            self._answer_waiting()

    def begin(self) -> None:
        """It runs here."""
        assert self._arrived is not None
        name, uuid, memory = self._arrived
        guest = self._guest or self.world.claim("migrate_finish", name, uuid)
        self._guest = guest
        guest.memory = memory
        self._added = self._persistent and not guest.persistent
        self.world.take(guest, *((ADDED,) if self._added else ()), MIGRATED_IN, *self._paused)
        self._run = guest.id
        if not self._confirmed:
            self._answer_waiting()

    def fail(self, why: str) -> None:
        """Its source will not send it."""
        with self.world.lock:
            if self.over is None:
                self.over = why
                self._answer_waiting()

    # -- its destination's

    def finish(self, request: Request) -> object:
        """Answered once it runs here."""
        if self._arrived is None and self.over is None:
            self._waiting = request
            return LATER
        return self._outcome(request.operation)

    def cancel(self, why: str) -> None:
        """Nothing of it is left; but one that is nowhere else stays."""
        self.over = self.over or why
        if self._confirmed and self.runs:
            assert self._guest is not None
            self.world.take(self._guest, ASKED["destroy"][self._guest.state], *((REMOVED,) if self._added else ()))
        self._arrived = None
        self._answer_waiting()
        self.forget()

    def forget(self) -> None:
        _listening.pop(self.address, None)
        if self in self.world.incoming:
            self.world.incoming.remove(self)

    @property
    def is_here_alone(self) -> bool:
        """Does it run here, and has it ended at its source?"""
        return self.runs and not self._confirmed

    def _outcome(self, operation: str) -> DomainInfo:
        if self._arrived is None:
            raise self._refused(operation, self.over or "it has not arrived")
        if self._guest is None:
            self.begin()
        if not self.runs or self._guest is None:
            raise self._refused(operation, "it has arrived, and has ended")
        return self._guest.info()

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or not self.session.has(waiting):
            return
        try:
            self.session.finish(waiting, self._outcome(waiting.operation))
        except EventBridgeError as error:
            self.session.finish(waiting, error=error)

    def _refused(self, operation: str, why: str) -> HypervisorError:
        return refused(self.world.uri, operation, self.source.name or self.source.uuid, why)


def listening(world: World, request: Request, guest: Guest) -> Incoming:
    """Who expects the guest where ``request`` says; it is then nobody else's.  Under the source's lock."""
    address = request.arguments.get("to")
    incoming = _listening.get(address) if isinstance(address, str) else None
    if incoming is None:
        raise refused(world.uri, "migrate", guest.name, f"nobody of this process listens at {address!r}: prepare it")
    source = incoming.source
    for named, is_named in ((source.uuid, guest.uuid), (source.name, guest.name)):
        if named not in (None, is_named):
            raise refused(world.uri, "migrate", guest.name, f"{address} expects {named}")
    if incoming.world is world:
        raise refused(world.uri, "migrate", guest.name, "its destination is the world that it is in")
    if incoming.over is not None or incoming.taken:
        raise refused(world.uri, "migrate", guest.name, incoming.over or f"somebody else is on the way to {address}")
    incoming.taken = True
    return incoming


# -- what is asked


def prepare(session: Session, request: Request) -> str:
    """``migrate_prepare``; nothing has to listen anywhere, so ``listen`` changes nothing."""
    world, source = session.world, request.arguments.get("source")
    if not isinstance(source, DomainRef) or source.name is source.uuid is None:
        raise refused(world.uri, request.operation, None, f"source must say who comes; found {source!r}")
    here = world.cast.find(source)
    if here is not None and here.state is not State.OFF:
        raise refused(world.uri, request.operation, here.name, f"here it is {here.state.value}")
    known = _expected(world, source)
    if known is not None and known.over is None:
        raise refused(world.uri, request.operation, _called(source), "it is expected already: cancel that first")
    if known is not None:
        known.forget()
    return Incoming(session, source).address


def finish(session: Session, request: Request) -> object:
    """``migrate_finish``."""
    incoming = _expected(session.world, request.arguments.get("source"))
    if incoming is None:
        called = _called(request.arguments.get("source"))
        raise refused(session.world.uri, request.operation, called, "nobody is expected: prepare it first")
    return incoming.finish(request)


def cancel(session: Session, request: Request) -> None:
    """``migrate_cancel``: also where there is nothing to cancel, but not of one that runs here and nowhere else."""
    incoming = _expected(session.world, request.arguments.get("source"))
    if incoming is None:
        return
    if incoming.is_here_alone:
        why = "it has arrived, runs here and has ended at its source: finish it, or destroy it"
        raise refused(session.world.uri, request.operation, _called(incoming.source), why)
    incoming.cancel("its destination has cancelled it")


def _expected(world: World, source: object) -> Incoming | None:
    if not isinstance(source, DomainRef):
        return None
    for incoming in world.incoming:
        there = incoming.source
        if there.uuid == source.uuid if there.uuid and source.uuid else there.name == source.name:
            return incoming
    return None


def _called(source: object) -> str | None:
    return source.name or source.uuid if isinstance(source, DomainRef) else None
