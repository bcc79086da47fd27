"""What libxl tells of its own accord: its events, read and given back, and the generators that make it tell them.

An event is the application's from the moment libxl hands it over, and is freed exactly once, here (rule 14).  The
generators of a domain are its death's, which tells its shutdown too, and one for each removable disk.  Hook side what
reads events; the generators block for a round trip to xenstored and belong on a worker's thread.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
from typing import Any, NamedTuple
from uuid import UUID

from . import types
from .handle import Ctx


class EventKind(enum.Enum):
    """libxl_event_type; whatever a later version adds is OTHER."""

    OTHER = 0
    DOMAIN_SHUTDOWN = 1
    DOMAIN_DEATH = 2
    DISK_EJECT = 3
    OPERATION_COMPLETE = 4
    DOMAIN_CREATE_CONSOLE_AVAILABLE = 5


class Event(NamedTuple):
    """One of libxl's events, as plain data."""

    kind: EventKind
    type: int
    """libxl's own number."""
    domid: int
    uuid: str | None
    for_user: int
    reason: int | None = None
    """Of DOMAIN_SHUTDOWN: one of `reasons.SHUTDOWN`."""
    vdev: str | None = None
    """Of DISK_EJECT, where libxl says it: 4.17 does not."""
    code: int | None = None
    """Of OPERATION_COMPLETE."""


_KINDS = {kind.value: kind for kind in EventKind}


def read(event: types.Event) -> Event:
    """Copied, so that libxl's can be freed."""
    kind = _KINDS.get(event.type, EventKind.OTHER)
    uuid = bytes(event.uuid)
    return Event(
        kind,
        event.type,
        event.domid,
        str(UUID(bytes=uuid)) if any(uuid) else None,
        event.for_user,
        reason=event.u.shutdown_reason if kind is EventKind.DOMAIN_SHUTDOWN else None,
        vdev=_text(event.u.vdev) if kind is EventKind.DISK_EJECT else None,
        code=event.u.rc if kind is EventKind.OPERATION_COMPLETE else None,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


class Generator:
    """Events of one thing; `Generators.disable` ends it.  ``for_user`` is in each event that it makes."""

    def __init__(self, for_user: int, domid: int, vdev: str | None) -> None:
        self.for_user = for_user
        self.domid = domid
        self.vdev = vdev
        """The disk, or None for the domain's shutdown and death."""
        self.pointer = ctypes.c_void_p()

    def __repr__(self) -> str:
        return f"<Generator of domain {self.domid}: {self.vdev or 'shutdown and death'}>"


class Generators:
    """Those of one ctx.  They end with it."""

    def __init__(self, ctx: Ctx) -> None:
        self._ctx = ctx
        self._keys = itertools.count(1)
        self._enabled: dict[int, Generator] = {}

    def of_death(self, domid: int) -> Generator:
        """DOMAIN_SHUTDOWN, where its guest stops before that, and DOMAIN_DEATH, each once.  Of a domain that does not
        exist the death is told with the next that any domain's end brings; at once where this is the ctx's only
        generator of a death (libxl looks when its watch fires, which a new watch does: 4.17).  Blocks."""
        return self._enable(Generator(next(self._keys), domid, None))

    def of_eject(self, domid: int, vdev: str) -> Generator:
        """DISK_EJECT, whenever the guest ejects the medium of its disk ``vdev``.  Blocks."""
        return self._enable(Generator(next(self._keys), domid, vdev))

    def disable(self, generator: Generator) -> None:
        """No more of it; what has happened before may still be told.  Once is enough; nothing where the ctx is closed,
        which ends them all.  Blocks.
        """
        if not self._ctx.enter():
            return
        try:
            if self._enabled.pop(generator.for_user, None) is not None:
                self._function("evdisable", generator)(self._ctx.pointer, generator.pointer)
        finally:
            self._ctx.lifetime.leave()

    def vdev_of(self, event: Event) -> str | None:
        """The disk of a DISK_EJECT: as it was asked for, where libxl does not say."""
        generator = self._enabled.get(event.for_user)
        return event.vdev or (generator.vdev if generator else None)

    def _enable(self, generator: Generator) -> Generator:
        # Known before libxl is: the first event may come on the loop's thread before this call returns.
        self._enabled[generator.for_user] = generator
        disk = () if generator.vdev is None else (generator.vdev.encode(),)
        try:
            self._ctx.call(
                "watch",
                generator.domid,
                self._function("evenable", generator),
                generator.domid,
                *disk,
                generator.for_user,
                ctypes.byref(generator.pointer),
            )
        except BaseException:
            self._enabled.pop(generator.for_user, None)
            raise
        return generator

    def _function(self, what: str, generator: Generator) -> Any:
        of = "domain_death" if generator.vdev is None else "disk_eject"
        return getattr(self._ctx.library, f"libxl_{what}_{of}")
