"""How much goes through: callbacks of fds that are always ready, and operations on what is registered.

In a worker's process, on its main thread, which runs the loop.  ``budget`` is in seconds, for the part that is
measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from statistics import median
from time import perf_counter, process_time

from .eventfds import READABLE, eventfds, settle
from .rigs import Figures, Rig

ERROR = 4
REPEATS = 3
LONG = 100_000
"""A timeout that is not due while it is measured, ms."""


async def dispatch(rig: Rig, budget: float, *, active: int, idle: int = 0) -> Figures:
    """Callbacks a second with so many fds always ready, among so many that never are."""
    called = 0

    def ready(watch: int, fd: int, events: int = 0, opaque: object = None) -> bool:
        nonlocal called
        called += 1
        return True  # GLib's word for going on

    for fd in eventfds(idle, ready=False) + eventfds(active, ready=True):
        rig.api.add_handle(fd, READABLE, ready, None)
    await rig.sleep(budget / 3)
    before, started, used = called, perf_counter(), process_time()
    await rig.sleep(budget)
    seconds, used = perf_counter() - started, process_time() - used
    return {"per_second": (called - before) / seconds, "per_cpu_second": (called - before) / used}


async def wake(rig: Rig, budget: float) -> Figures:
    """What one wake costs, in microseconds of processor time, with one fd always ready; and as `dispatch`."""
    figures = await dispatch(rig, budget, active=1)
    rate = figures["per_cpu_second"]
    return {**figures, "wake": 1e6 / rate if rate else None}


def ignore(*_: object) -> None:
    """A callback."""


def _rate(operation: Callable[..., object], calls: Iterable[tuple[object, ...]]) -> float:
    """Operations a second of processor time, each call's arguments made beforehand."""
    arguments = list(calls)
    used = process_time()
    for given in arguments:
        operation(*given)
    return len(arguments) / (process_time() - used)


async def handles(rig: Rig, budget: float, *, others: int, count: int) -> Figures:
    """Add, update, toggle and remove so many handles while there are others; the calls only, not what they put off."""
    api, fds = rig.api, eventfds(count, ready=False)
    for fd in eventfds(others, ready=False):
        api.add_handle(fd, READABLE, ignore, None)
    rounds: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        await settle(rig)
        ids: list[int] = []
        added = _rate(lambda fd, ids=ids: ids.append(api.add_handle(fd, READABLE, ignore, None)), zip(fds))
        await settle(rig)
        # An eventfd that counts nothing is always writable: ask for errors alone, and then for reading again.
        updated = _rate(api.update_handle, [(id, mask) for mask in (ERROR, READABLE) for id in ids])
        toggled = _rate(api.update_handle, [(id, mask) for id in ids for mask in (0, READABLE)])
        await settle(rig)
        removed = _rate(api.remove_handle, zip(ids))
        for operation, rate in (("add", added), ("update", updated), ("toggle", toggled), ("remove", removed)):
            rounds.setdefault(operation, []).append(rate)
    return {operation: median(rates) for operation, rates in rounds.items()}


async def timers(rig: Rig, budget: float, *, count: int) -> Figures:
    """Add, update and remove so many timeouts, none of them due; the intervals in a random order, the same each
    time."""
    api, chance = rig.api, random.Random(1)
    intervals = [(LONG + chance.randrange(LONG), ignore, None) for _ in range(count)]
    ids: list[int] = []
    figures: Figures = {"add": _rate(lambda *given: ids.append(api.add_timeout(*given)), intervals)}
    await settle(rig)
    figures["update"] = _rate(api.update_timeout, [(id, LONG + chance.randrange(LONG)) for id in ids])
    await settle(rig)
    figures["refresh"] = _rate(api.update_timeout, [(id, 3 * LONG) for id in ids])
    await settle(rig)
    figures["remove"] = _rate(api.remove_timeout, zip(ids))
    await settle(rig)
    return figures
