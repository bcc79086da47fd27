"""A bridge under test in domain 0: libxl's operations and its events on one loop, which the test itself runs."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from ctypes import byref, c_uint32
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.driver import driver
from eventbridge.adapters.hypervisors.xen.libxl import Context, Operation
from eventbridge.hypervisor.events import DomainEvent
from tests.e2e.xen.dom0.toolstack import free_config, load_config
from tests.support.patience import PATIENCE

_PARAMS_BYTES = 1 << 12
"""More than any libxl_domain_restore_params has."""
_STREAM = {"stream_version": 2}  # what libxl_domain_suspend writes from 4.6 on (LIBXL_HAVE_SRM_V2)


class Rig:
    """``libxl:///`` is subscribed to, ``events`` has what it told, and ``context`` is for operations."""

    def __init__(self, bridge: Bridge, on_event: Callable[[DomainEvent], None] = lambda event: None) -> None:
        self.bridge = bridge
        self.events: list[DomainEvent] = []
        self._on_event = on_event
        self._made_here: set[int] = set()
        self._alive: list[Any] = []  # what libxl looks at until an operation is done
        self._subscription = driver.subscribe("libxl:///", bridge, self._emit)
        self.context = Context(bridge)

    def close(self) -> None:
        """And destroy what is left of its guests, as after a test that failed."""
        for info in self.context.list():
            if info.domain.id in self._made_here:
                self.finish(self.context.destroy(info.domain.id))
        self.context.close()
        self._subscription.close()

    def keep(self, domid: int) -> None:
        """It goes on after this."""
        self._made_here.discard(domid)

    def told(self, domid: int) -> list[tuple[str, str | None]]:
        """Kinds and reasons."""
        return [(event.kind, event.reason) for event in self.events if event.domain and event.domain.id == domid]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        assert self.bridge.run(until=condition, timeout=PATIENCE), f"not within {PATIENCE} s: {what}"

    def until_told(self, domid: int, *expected: tuple[str, str | None]) -> None:
        """Exactly these."""
        self.until(lambda: len(self.told(domid)) >= len(expected), f"{expected}, but {self.told(domid)}")
        self.bridge.run(timeout=0.1)  # a few passes more, for what must not come
        assert self.told(domid) == list(expected)

    def finish(self, operation: Operation) -> None:
        """Run the loop until it has ended; raises where it failed."""
        self.until(lambda: operation.done, repr(operation))
        operation.result()

    def _emit(self, event: DomainEvent) -> None:
        self.events.append(event)
        self._on_event(event)

    # -- operations that need more of libxl than the adapter's own

    def create(self, config: dict[str, Any]) -> int:
        """A guest that runs, made by asynchronous operations; its domid."""
        return self._made("create", config, lambda native, ctx, *given: native.libxl_domain_create_new(ctx, *given))

    def restore(self, config: dict[str, Any], fd: int) -> int:
        """The same out of what was saved to ``fd``, from its start."""
        os.lseek(fd, 0, os.SEEK_SET)

        def call(native: Any, ctx: Any, buffer: Any, domid: Any, how: Any, progress: None) -> int:
            params = ctypes.create_string_buffer(_PARAMS_BYTES)
            native.libxl_domain_restore_params_init(params)
            native.libxl_domain_restore_params_from_json(ctx, params, json.dumps(_STREAM).encode())
            code: int = native.libxl_domain_create_restore(ctx, buffer, domid, fd, -1, params, how, progress)
            self._alive.append(params)
            return code

        return self._made("restore", config, call)

    def _made(self, name: str, config: dict[str, Any], call: Callable[..., int]) -> int:
        native, ctx = native_of(self.context)
        buffer, domid = load_config(native, ctx, config), c_uint32()
        try:
            self.finish(self.context.start(name, None, lambda how: call(native, ctx, buffer, byref(domid), how, None)))
        finally:
            free_config(native, buffer)
        self._made_here.add(domid.value)
        self.finish(self.context.unpause(domid.value))
        return domid.value


def native_of(context: Context) -> tuple[Any, Any]:
    """libxl's functions and its context, for what `Context.start` and `Context.call` are given."""
    return context._ctx.library, context._ctx.pointer
