"""A domain's memory on its way, to a file or to another world: in steps, at a rate, with progress, and abortable.

A step is taken every STEP seconds and moves as many bytes as the bandwidth allows for that; the last one takes the
guest away, in one moment.  Until then it is where it was, and whatever goes wrong it stays there.  A guest's memory
does not change while it is copied, so every transfer ends.

Steps are taken on a loop's thread, without the world's lock, from its agenda.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from eventbridge.errors import EventBridgeError, HypervisorError
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted, Progress

from .commands import REMOVED, SENT, TAKEN_BACK, asked, refused
from .guests import Guest, State, Step
from .hypervisor import World, both
from .later import LATER
from .migration_in import Incoming, listening

if TYPE_CHECKING:
    from .session import Session

STEP = 0.01
"""Seconds."""
BANDWIDTH = 1 << 30
"""Bytes a second, unless said otherwise."""

End: TypeAlias = Callable[["Transfer"], None]


class Transfer:
    """Of ``guest``, for ``request``; ``end`` is its last moment, and may raise.  ``incoming``: where it goes, where
    that is another world.
    """

    def __init__(
        self, session: Session, request: Request, guest: Guest, end: End, incoming: Incoming | None = None
    ) -> None:
        self.world = session.world
        self.request = request
        self.guest = guest
        self.incoming = incoming
        self._session = session
        self._end = end
        self._run = guest.id
        self._total = guest.memory * 1024
        self._processed = 0
        self._bandwidth = _positive(self.world, request, "bandwidth", BANDWIDTH)
        self._downtime = _positive(self.world, request, "downtime", 0)

    def start(self) -> None:
        """Under the world's lock."""
        self.world.transfers[self.guest] = self
        self.request.abortable(self._hurry)
        self._soon()

    def set_bandwidth(self, request: Request) -> None:
        self._bandwidth = _positive(self.world, request, "bandwidth", None)

    def set_downtime(self, request: Request) -> None:
        self._downtime = _positive(self.world, request, "downtime", None)

    # -- steps

    def _step(self) -> None:
        error, last = None, False
        with self.world.lock:
            over = not self._session.has(self.request)
            if not over and self.world.faults.hangs(self.request, self._step):
                return
            if not over and (error := self._trouble()) is None:
                last = self._move()
        if over:
            self._abandon()
        elif error is not None:
            self._finish(error)
        else:
            self._go_on(last)

    def _move(self) -> bool:
        """One step's bytes; is what is left so little that the guest may stand still for it?"""
        self._processed = min(self._total, self._processed + max(1, int(self._bandwidth * STEP)))
        return self._total - self._processed <= self._bandwidth * self._downtime // 1000

    def _go_on(self, last: bool) -> None:
        if last:
            self._processed = self._total
        self._tell()
        if last:
            self._finish(self._at_end())
        else:
            self._soon()

    def _trouble(self) -> EventBridgeError | None:
        """Why it cannot go on."""
        if self.request.aborted:
            return JobAborted(f"{self.world.uri}: {self.request.operation} of {self.guest.name}: aborted at {self}")
        if self.guest.id != self._run:
            return self._failed("its run has ended meanwhile")
        if not self._session.has(self.request):
            return self._failed("its connection has gone")
        if self.incoming is not None and self.incoming.over is not None:
            return self._failed(self.incoming.over)
        return self.world.faults.planned_for(self.request, self._processed / self._total)

    def _at_end(self) -> EventBridgeError | None:
        try:
            with both(self.world, self.world if self.incoming is None else self.incoming.world):
                error = self._trouble()
                if error is None:
                    self._end(self)
                return error
        except EventBridgeError as error:
            return error

    def _finish(self, error: EventBridgeError | None) -> None:
        if error is not None and self.incoming is not None:
            self.incoming.fail(str(error))
        with self.world.lock:
            self._forget()
            self._session.finish(self.request, None, error)

    def _abandon(self) -> None:
        """Who asked has gone, with his connection."""
        with self.world.lock:
            self._forget()
        if self.incoming is not None:
            self.incoming.fail("the connection of its source has gone")

    def _forget(self) -> None:
        if self.world.transfers.get(self.guest) is self:
            del self.world.transfers[self.guest]

    def _hurry(self) -> None:
        """It was aborted."""
        self._soon(0)

    def _soon(self, delay: float = STEP) -> None:
        with self.world.lock:
            self.world.schedule(delay, self._step)
            self._session.arm()

    def _tell(self) -> None:
        left = self._total - self._processed
        self.request.tell(Progress(self._total, self._processed, left, float(self._bandwidth), float(self._downtime)))

    def _failed(self, why: str) -> HypervisorError:
        return refused(self.world.uri, self.request.operation, self.guest.name, why)

    def __str__(self) -> str:
        return f"{self._processed} of {self._total} bytes"


# -- what is asked.  Under the world's lock


def start_save(session: Session, request: Request) -> object:
    """``save`` and ``managed_save``."""
    path = request.arguments.get("path")
    if request.operation == "save" and not (isinstance(path, str) and path):
        raise refused(session.world.uri, "save", None, f"path must say where to; found {path!r}")
    _ready(session, request, _saved).start()
    return LATER


def _saved(transfer: Transfer) -> None:
    world, guest, request = transfer.world, transfer.guest, transfer.request
    world.take(guest, asked(world.uri, request.operation, guest))
    if request.operation == "save":
        world.files[request.arguments["path"]] = (guest.name, guest.uuid, guest.memory)


def start_migration(session: Session, request: Request) -> object:
    """``migrate``."""
    transfer = _ready(session, request, _migrated)
    transfer.incoming = listening(session.world, request, transfer.guest)
    transfer.start()
    return LATER


def _migrated(transfer: Transfer) -> None:
    """Both worlds' moment: it is there, and here it has ended, or stands still until that is confirmed."""
    world, guest, arguments = transfer.world, transfer.guest, transfer.request.arguments
    step = asked(world.uri, "migrate", guest)
    assert transfer.incoming is not None
    confirmed = bool(arguments.get("confirm"))
    transfer.incoming.arrive(guest, bool(arguments.get("persistent")), confirmed)
    if not confirmed:
        world.take(guest, step, *_undefined(guest, bool(arguments.get("undefine"))))
        transfer.incoming.begin()
        return
    world.sent[guest] = (guest.state, bool(arguments.get("undefine")))
    if guest.state is State.RUNNING:
        world.take(guest, SENT)
    guest.state = State.SENT


def confirm(session: Session, request: Request) -> None:
    """``migrate_confirm``: it has ended here; or it goes on, where it does not already."""
    world = session.world
    guest = world.find(request)
    if not request.arguments.get("succeeded") and guest.state is not State.SENT:
        return
    step = asked(world.uri, "migrate_confirm", guest)
    was, undefine = world.sent.pop(guest)
    if request.arguments.get("succeeded"):
        world.take(guest, step, *_undefined(guest, undefine))
    elif was is State.RUNNING:
        world.take(guest, TAKEN_BACK)
    else:
        guest.state = was


def _undefined(guest: Guest, undefine: bool) -> tuple[Step, ...]:
    return (REMOVED,) if undefine and guest.persistent else ()


def _ready(session: Session, request: Request, end: End) -> Transfer:
    world = session.world
    guest = world.find(request)
    asked(world.uri, request.operation, guest)
    if guest in world.transfers:
        under_way = world.transfers[guest]
        raise refused(
            world.uri, request.operation, guest.name, f"its {under_way.request.operation} is under way: {under_way}"
        )
    return Transfer(session, request, guest, end)


def of_guest(world: World, request: Request) -> Transfer:
    """The one under way; `HypervisorError` where there is none."""
    guest = world.find(request)
    if guest not in world.transfers:
        raise refused(world.uri, request.operation, guest.name, "nothing of it is being saved or migrated")
    return world.transfers[guest]


def _positive(world: World, request: Request, name: str, default: int | None) -> int:
    """Bytes/s, or ms: an argument that is 1 or more, or not given where there is a default."""
    given = request.arguments.get(name)
    if given is None and default is not None:
        return default
    if type(given) is not int or given < 1:
        domain = None if request.domain is None else request.domain.name
        raise refused(world.uri, request.operation, domain, f"{name} must be a whole number from 1; found {given!r}")
    return given
