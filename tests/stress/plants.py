"""Defects to plant: each puts, in place of a method of the core, one that goes wrong, now and then, in the way of its
name.  A child process plants its own, by name (`eventbridge.stress.plan.Plan.plant`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from eventbridge.core.dispatcher import Dispatcher
from eventbridge.core.fdtable import FdTable
from eventbridge.core.registry import Registry
from eventbridge.core.timers import Timers

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def now_and_then(every: int, fault: Callable[..., Any]) -> Wrap:
    """``fault(original, *args)`` in place of each ``every``-th call."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        calls = count(1)

        def method(*args: Any, **named: Any) -> Any:
            return fault(original, *args, **named) if next(calls) % every == 0 else original(*args, **named)

        return method

    return wrap


def free_twice(removed: Callable[..., Any], registry: Registry, item: Any, free: bool) -> None:
    removed(registry, item, free)
    registry.frees.append((item.free, item.opaque, item))


def free_inside_remove(removed: Callable[..., Any], registry: Registry, item: Any, free: bool) -> None:
    item.free(item.opaque)


def forget_a_free(removed: Callable[..., Any], registry: Registry, item: Any, free: bool) -> None:
    removed(registry, item, False)


def stay_asleep(rearm: Callable[..., Any], table: FdTable, entry: Any) -> None:
    if entry.armed >= 0:
        entry.armed = entry.mask
    else:
        rearm(table, entry)


def fire_early(schedule: Callable[..., Any], timers: Timers, timer: Any, deadline: int) -> None:
    schedule(timers, timer, deadline - 500_000)


def do_nothing(original: Callable[..., Any], *args: Any) -> None:
    """Not even call it."""


def call_twice(prepare: Callable[..., Any], dispatcher: Dispatcher, events: list[tuple[int, int]]) -> Any:
    return prepare(dispatcher, events) * 2


def abort_in_an_update() -> None:
    """A crash, as a hypervisor library's C has them."""
    FdTable.turn = lambda *_: os.abort()  # type: ignore[assignment,method-assign]  # to plant it


def free_twice_each_time() -> None:
    Registry._removed = now_and_then(1, free_twice)(Registry._removed)  # type: ignore[method-assign]  # to plant it


def hang_and_say_so() -> None:
    print("here I am", file=sys.stderr, flush=True)
    subprocess.Popen(["sleep", "600"])
    threading.Event().wait()
