"""How late: timeouts due together, the host's own timers among many ready fds, another thread's call while the loop
sleeps.

In a worker's process; the loop is on its main thread.  ``budget`` is in seconds, for the part that is measured."""

from __future__ import annotations

import asyncio
import threading
import time
from time import perf_counter
from typing import Any

from .eventfds import READABLE, Doorbell, eventfds
from .rigs import Figures, Rig
from .throughput import ignore

NEVER_AFTER = 0.3
"""Seconds after which what did not come counts as never."""
ASLEEP_AFTER = 0.002
"""Seconds in which a loop with nothing to do has gone to sleep."""


def quantile(values: list[float], part: float) -> float:
    """The value below which that part of them is (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def burst(rig: Rig, budget: float, *, count: int, ms: int) -> Figures:
    """So many timeouts of ``ms`` added one after the other: how late each is called, and how many are early."""
    done, due, late, early = rig.signal(), dict[int, tuple[float, float]](), list[float](), 0

    def fired(timer: int, opaque: object = None) -> None:
        nonlocal early
        now = perf_counter()
        if timer not in due:
            return  # a second period, before it could be removed
        asked, added = due.pop(timer)
        late.append(1000 * (now - added) - ms)
        early += 1000 * (now - asked) < ms
        if len(late) == count:
            done.set()

    for _ in range(count):
        asked = perf_counter()
        due[rig.api.add_timeout(ms, fired, None)] = asked, perf_counter()
    ids = list(due)
    await done.wait()
    for id in ids:
        rig.api.remove_timeout(id)
    return {"p50": quantile(late, 0.5), "p99": quantile(late, 0.99), "early": early}


async def wake(rig: Rig, budget: float) -> Figures:
    """Another thread adds a timeout of 0 while the loop sleeps: how long until it is called."""
    late: list[float] = []
    never = False

    def ask() -> None:
        nonlocal never
        until = perf_counter() + budget
        while perf_counter() < until and not never:
            time.sleep(ASLEEP_AFTER)
            called, at = threading.Event(), 0.0

            def fired(timer: int, opaque: object = None, called: threading.Event = called) -> None:
                nonlocal at
                at = at or perf_counter()
                rig.api.remove_timeout(timer)
                called.set()

            asked = perf_counter()
            rig.api.add_timeout(0, fired, None)
            never = not called.wait(NEVER_AFTER)
            late.append(1e6 * (at - asked))

    await meanwhile(rig, ask)
    if never:
        return {"p50": None, "p99": None}
    return {"p50": quantile(late, 0.5), "p99": quantile(late, 0.99)}


async def meanwhile(rig: Rig, work: Any) -> None:
    """Run ``work`` in another thread while the loop does its own, or sleeps."""
    done = rig.signal()
    bell = Doorbell(rig.api, done)

    def run() -> None:
        try:
            work()
        finally:
            bell.ring()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    await done.wait()
    thread.join()


async def tick(rig: Rig, budget: float, *, active: int, ms: int = 1) -> Figures:
    """The host's own timer of ``ms``, again and again: how late it comes while so many fds are always ready."""
    loop, done, late = asyncio.get_running_loop(), rig.signal(), list[float]()
    for fd in eventfds(active, ready=True):
        rig.api.add_handle(fd, READABLE, ignore, None)
    await rig.sleep(budget / 3)
    until = perf_counter() + budget

    def ticked(asked: float) -> None:
        now = perf_counter()
        late.append(1000 * (now - asked) - ms)
        if now > until:
            done.set()
        else:
            loop.call_later(ms / 1000, ticked, now)

    loop.call_later(ms / 1000, ticked, perf_counter())
    await done.wait()
    return {"p50": quantile(late, 0.5), "p99": quantile(late, 0.99)}
