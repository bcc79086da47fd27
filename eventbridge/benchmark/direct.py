"""The thinnest direct mapping: each of libvirt's fds and timeouts is one watch and one timer of the host loop.

This is what a program without eventbridge would write first, and no more than that: no thread safety, no ERROR or
HANGUP, one handle an fd, no guard against anything that goes away in mid-pass.  It is here to be measured, as the
least that a host loop itself costs; nobody should use it.  Loop's thread only."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable
from importlib import import_module
from time import monotonic
from typing import Any

READABLE, WRITABLE = 1, 2


class _Hooks:
    """What the three mappings share: ids, and libvirt-python's own functions."""

    def __init__(self) -> None:
        libvirtmod = import_module("libvirtmod")
        self.invoke_handle = libvirtmod.virEventInvokeHandleCallback
        self.invoke_timeout = libvirtmod.virEventInvokeTimeoutCallback
        self.invoke_free = libvirtmod.virEventInvokeFreeCallback
        self.ids = itertools.count(1)
        self.handles: dict[int, Any] = {}
        self.timers: dict[int, Any] = {}

    def register(self) -> None:
        hooks: Any = self
        import_module("libvirt").virEventRegisterImpl(
            hooks.add_handle,
            hooks.update_handle,
            hooks.remove_handle,
            hooks.add_timeout,
            hooks.update_timeout,
            hooks.remove_timeout,
        )


class DirectAsyncio(_Hooks):
    """`add_reader` and `add_writer` a handle, `call_later` a timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()

    def add_handle(self, fd: int, events: int, cb: object, glue: Any) -> int:
        id = next(self.ids)
        self.handles[id] = (fd, glue)
        self.update_handle(id, events)
        return id

    def update_handle(self, id: int, events: int) -> None:
        fd, glue = self.handles[id]
        if events & READABLE:
            self.loop.add_reader(fd, self.invoke_handle, id, fd, READABLE, glue[0], glue[1])
        else:
            self.loop.remove_reader(fd)
        if events & WRITABLE:
            self.loop.add_writer(fd, self.invoke_handle, id, fd, WRITABLE, glue[0], glue[1])
        else:
            self.loop.remove_writer(fd)

    def remove_handle(self, id: int) -> int:
        fd, glue = self.handles.pop(id)
        self.loop.remove_reader(fd)
        self.loop.remove_writer(fd)
        self.loop.call_soon(self.invoke_free, glue[2], glue[1])
        return 0

    def add_timeout(self, ms: int, cb: object, glue: Any) -> int:
        id = next(self.ids)
        self.timers[id] = [None, glue, ms]
        self.update_timeout(id, ms)
        return id

    def update_timeout(self, id: int, ms: int) -> None:
        timer = self.timers[id]
        if timer[0] is not None:
            timer[0].cancel()
        timer[2] = ms
        timer[0] = None if ms < 0 else self.loop.call_later(ms / 1000, self._fire, id)

    def _fire(self, id: int) -> None:
        timer = self.timers[id]
        timer[0] = self.loop.call_later(timer[2] / 1000, self._fire, id)
        self.invoke_timeout(id, timer[1][0], timer[1][1])

    def remove_timeout(self, id: int) -> int:
        handle, glue, _ = self.timers.pop(id)
        if handle is not None:
            handle.cancel()
        self.loop.call_soon(self.invoke_free, glue[2], glue[1])
        return 0


class DirectLibuv(_Hooks):
    """A ``pyuv.Poll`` a handle, a ``pyuv.Timer`` a timeout."""

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self.loop = loop
        self.pyuv = import_module("pyuv")

    def add_handle(self, fd: int, events: int, cb: object, glue: Any) -> int:
        id = next(self.ids)
        invoke, cb, opaque = self.invoke_handle, glue[0], glue[1]
        poll = self.pyuv.Poll(self.loop, fd)

        def ready(poll: object, events: int, error: int | None) -> None:
            invoke(id, fd, events, cb, opaque)  # libuv's READABLE and WRITABLE have libvirt's values

        self.handles[id] = (poll, ready, glue)
        self.update_handle(id, events)
        return id

    def update_handle(self, id: int, events: int) -> None:
        poll, ready, _ = self.handles[id]
        if events & (READABLE | WRITABLE):
            poll.start(events & (READABLE | WRITABLE), ready)
        else:
            poll.stop()

    def remove_handle(self, id: int) -> int:
        poll, _, glue = self.handles.pop(id)
        poll.close(lambda _: self.invoke_free(glue[2], glue[1]))
        return 0

    def add_timeout(self, ms: int, cb: object, glue: Any) -> int:
        id = next(self.ids)
        invoke, cb, opaque = self.invoke_timeout, glue[0], glue[1]
        self.timers[id] = (self.pyuv.Timer(self.loop), lambda _: invoke(id, cb, opaque), glue)
        self.update_timeout(id, ms)
        return id

    def update_timeout(self, id: int, ms: int) -> None:
        timer, fire, _ = self.timers[id]
        if ms < 0:
            timer.stop()
        else:
            timer.start(fire, ms / 1000, max(ms, 1) / 1000)

    def remove_timeout(self, id: int) -> int:
        timer, _, glue = self.timers.pop(id)
        timer.close(lambda _: self.invoke_free(glue[2], glue[1]))
        return 0


class DirectSelect(_Hooks):
    """One registration with a selector a handle; a heap of timeouts, and old entries left in it."""

    def __init__(self) -> None:
        super().__init__()
        self.selector = selectors.DefaultSelector()
        self.heap: list[tuple[float, int]] = []
        self.soon: list[Callable[[], object]] = []

    def add_handle(self, fd: int, events: int, cb: object, glue: Any) -> int:
        id = next(self.ids)
        invoke, cb, opaque = self.invoke_handle, glue[0], glue[1]
        self.handles[id] = (fd, lambda events: invoke(id, fd, events, cb, opaque), glue)
        self.update_handle(id, events)
        return id

    def update_handle(self, id: int, events: int) -> None:
        fd, ready, _ = self.handles[id]
        watched = fd in self.selector.get_map()
        if events & (READABLE | WRITABLE):  # selectors' values are libvirt's
            (self.selector.modify if watched else self.selector.register)(fd, events & (READABLE | WRITABLE), ready)
        elif watched:
            self.selector.unregister(fd)

    def remove_handle(self, id: int) -> int:
        self.update_handle(id, 0)
        glue = self.handles.pop(id)[2]
        self.soon.append(lambda: self.invoke_free(glue[2], glue[1]))
        return 0

    def add_timeout(self, ms: int, cb: object, glue: Any) -> int:
        id = next(self.ids)
        self.timers[id] = [None, glue, ms]
        self.update_timeout(id, ms)
        return id

    def update_timeout(self, id: int, ms: int) -> None:
        timer = self.timers[id]
        timer[2] = ms
        timer[0] = None if ms < 0 else monotonic() + ms / 1000
        if timer[0] is not None:
            heapq.heappush(self.heap, (timer[0], id))

    def remove_timeout(self, id: int) -> int:
        glue = self.timers.pop(id)[1]
        self.soon.append(lambda: self.invoke_free(glue[2], glue[1]))
        return 0

    def turn(self) -> None:
        wait = 0 if self.soon else max(0.0, self.heap[0][0] - monotonic()) if self.heap else None
        for key, events in self.selector.select(wait):
            key.data(events)
        while self.heap and self.heap[0][0] <= monotonic():
            deadline, id = heapq.heappop(self.heap)
            timer = self.timers.get(id)
            if timer is not None and timer[0] == deadline:
                self.update_timeout(id, timer[2])
                self.invoke_timeout(id, timer[1][0], timer[1][1])
                if not timer[2]:
                    break  # a timeout of 0: once a turn
        soon, self.soon = self.soon, []
        for step in soon:
            step()
