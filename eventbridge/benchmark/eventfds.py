"""The fds that measurements watch: eventfds, one fd each, ready for ever or never; and a doorbell to end a wait.

Any thread may ring a `Doorbell`; the rest is the main thread's, in a worker's process."""

from __future__ import annotations

import os
import resource

from .rigs import Api, Rig, Signal

READABLE = 1
SPARE = 200
"""fds that the interpreter, the loop and the library may need besides."""


class Unfit(Exception):
    """The measurement cannot be made here; says why."""


def raise_limit() -> int:
    """The limit of open files, raised as far as it goes without privileges."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def eventfds(count: int, ready: bool) -> list[int]:
    """New fds that are readable for ever, or never; `Unfit` where the limit of open files does not allow for them."""
    limit, used = raise_limit(), len(os.listdir("/proc/self/fd"))
    if used + count + SPARE > limit:
        raise Unfit(f"needs {used + count + SPARE} open files; the limit is {limit}: raise it (ulimit -Hn)")
    return [os.eventfd(int(ready), os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]


class Doorbell:
    """Sets a signal on the loop from another thread, by way of an fd: of all contenders' ways the one that works."""

    def __init__(self, api: Api, signal: Signal) -> None:
        (self._fd,) = eventfds(1, ready=False)
        self._signal = signal
        api.add_handle(self._fd, READABLE, self._rung, None)

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def _rung(self, watch: int, fd: int, events: int = 0, opaque: object = None) -> None:
        os.eventfd_read(self._fd)
        self._signal.set()


async def settle(rig: Rig) -> None:
    """Let the loop see to what the last calls have put off: a few turns, whether or not it has anything to do."""
    for _ in range(3):
        turned = rig.signal()
        Doorbell(rig.api, turned).ring()
        await turned.wait()
