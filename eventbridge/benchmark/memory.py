"""How much memory a handle and a timeout take: what the process grew by (resident set), over many of them.

In a worker's process, which has made everything else beforehand.  Not in it: what the kernel keeps for an fd."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

from .eventfds import READABLE, eventfds, settle
from .rigs import Figures, Rig
from .throughput import LONG, ignore

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process in memory now."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * PAGE


def _grown(register: Callable[[], None]) -> int:
    before = resident()
    register()
    return resident() - before


async def memory(rig: Rig, budget: float, *, count: int) -> Figures:
    """Bytes a handle and a timeout, over ``count`` of each; the fds are open, and the first are made, before."""
    api, fds = rig.api, eventfds(count + 100, ready=False)
    fds, first = fds[:count], fds[count:]

    def handles(fds: list[int]) -> None:
        for fd in fds:
            api.add_handle(fd, READABLE, ignore, None)

    def timeouts(count: int) -> None:
        for _ in range(count):
            api.add_timeout(LONG, ignore, None)

    handles(first)
    await settle(rig)
    figures: Figures = {"handle": _grown(lambda: handles(fds)) / count}
    await settle(rig)
    timeouts(100)
    figures["timeout"] = _grown(lambda: timeouts(count)) / count
    return figures
