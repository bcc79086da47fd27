"""What can be asked of the simulated hypervisor: one function an operation, by its name in `CALLS`.

Each is called on a loop's thread under the world's lock, and returns the answer, or LATER where somebody else will
give it; `HypervisorError` says why not.  What may be asked of whom is `commands.ASKED`'s; what it does to a guest goes
through `World.take`, as the story does, so everybody is told.

There is no ``console_info``: a simulated guest has nothing to say, and no pty to say it on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request

from . import definition
from .commands import PAUSE, asked, refused
from .guests import TRANSITIONS, Guest, State, Step
from .later import LATER
from .listing import Listing
from .migration_in import cancel, finish, prepare
from .migration_out import confirm, of_guest, start_migration, start_save
from .uri import Parameters

if TYPE_CHECKING:
    from .hypervisor import World
    from .session import Session


class Asker(Protocol):
    """Whoever has it done: a connection, or a test behind everybody's back."""

    @property
    def world(self) -> World: ...

    @property
    def parameters(self) -> Parameters: ...


Answer: TypeAlias = Callable[["Session", Request], object]


def _list(session: Session, request: Request) -> object:
    Listing(session, request).go_on()
    return LATER


def _info(asker: Asker, request: Request) -> DomainInfo:
    return asker.world.find(request).info()


def _step(asker: Asker, request: Request) -> None:
    """Whatever is one step."""
    world = asker.world
    guest = world.find(request)
    world.take(guest, asked(world.uri, request.operation, guest))


def _start(asker: Asker, request: Request) -> None:
    world = asker.world
    guest = world.find(request)
    world.take(guest, asked(world.uri, request.operation, guest), *_paused(request))


def _shutdown(asker: Asker, request: Request) -> None:
    """Its guest takes as long as a call does, or as the story, if that is first."""
    world = asker.world
    guest = world.find(request)
    world.take(guest, asked(world.uri, request.operation, guest))
    world.schedule(asker.parameters.latency / 1000, partial(_is_down, world, guest, guest.id))
    world.wake()


def _is_down(world: World, guest: Guest, run: int) -> None:
    with world.lock:
        if guest.id == run and guest.state is State.SHUTTING_DOWN:
            world.take(guest, *TRANSITIONS[State.SHUTTING_DOWN])


def _define(asker: Asker, request: Request) -> DomainRef:
    world = asker.world
    guest, wanted = _defined(asker, request)
    step = asked(world.uri, request.operation, guest)
    guest.memory = wanted.memory or guest.memory
    world.take(guest, step if guest.persistent else replace(step, reason="added"))
    return guest.info().domain


def _create(asker: Asker, request: Request) -> DomainRef:
    world = asker.world
    guest, wanted = _defined(asker, request)
    step = asked(world.uri, request.operation, guest)
    guest.memory = wanted.memory or guest.memory
    world.take(guest, step, *_paused(request))
    return guest.info().domain


def _restore(asker: Asker, request: Request) -> DomainRef:
    world = asker.world
    path = request.arguments.get("path")
    if request.arguments.get("definition") is not None:
        raise refused(world.uri, request.operation, None, "a simulated domain is restored as it was saved")
    if not isinstance(path, str) or path not in world.files:
        there = ", ".join(sorted(world.files)) or "none"
        raise refused(world.uri, request.operation, None, f"nothing was saved in {path!r}; there are: {there}")
    name, uuid, memory = world.files[path]
    guest = world.claim(request.operation, name, uuid)
    step = asked(world.uri, request.operation, guest)
    guest.memory = memory
    world.take(guest, step, *_paused(request))
    return guest.info().domain


def _set_bandwidth(asker: Asker, request: Request) -> None:
    of_guest(asker.world, request).set_bandwidth(request)


def _set_downtime(asker: Asker, request: Request) -> None:
    of_guest(asker.world, request).set_downtime(request)


def _defined(asker: Asker, request: Request) -> tuple[Guest, definition.Definition]:
    try:
        wanted = definition.parse(request.arguments.get("definition"))
    except ValueError as error:
        raise refused(asker.world.uri, request.operation, None, str(error)) from None
    return asker.world.claim(request.operation, wanted.name, wanted.uuid), wanted


def _paused(request: Request) -> tuple[Step, ...]:
    return (PAUSE,) if request.arguments.get("paused") else ()


STEPS: dict[str, Callable[[Asker, Request], object]] = {
    "create": _create,
    "define": _define,
    "restore": _restore,
    "info": _info,
    "start": _start,
    "suspend": _step,
    "resume": _step,
    "shutdown": _shutdown,
    "reboot": _step,
    "destroy": _step,
    "undefine": _step,
    "set_bandwidth": _set_bandwidth,
    "set_downtime": _set_downtime,
}
"""What is done at once."""

CALLS: dict[str, Answer] = {
    **STEPS,
    "list": _list,
    "save": start_save,
    "managed_save": start_save,
    "migrate": start_migration,
    "migrate_prepare": prepare,
    "migrate_finish": finish,
    "migrate_cancel": cancel,
    "migrate_confirm": confirm,
}
