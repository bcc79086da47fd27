"""A stand-in for libxl's side of the hooks, and fds for it that are closed and used again."""

from __future__ import annotations

import collections
import ctypes
import os
from collections.abc import Callable
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import types
from eventbridge.adapters.hypervisors.xen.libxl.hooks import Hooks

IN = 1


class Libxl:
    """A stand-in for libxl's side of the hooks: ``told`` has the for_libxl of each occurrence, with the fd's number."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.told: list[tuple[int | None, int]] = []
        self.on_told: Callable[[int], object] = lambda for_libxl: None
        self.hooks = Hooks(bridge, self)
        self.call = self.hooks.struct

    def register(self, fd: int, for_libxl: int) -> int:
        registration = ctypes.c_void_p()
        assert self.call.fd_register(None, fd, ctypes.pointer(registration), IN, for_libxl) == 0
        return registration.value or 0

    def deregister(self, fd: int, registration: int) -> None:
        self.call.fd_deregister(None, fd, registration)

    def fd_occurred(self, for_libxl: int | None, fd: int, events: int, revents: int) -> None:
        assert (events, revents & ~IN) == (IN, 0), "neither an error nor a bit that was not asked for"
        self.told.append((for_libxl, fd))
        self.on_told(for_libxl or 0)

    def timeout_occurred(self, for_libxl: int | None, when: types.TimeVal) -> None:
        self.told.append((for_libxl, -1))

    def interrupted(self, error: BaseException) -> None:
        raise AssertionError("nobody interrupts") from error


class Pipes:
    """Pipes; closed, all that are left, with the ``with``."""

    def __init__(self) -> None:
        self._fds: set[int] = set()

    def pipe(self, ready: bool = False) -> tuple[int, int]:
        reader, writer = os.pipe()
        self._fds |= {reader, writer}
        if ready:
            os.write(writer, b"x")
        return reader, writer

    def replace(self, fd: int) -> int:
        """The number is another pipe's from here on, which is empty: its writer."""
        reader, writer = self.pipe()
        os.dup2(reader, fd)  # closes the old one
        self.close(reader)
        return writer

    def dup(self, fd: int) -> int:
        copy = os.dup(fd)
        self._fds.add(copy)
        return copy

    def close(self, fd: int) -> None:
        self._fds.remove(fd)
        os.close(fd)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *exception: object) -> None:
        for fd in list(self._fds):
            self.close(fd)


def strays(trace: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The occurrences that libxl was told of an fd that it had not registered."""
    live: collections.Counter[int] = collections.Counter()
    found = []
    for entry in trace:
        if entry[0] == "fd_register" and entry[-1] == 0:
            live[entry[1]] += 1
        elif entry[0] == "fd_deregister":
            live[entry[1]] -= 1
        elif entry[0] == "osevent_occurred_fd" and not live[entry[2]]:
            found.append(entry)
    return found
