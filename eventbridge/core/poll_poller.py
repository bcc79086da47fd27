"""A poller for systems without epoll: poll(2), on a thread that tells the host loop through a pipe.

A host loop watches one fd, and poll(2) has none; so a thread waits in poll over everything that is armed, and makes a
pipe readable when something is ready.  The dispatcher's own `poll` then looks again, without waiting, and sends the
thread back to wait.

What it keeps: every H and D rule, and H11 by its nature, since poll is about numbers.  What it does not: T3's "late
by less than 1 ms", as poll counts in milliseconds (rounded up, so never early); and "idle fds cost nothing", as each
wait and each look is O(fds).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Iterable
from fcntl import F_GETFD, fcntl
from time import monotonic_ns

from .poller import EPOLL, EpollPoller, PollerProtocol
from .timers import NEVER


class PollPoller:
    """`PollerProtocol` over poll(2)."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}
        self._deadline = NEVER
        self._tell_r, self._tell_w = _pipe()  # to the host loop: there is work
        self._poke_r, self._poke_w = _pipe()  # to the thread: look again at what is wanted
        self.inner: tuple[int, ...] = (self._tell_r,)
        self._looked = threading.Event()  # the dispatcher has seen what the thread told
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="eventbridge-poll", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._tell_r

    def add(self, fd: int, bits: int) -> None:
        if fd in self._wanted:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        fcntl(fd, F_GETFD)  # EBADF where it is closed
        self._wanted[fd] = bits
        _write(self._poke_w)

    def modify(self, fd: int, bits: int) -> None:
        if fd not in self._wanted:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        fcntl(fd, F_GETFD)
        self._wanted[fd] = bits
        _write(self._poke_w)

    def remove(self, fd: int) -> None:
        if self._wanted.pop(fd, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _write(self._poke_w)

    def poll(self, limit: int) -> list[tuple[int, int]]:
        _empty(self._tell_r)
        events = self._look(0)
        if monotonic_ns() >= self._deadline:
            self._deadline = NEVER
            events.insert(0, (self._tell_r, select.POLLIN))
        self._looked.set()
        # Rotated, so that those beyond the limit come first the next time.
        self._wanted.update({fd: self._wanted.pop(fd) for fd, _ in events[:limit] if fd in self._wanted})
        return events[:limit]

    def wake(self) -> None:
        _write(self._tell_w)

    def arm(self, deadline: int) -> None:
        self._deadline = deadline
        _write(self._poke_w)

    def rebuild(self, armed: Iterable[tuple[int, int]]) -> list[int]:
        self._wanted = dict(armed)
        return []  # poll(2) finds the closed ones by itself

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        _write(self._poke_w)
        self._looked.set()
        self._thread.join()
        for fd in (self._tell_r, self._tell_w, self._poke_r, self._poke_w):
            os.close(fd)

    def _look(self, milliseconds: int | None, *more: int) -> list[tuple[int, int]]:
        """One poll(2).  A number that is closed is no longer wanted: what it is next is for the registry to say."""
        poller = select.poll()
        for fd in more:
            poller.register(fd, select.POLLIN)
        for fd, bits in list(self._wanted.items()):
            poller.register(fd, bits)
        events = poller.poll(milliseconds)
        for fd, bits in events:
            if bits & select.POLLNVAL:
                self._wanted.pop(fd, None)
        return [(fd, bits) for fd, bits in events if not bits & select.POLLNVAL and fd not in more]

    def _wait(self) -> None:
        """The thread: wait, tell, and wait until the dispatcher has looked."""
        while True:
            _empty(self._poke_r)
            if self._closing.is_set():  # asked after emptying: `close` sets it before it pokes
                return
            remaining = None if self._deadline == NEVER else max(0, -((monotonic_ns() - self._deadline) // 1_000_000))
            ready = self._look(remaining, self._poke_r)
            if ready or monotonic_ns() >= self._deadline:
                self._looked.clear()
                if self._closing.is_set():  # asked after clearing: `close` sets both, in the other order
                    return
                _write(self._tell_w)
                self._looked.wait()


def best_poller() -> PollerProtocol:
    """epoll where there is one."""
    if EPOLL is not None:
        return EpollPoller()
    return PollPoller()


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def _write(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):  # full: whoever reads it will be woken anyway
        os.write(fd, b"!")


def _empty(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while len(os.read(fd, 4096)) == 4096:
            pass
