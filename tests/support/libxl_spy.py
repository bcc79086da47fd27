"""libxl with somebody at its door: every call in and every hook out is noted as it passes, and done.

The real library answers; only where a test says so is something held up (`before`), refused (`fail`), or is a timeout
due at once (`hurry`)."""

from __future__ import annotations

import collections
import ctypes
import threading
from collections.abc import Callable
from typing import Any

from eventbridge.adapters.hypervisors.xen.libxl import types

NOTED = (
    "libxl_ctx_free libxl_event_free libxl_osevent_occurred_fd libxl_osevent_occurred_timeout libxl_ao_abort"
    " libxl_evenable_domain_death libxl_evdisable_domain_death libxl_evenable_disk_eject libxl_evdisable_disk_eject"
).split()
REG_FAIL = -12


class Spy:
    """Stands before a `types.Library`.  ``trace`` has (name, details...) in order, hooks by their names without more,
    calls without "libxl_"."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.trace: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.before: dict[str, Callable[[], object]] = {}
        """By a call's name, without "libxl_": done once, before the next such call gets to libxl."""
        self.fail: set[str] = set()
        """The hooks that are refused."""
        self.missing: set[str] = set()
        """What this libxl does not have."""
        self.hurry = False
        self._hurried: dict[int, types.TimeVal] = {}
        self.in_hooks: collections.Counter[int] = collections.Counter()
        self.violations: list[str] = []
        self._kept: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name in self.missing:
            raise AttributeError(f"a libxl without {name}, as some are")
        function = getattr(self._library, name)
        if name == "libxl_osevent_register_hooks":
            return self._register_hooks
        if name == "libxl_event_register_callbacks":
            return self._register_callbacks
        if name == "libxl_osevent_afterpoll":
            return self._noting("osevent_afterpoll", self._afterpoll)
        return self._noting(name.removeprefix("libxl_"), function) if name in NOTED else function

    def count(self, name: str) -> int:
        return sum(entry[0] == name for entry in self.trace)

    def names(self) -> list[str]:
        return [entry[0] for entry in self.trace]

    def _noting(self, name: str, function: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            before = self.before.pop(name, None)
            if before is not None:
                before()
            if self.in_hooks[threading.get_ident()]:
                self.violations.append(f"{name} from within a hook")
            self.threads.add(threading.get_ident())
            self.trace.append((name, *map(_plain, arguments[1:])))
            result = function(*arguments)
            self.trace.append((f"{name} done",))
            return result

        return call

    def _register_hooks(self, ctx: Any, pointer: Any, user: Any) -> None:
        ours = pointer._obj
        spied = types.OsEventHooks()
        for name, kind in types.OsEventHooks._fields_:
            setattr(spied, name, kind(self._hook(name, getattr(ours, name))))
        self._kept += [ours, spied]
        self._library.libxl_osevent_register_hooks(ctx, ctypes.byref(spied), user)

    def _hook(self, name: str, hook: Any) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            me = threading.get_ident()
            self.in_hooks[me] += 1
            try:
                if name in self.fail:
                    code = REG_FAIL
                else:
                    if self.hurry and name == "timeout_register":
                        arguments = (*arguments[:2], self._past(arguments[2]), *arguments[3:])
                    code = hook(*arguments)
                self.trace.append((name, *_details(name, arguments), *(() if code is None else (code,))))
                return code
            finally:
                self.in_hooks[me] -= 1

        return called

    def _afterpoll(self, ctx: Any, count: int, fds: Any, when: types.TimeVal) -> None:
        self._library.libxl_osevent_afterpoll(ctx, count, fds, self._hurried.get(when.seconds, when))

    def _past(self, when: types.TimeVal) -> types.TimeVal:
        """Another time, long ago, for this one."""
        seconds = len(self._hurried) + 1
        self._hurried[seconds] = when
        return types.TimeVal(seconds, 0)

    def _register_callbacks(self, ctx: Any, pointer: Any, user: Any) -> None:
        ours = pointer._obj

        def occurs(user: int | None, event: Any) -> None:
            self.trace.append(("event_occurs", event.contents.type, event.contents.domid))
            ours.event_occurs(user, event)

        spied = types.EventHooks(ours.mask, types.EventOccurs(occurs), ours.disaster)
        self._kept += [ours, spied]
        self._library.libxl_event_register_callbacks(ctx, ctypes.byref(spied), user)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | bytes | None) else type(value).__name__


def _details(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """An fd's number and events; whether a timeout is to be as soon as possible."""
    if name.startswith("timeout"):
        when = arguments[2] if len(arguments) > 2 else None
        return () if when is None else (when.seconds == 0 and when.microseconds == 0,)
    if name == "fd_register":
        return arguments[1], arguments[3]
    return (arguments[1], arguments[3]) if name == "fd_modify" else (arguments[1],)
