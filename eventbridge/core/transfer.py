"""Registrations that follow their library from one bridge to another (D9).

`Bridge.move` takes a whole bridge to another host.  This takes what one library has on a bridge, known by its
``free`` function, to another bridge: a process has one libvirt, and installs it on a new bridge for each
``asyncio.run``.  What is being called meanwhile is not waited for: whoever wants that does it between two passes
(`Bridge.between_passes`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from eventbridge.errors import BridgeClosed, UnknownHandle

from .handles import FreeCallback, Handle, HandleCallback
from .registry import Registry
from .timers import NEVER, Timer

NOBODYS = 0
"""An id that no bridge gives out (H1)."""


def give(old: Registry, new: Registry, free: FreeCallback) -> tuple[dict[int, int], dict[int, int]]:
    """Carry everything registered with ``free`` from ``old`` to ``new``, and the calls of it that are owed.

    Ids are kept, and ``new`` counts on above them, except where it has given out the same: those handles and timeouts
    get new ones (returned, by the old), and their callbacks are told the old ones still.  What died with ``old`` (it
    was closed, or is a forked parent's) becomes `NOBODYS`: the library holds its id still, which in ``new`` may be
    somebody else's.  So does what finds ``new`` closed meanwhile: it is as dead as what was there before it, and
    ``old`` calls its ``free``.  Never holds both locks.
    """
    handles = {id: NOBODYS for id, whose in old.dead_handles.items() if whose is free}
    timeouts = {id: NOBODYS for id, whose in old.dead_timeouts.items() if whose is free}
    for handle in [handle for handle in list(old.handles.values()) if handle.free is free]:
        with contextlib.suppress(UnknownHandle):  # removed meanwhile
            with old.lock:
                mask = handle.mask
                old.remove_handle(handle.id, free=False)
            id = _or_freed(old, handle, functools.partial(_adopt_handle, new, handle, mask))
            if id != handle.id:
                handles[handle.id] = id
    for timer in [timer for timer in list(old.timeouts.values()) if timer.free is free]:
        with contextlib.suppress(UnknownHandle):
            with old.lock:
                interval, deadline = timer.interval, timer.deadline
                old.remove_timeout(timer.id, free=False)
            id = _or_freed(old, timer, functools.partial(_adopt_timeout, new, timer, interval, deadline))
            if id != timer.id:
                timeouts[timer.id] = id
    owed = _take_owed(old, free)
    with new.lock:
        new.next_handle = max(new.next_handle, old.next_handle)
        new.next_timeout = max(new.next_timeout, old.next_timeout)
        debtor = new if new.refusal is None else old
    with debtor.lock:
        if owed:
            debtor.frees.extend(owed)
            debtor.wake()
    return handles, timeouts


def _or_freed(old: Registry, item: Handle | Timer, adopt: Callable[[], int]) -> int:
    try:
        return adopt()
    except BridgeClosed:
        assert item.free is not None  # it is known by that
        with old.lock:
            old.frees.append((item.free, item.opaque, item))
            old.wake()
        if isinstance(item, Timer):
            item.let_go()
        return NOBODYS


def _take_owed(old: Registry, free: FreeCallback) -> list[Any]:
    """The old loop may be calling some at the same time, and takes each as this does: once, from the same end."""
    owed: list[Any] = []
    with old.lock:
        for _ in range(len(old.frees)):
            try:
                due = old.frees.popleft()
            except IndexError:
                break
            (owed if due[0] is free else old.frees).append(due)
        if old.frees:
            old.wake()
    return owed


def _adopt_handle(registry: Registry, handle: Handle, mask: int) -> int:
    with registry.lock:
        callback = handle.callback
        if handle.id >= registry.next_handle:
            registry.next_handle = handle.id
        else:
            callback = _told(handle.id, callback)
        adopted = Handle(handle.fd, mask, callback, handle.opaque, handle.free, handle.unpack)
        return registry.add_handle(adopted, though_closed=True)


def _adopt_timeout(registry: Registry, timer: Timer, interval: int, deadline: int) -> int:
    """Its next deadline is kept.  Nanoseconds."""
    with registry.lock:
        callback = timer.callback
        if timer.id >= registry.next_timeout:
            registry.next_timeout = timer.id
        else:
            callback = _told(timer.id, callback)
        adopted = Timer(callback, timer.opaque, timer.free, timer.unpack)
        id = registry.add_timeout(adopted, -1 if deadline else 0)
        if 0 < deadline < NEVER:
            adopted.interval = interval
            registry.timers.schedule(adopted, deadline)
            registry.arm_for(adopted)
        return id


def _told(id: int, callback: HandleCallback) -> HandleCallback:
    """``callback`` as one that is told ``id``, whatever the id it is registered under."""
    return lambda _, *rest: callback(id, *rest)
