"""Is everything that two threads share in `watched.SHARED`?  The searches rest on it.

The lock-set discipline of Savage and others' Eraser (1997): whatever two tasks touch, one of them to write, is a
resource of the scheduler's, or each touches it with a lock held.  A container counts as written by whoever gets hold
of it.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from eventbridge.core import handles, timers
from tests.model_checking.watched import SHARED, WATCHED, KeyedDict, Now, WatchedDeque, WatchedDict, WatchedSet


class Touches:
    """Who has touched which attribute of which object, and whether always with the lock (`unlisted`)."""

    def __init__(self) -> None:
        self.tasks: dict[tuple[int, str], int] = {}
        self.written: set[tuple[int, str]] = set()
        self.unlocked: set[tuple[int, str]] = set()
        self.names: dict[tuple[int, str], str] = {}
        self.kept: list[Any] = []  # so that no id is used twice

    def touch(self, it: Any, name: str, writes: bool) -> None:
        run = Now.run
        task = run.running
        if task is None or name.startswith("__") or object.__getattribute__(it, "__class__").__name__ == "Ledger":
            return
        key = (id(it), name)
        if key not in self.names:
            self.kept.append(it)
            self.names[key] = f"{type(it).__name__}.{name}"
        self.tasks[key] = self.tasks.get(key, 0) | 1 << task.number
        if writes:
            self.written.add(key)
        if not any(lock.owner is task for lock in run.locks):
            self.unlocked.add(key)

    def unlisted(self) -> set[str]:
        """What two have touched, one of them to write, one of them without a lock, and is no resource."""
        listed = {f"{of.__name__}.{name}" for of, names in SHARED.items() for name in names}
        listed |= {f"SharedFd.{name}" for name in SHARED[handles.Handle]}
        found = {self.names[key] for key in self.written & self.unlocked if self.tasks[key].bit_count() > 1}
        return found - listed


@contextlib.contextmanager
def touches(*more: type) -> Iterator[Touches]:
    """Within it every access to an attribute of the core's objects is told."""
    told = Touches()
    with contextlib.ExitStack() as undo:
        for of in (*WATCHED.values(), *more):
            undo.enter_context(mock.patch.object(of, "__getattribute__", _telling(told, of), create=True))
            undo.enter_context(mock.patch.object(of, "__setattr__", _telling_set(told, of), create=True))
        yield told


MUTABLE = (list, dict, set, collections.deque)
OURS = (WatchedSet, WatchedDeque, WatchedDict, KeyedDict)


def _telling(told: Touches, of: type) -> Any:
    before = of.__getattribute__

    def get(self: Any, name: str) -> Any:
        value = before(self, name)
        if not callable(value) and not _is_new(self):
            # Whoever has a container in his hands may change it.
            told.touch(self, name, isinstance(value, MUTABLE) and not isinstance(value, OURS))
        return value

    return get


def _telling_set(told: Touches, of: type) -> Any:
    before = of.__setattr__

    def set(self: Any, name: str, value: Any) -> None:
        if not _is_new(self):
            told.touch(self, name, True)
        before(self, name, value)

    return set


def _is_new(it: Any) -> bool:
    """Is it a handle or timer that is not registered yet, which nobody else can have?"""
    if not isinstance(it, (handles.Handle, timers.Timer)):
        return False
    try:
        if isinstance(it, handles.SharedFd):  # it has no id
            object.__getattribute__(it, "members")
            return False
        return object.__getattribute__(it, "serial")[0] >= 0 and object.__getattribute__(it, "id") == 0
    except AttributeError:
        return True
