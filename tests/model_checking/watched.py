"""The core's own classes, with a point before each access to what two threads may touch without the registry's lock.

`SHARED` is that list, by class.  It is a claim, and unlisted.py holds the code to it.  Nothing of the core is changed:
subclasses with data descriptors stand in for its classes where `Bridge` makes them, so all of their methods are the
real ones.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

from eventbridge.core import binding, bridge, dispatcher, fdtable, handles, registry, timers
from tests.model_checking.scheduler import UNSEEN, ControlledLock, Op, Run

UNSEEN.add(__file__)

SHARED: dict[type, tuple[str, ...]] = {
    registry.Registry: ("awake", "dispatching", "refusal", "look_at", "frees"),
    fdtable.FdTable: ("touched", "ghosts", "always_ready", "shared", "fds"),
    timers.Timers: ("every_pass",),
    handles.Handle: ("mask", "armed"),
    handles.SharedFd: (),
    timers.Timer: ("callback", "opaque", "deadline"),
    binding.Berth: ("host", "_serving"),
}
NUMBERS = (10, 11, 12, *range(-9, 0), 1001, 1002)  # whatever can be a key of FdTable.fds


class Now:
    """What is being executed."""

    run: Run
    clock = 0  # ns
    ticks = False  # does the clock move while tasks run?
    made: list[Any]  # handles and timers, whether registered or not


def point(name: str, reads: tuple[Any, ...] = (), writes: tuple[Any, ...] = ()) -> None:
    """Before an access, made by a task."""
    if Now.run.running is not None:
        Now.run.point(Op(name, reads, writes))


def token(value: Any) -> Any:
    """A value as it is remembered: the same for the same in every execution."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    serial = getattr(value, "serial", None) or getattr(value, "label", None)
    if serial is not None:
        return serial
    return _contents(value)


def _contents(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, token(dict.__getitem__(value, key))) for key in dict.keys(value))
    if isinstance(value, (set, frozenset)):
        return frozenset(set.__iter__(value))
    if isinstance(value, collections.deque):
        return tuple(token(it) for it in collections.deque.__iter__(value))
    if isinstance(value, (list, tuple)):
        return tuple(map(token, value)) if len(value) < 20 else "a table"
    if isinstance(value, functools.partial):
        return token(value.args)
    if isinstance(value, type(iter([]))):
        return tuple(token(it) for it in copy.copy(value))
    return getattr(value, "__qualname__", type(value).__qualname__)


class Attribute:
    """A data descriptor over an attribute."""

    def __init__(self, of: type, name: str) -> None:
        self.name = name
        label = f"{of.__name__}.{name}"
        self.reading, self.writing = f"reads {label}", f"writes {label}"
        slot = of.__dict__.get(name)
        self.get = slot.__get__ if slot is not None else lambda it: it.__dict__[name]
        self.set = slot.__set__ if slot is not None else lambda it, value: it.__dict__.__setitem__(name, value)

    def __get__(self, it: Any, of: type) -> Any:
        run = Now.run
        if run.running is None:
            return self.get(it)
        run.point(Op(self.reading, ((it.serial, self.name),)))
        value = self.get(it)
        run.saw(token(value))
        return value

    def __set__(self, it: Any, value: Any) -> None:
        run = Now.run
        resource = (it.serial, self.name)
        if run.running is not None:
            run.point(Op(self.writing, (), (resource,)))
        self.set(it, value)
        run.became(resource, token(value))


class Container:
    """A plain attribute whose container is watched: the reference to it does not change."""

    def __init__(self, of: type, name: str, kind: type) -> None:
        self.name, self.kind = name, kind
        self.label = f"{of.__name__}.{name}"

    def __get__(self, it: Any, of: type) -> Any:
        return it.__dict__[self.name]

    def __set__(self, it: Any, value: Any) -> None:
        watched = self.kind(value)
        watched.label = self.label
        it.__dict__[self.name] = watched
        Now.run.became(self.label, _contents(watched))


def _whole(kind: type, reads: tuple[str, ...], writes: tuple[str, ...]) -> type:
    """A container that is one resource."""

    def reading(name: str) -> Any:
        method = getattr(kind, name)

        def read(self: Any, *args: Any) -> Any:
            point(f"asks {self.label} {name.strip('_')}", (self.label,))
            found = method(self, *args)
            Now.run.saw(found if type(found) in (int, bool) else _contents(self))
            return found

        return read

    def writing(name: str) -> Any:
        method = getattr(kind, name)

        def write(self: Any, *args: Any) -> Any:
            point(f"changes {self.label}: {name.strip('_')}", (), (self.label,))
            found = method(self, *args)
            Now.run.saw(token(found))
            Now.run.became(self.label, _contents(self))
            return found

        return write

    body: dict[str, Any] = {name: reading(name) for name in reads}
    body.update((name, writing(name)) for name in writes)
    return type(f"Watched{kind.__name__}", (kind,), body)


WatchedSet = _whole(set, ("__len__", "__contains__", "__iter__"), ("add", "discard", "update", "clear"))
WatchedDeque = _whole(collections.deque, ("__len__", "__iter__"), ("append", "popleft", "extend", "clear"))
WatchedDict = _whole(
    dict,
    ("__len__", "__contains__", "__iter__", "__getitem__", "get", "items", "values"),
    ("__setitem__", "__delitem__", "pop", "clear"),
)


class KeyedDict(dict[Any, Any]):
    """`FdTable.fds`: each number is a resource of its own, as the pass looks up one by one."""

    label = ""
    EVERY = tuple(("fds", number) for number in NUMBERS)

    def _reads(self, *keys: int) -> None:
        if Now.run.running is not None:
            point(
                f"looks up fds[{keys[0]}]" if keys else "goes through fds",
                tuple(("fds", k) for k in keys) or self.EVERY,
            )
            Now.run.saw(tuple(token(dict.get(self, key)) for key in keys or NUMBERS))

    def _writes(self, key: int) -> None:
        assert key in NUMBERS, f"{key} is not in watched.NUMBERS"
        point(f"changes fds[{key}]", (), (("fds", key),))

    def __getitem__(self, key: int) -> Any:
        self._reads(key)
        return super().__getitem__(key)

    def get(self, key: int, otherwise: Any = None) -> Any:
        self._reads(key)
        return super().get(key, otherwise)

    def __setitem__(self, key: int, value: Any) -> None:
        self._writes(key)
        super().__setitem__(key, value)
        Now.run.became(("fds", key), token(value))

    def __delitem__(self, key: int) -> None:
        self._writes(key)
        super().__delitem__(key)
        Now.run.became(("fds", key), None)

    def __iter__(self) -> Iterator[Any]:
        self._reads()
        return super().__iter__()

    def items(self) -> Any:
        self._reads()
        return super().items()

    def values(self) -> Any:
        self._reads()
        return super().values()

    def clear(self) -> None:
        point("clears fds", (), self.EVERY)
        super().clear()
        for key in NUMBERS:
            Now.run.became(("fds", key), None)


KINDS: dict[str, type] = {
    "touched": WatchedSet,
    "frees": WatchedDeque,
    "always_ready": WatchedDict,
    "every_pass": WatchedDict,
    "fds": KeyedDict,
}


def _watched(of: type) -> type:
    body: dict[str, Any] = {"serial": of.__name__}
    if "__slots__" in of.__dict__:
        body = {"__slots__": ("serial",), "__init__": _numbered(of)}
    for kind in of.__mro__:
        for name in SHARED.get(kind, ()):
            body[name] = Container(kind, name, KINDS[name]) if name in KINDS else Attribute(kind, name)
    return type(of.__name__, (of,), body)


def _numbered(of: Any) -> Any:
    def init(self: Any, *args: Any) -> None:
        task = Now.run.running
        self.serial = (-1, len(Now.made)) if task is None else (task.number, task.made)
        if task is not None:
            task.made += 1
        Now.made.append(self)
        of.__init__(self, *args)

    return init


WATCHED = {of: _watched(of) for of in SHARED}


def _registry(poller: Any) -> Any:
    made = WATCHED[registry.Registry](poller)
    made.lock = ControlledLock(Now.run, "the registry's lock")
    return made


def _berth(*args: Any) -> Any:
    made = WATCHED[binding.Berth](*args)
    made._lock = ControlledLock(Now.run, "the berth's lock")
    return made


# What changes no behaviour, and so makes no other state.
COUNTERS = frozenset(
    (
        *("passes", "callbacks", "errors", "slowest", "slowest_of", "lag", "late", "rebuilds"),
        *("_audit_at", "_ask_for", "dead_handles", "dead_timeouts"),
    )
)


def digest(it: Any) -> Any:
    """All of an object's attributes that are not watched one by one."""
    watched = type(it).__dict__ if type(it) in WATCHED.values() else {}
    values = dict(getattr(it, "__dict__", {}))
    for name in getattr(type(it), "__slots__", ()):
        with contextlib.suppress(AttributeError):  # only observers set it
            values[name] = object.__getattribute__(it, name)  # past whoever listens (unlisted.py)
    return tuple((name, token(value)) for name, value in values.items() if name not in watched and name not in COUNTERS)


def monotonic_ns() -> int:
    """The clock of the execution; it stands still but for the operation `tick`."""
    if Now.ticks:
        point("reads the clock", ("clock",))
        Now.run.saw(Now.clock)
    return Now.clock


def monotonic() -> float:
    """The same in seconds."""
    return monotonic_ns() / 1e9


def nobody(*_: Any) -> None:
    """The callback of what is never called."""
    Now.run.violate("H4: what stands for several handles, or for the poller's own fds, is called")


@contextlib.contextmanager
def instrumented() -> Iterator[None]:
    """Within it `Bridge` makes watched ones, on the scripted clock and the scripted ``fcntl``."""

    def fcntl(fd: int, what: int) -> Any:
        return Now.run.world.kernel.fcntl(fd, what)

    places = {
        bridge: {
            "Registry": _registry,
            "Berth": _berth,
            "Handle": WATCHED[handles.Handle],
            "Timer": WATCHED[timers.Timer],
        },
        registry: {"FdTable": WATCHED[fdtable.FdTable], "Timers": WATCHED[timers.Timers]},
        handles: {"nobody": nobody},
        fdtable: {"SharedFd": WATCHED[handles.SharedFd], "fcntl": fcntl, "nobody": nobody},
        timers: {},
        dispatcher: {},
    }
    with contextlib.ExitStack() as undo:
        for module, names in places.items():
            for clock in (monotonic, monotonic_ns):
                if hasattr(module, clock.__name__):
                    names[clock.__name__] = clock
            for name, value in names.items():
                undo.enter_context(mock.patch.object(module, name, value))
        yield
