"""The one fd a host loop watches: a level-triggered epoll object, with a timerfd and an eventfd in it.

The epoll object is readable exactly when there is work: an fd of somebody's is ready, the earliest deadline has
passed (timerfd), or something is wanted as soon as possible (eventfd: `wake`).  Both inner fds are edge-triggered and
never read: the ``poll`` that reports one also clears it, which saves a system call a wake.  Arming the timerfd for
the past instead would cost 10 us in a virtual machine.

epoll watches *files*, a handle is on a *number* (rule H11).  The two part when a number is closed, or reused, while
it is armed here, and a dup or a forked child keeps the old file alive: epoll then reports it under the old number and
cannot be told to stop.  The cure is `rebuild`: a fresh epoll object, put over the old one's number.

`PollerProtocol` is what the registry and the dispatcher ask of one; `poll_poller.py` has the other, for systems
without epoll.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterable
from typing import Protocol

from . import timerfd


def _epoll() -> type[select.epoll] | None:
    """The system's; None where it has none.

    ``gevent.monkey.patch_all()`` takes it out of `select`, for whoever waits in it would block gevent's hub (gevent's
    patch_select).  Nobody waits in ours.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or hasattr(select, "epoll"):
        return getattr(select, "epoll", None)
    try:
        original: type[select.epoll] = monkey.get_original("select", "epoll")
    except AttributeError:
        return None
    return original


EPOLL = _epoll()
_ONCE = select.EPOLLIN | select.EPOLLET if EPOLL is not None else 0


class PollerProtocol(Protocol):
    """Masks here are the kernel's bits (`masks.TO_KERNEL`).  All calls from any thread, under the registry's lock,
    but for `poll`.
    """

    inner: tuple[int, ...]

    def fileno(self) -> int:
        """The fd that the host loop watches for readability.  It stays the same number for the poller's life."""

    def add(self, fd: int, bits: int) -> None:
        """Raises FileExistsError where the number's *file* is armed already, PermissionError for a file that is
        always ready, OSError EBADF for a closed number.
        """

    def modify(self, fd: int, bits: int) -> None:
        """Raises FileNotFoundError where the number's file is not armed: it is another file than it was."""

    def remove(self, fd: int) -> None:
        """Raises FileNotFoundError or OSError EBADF, as above."""

    def poll(self, limit: int) -> list[tuple[int, int]]:
        """What is ready now, at most ``limit`` of it, without waiting; an event of one of ``inner`` is among it where
        the deadline was reached since the last time.  The loop's thread only.
        """

    def wake(self) -> None:
        """Make the fd readable until the next `poll`."""

    def arm(self, deadline: int) -> None:
        """Make the fd readable once CLOCK_MONOTONIC has reached ``deadline`` (ns)."""

    def rebuild(self, armed: Iterable[tuple[int, int]]) -> list[int]:
        """Start again with just these (fd, bits); returns the numbers that turned out to be closed.  The host must
        not be watching.  OSError where there is no fd for it (EMFILE): nothing has changed.
        """

    def close(self) -> None:
        """Idempotent."""


class EpollPoller:
    """`PollerProtocol` over epoll(7)."""

    def __init__(self) -> None:
        assert EPOLL is not None
        self._epoll = EPOLL()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._timer = timerfd.create()
        self._spare: select.epoll | None = EPOLL()  # `rebuild` is needed also when no fd is to be had (EMFILE)
        self.inner: tuple[int, ...] = (self._event, self._timer)
        self._arm_inner(self._epoll)
        self.fileno = self._epoll.fileno
        self.add = self._epoll.register
        self.modify = self._epoll.modify
        self.remove = self._epoll.unregister
        self._poll = self._epoll.poll

    def _arm_inner(self, epoll: select.epoll) -> None:
        for fd in self.inner:
            epoll.register(fd, _ONCE)

    def poll(self, limit: int) -> list[tuple[int, int]]:
        return self._poll(0, limit)

    def wake(self) -> None:
        os.eventfd_write(self._event, 1)  # the counter never overflows: 2**64 wakes

    def arm(self, deadline: int) -> None:
        timerfd.arm(self._timer, deadline)

    def rebuild(self, armed: Iterable[tuple[int, int]]) -> list[int]:
        closed = []
        fresh, self._spare = self._spare or type(self._epoll)(), None
        self._arm_inner(fresh)
        for fd, bits in armed:
            try:
                fresh.register(fd, bits)
            except OSError:
                closed.append(fd)
        os.dup2(fresh.fileno(), self._epoll.fileno(), inheritable=False)
        fresh.close()
        with contextlib.suppress(OSError):  # its number was freed just now, but another thread may have been quicker
            self._spare = type(self._epoll)()
        return closed

    def close(self) -> None:
        if not self._epoll.closed:
            self._epoll.close()
            if self._spare is not None:
                self._spare.close()
            os.close(self._event)
            os.close(self._timer)
