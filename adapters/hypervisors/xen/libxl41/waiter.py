"""The one fd of a 4.1 ctx, drained on the loop's thread: which domains have stopped or gone.

4.1 has no watch on a domain's death, only one on Xen's announcement that some domain has stopped or gone; a ctx can
have one, and one is enough: it is fanned out over all that are followed.  So an event says only "look".  One list of
the domains answers for most; libxl is asked about a domain by itself if the list shows it dying, or lacks it.

``libxl_get_event`` blocks where nothing is pending.  So the fd is polled before each call, and nobody else calls it.
The setting of watches, which blocks on xenstored, is the toolstack's, on its worker.
"""

from __future__ import annotations

import ctypes
import select
from typing import Protocol

from eventbridge.core.masks import Events
from eventbridge.errors import HypervisorError

from .context import Context, reason
from .types import DomInfo, Event, EventType, Waiter

BATCH = 256
"""Events in one drain; the fd stays readable while there are more."""
STOPPED, GONE = 1, 0
"""What libxl_event_get_domain_death_info says; below 0 the domain lives."""


class Told(Protocol):
    """Who is told: a lookout's `Facts`."""

    def shut_down(self, domid: int, reason: int) -> None: ...

    def gone(self, domid: int) -> None: ...


class EventSource:
    """A `eventbridge.core.models.DirectSource`."""

    def __init__(self, context: Context, told: Told) -> None:
        self._context = context
        self._told = told
        fd = ctypes.c_int(-1)
        with context.inside:
            context.library.libxl_get_wait_fd(context.pointer, ctypes.byref(fd))
        self._fd = fd.value
        if self._fd < 0:  # it says 0, success, all the same
            raise HypervisorError(f"{context.uri}: libxl has no fd to wait on", operation="open")
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._waiter: Waiter | None = None
        self.followed: dict[int, int | None] = {}
        """Domid: the shutdown reason that was told of it."""

    def wait(self) -> None:
        """Begin to be told.  Blocks."""
        waiter = Waiter()
        with self._context.inside:
            code = self._context.library.libxl_wait_for_domain_death(self._context.pointer, 0, ctypes.byref(waiter))
            if code:
                # It is filled in all the same.
                self._context.library.libxl_free_waiter(ctypes.byref(waiter))
                raise self._context.refusal("wait for the end of domains", code)
        self._waiter = waiter

    def stop(self) -> None:
        """Within the context's teardown."""
        if self._waiter is not None:
            stop_waiting(self._context, self._waiter)
            self._waiter = None

    # -- DirectSource: the loop's thread

    def fileno(self) -> int:
        return self._fd

    def events(self) -> int:
        return int(Events.READABLE)

    def deadline(self) -> float | None:
        return None

    def drain(self, events: int) -> None:
        try:
            with self._context.inside:
                self._drain()
        except HypervisorError:
            if not self._context.closed:
                raise

    def detached(self) -> None:
        """The context closes the fd, when its last one is out."""

    def _drain(self) -> None:
        death: Event | None = None
        for _ in range(BATCH):
            if not self._poll.poll(0):
                break
            event = Event()
            if self._context.library.libxl_get_event(self._context.pointer, ctypes.byref(event)):
                break  # xenstored has gone: the lookout's probe tells
            if event.type == EventType.DOMAIN_DEATH and death is None:
                death = event
                continue
            self._context.library.libxl_free_event(ctypes.byref(event))
        if death is not None:
            try:
                self._look_round(death)
            finally:
                self._context.library.libxl_free_event(ctypes.byref(death))

    def _look_round(self, event: Event) -> None:
        """Who of those that are followed has stopped or gone?  Most events are about somebody else."""
        there = {info.domid: info for info in self._context.list()}
        for domid, told in list(self.followed.items()):
            info = there.get(domid)
            if info is None or info.dying:
                self._look_at(domid, event)
            elif reason(info) != told:
                # The list is believed: of a domain that has shut down and is marked as running still, libxl 4.1 says
                # that it lives, and Xen announces nothing more of it.
                self._has_changed(domid, info)

    def _look_at(self, domid: int, event: Event) -> None:
        info = DomInfo()
        found = self._context.library.libxl_event_get_domain_death_info(
            self._context.pointer, domid, ctypes.byref(event), ctypes.byref(info)
        )
        if found == STOPPED:
            self._has_changed(domid, info)
        if found == GONE or (found == STOPPED and info.dying):
            self.followed.pop(domid, None)
            self._told.gone(domid)
        elif found != STOPPED and domid in self.followed:
            self.followed[domid] = None

    def _has_changed(self, domid: int, info: DomInfo) -> None:
        """It has shut down, or goes on; one that is dying says how it had shut down."""
        if domid in self.followed and reason(info) != self.followed[domid]:
            self.followed[domid] = reason(info)
            if info.shutdown:
                self._told.shut_down(domid, info.shutdown_reason)


def stop_waiting(context: Context, waiter: Waiter) -> None:
    """What is queued already may still arrive.  A waiter that was never watched (EEXIST) is freed alike."""
    context.library.libxl_stop_waiting(context.pointer, ctypes.byref(waiter))
    context.library.libxl_free_waiter(ctypes.byref(waiter))
