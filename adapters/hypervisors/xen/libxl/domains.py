"""The domains of the host, as libxl knows them now.

How libxl lays out a domain's state has changed with nearly every release, so it is asked to say it as JSON, which has
not.  Of the struct itself only the size is measured.
All of it blocks: hypercalls, and a round trip to xenstored for a name.  Any thread but a running loop's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainInfo, DomainRef, State

from ..support.reasons import NO_SUCH_DOMAIN, SHUTDOWN, UNKNOWN, Meaning
from . import types
from .handle import Ctx

ERROR_FAIL, ERROR_INVAL = -3, -6

_REASONS = {meant.name: (number, meant) for number, meant in SHUTDOWN.items()}

# libxl_dominfo's flags, the one that says most first.  A domain with none of them waits for a processor.
_STATES = (("dying", State.DYING), ("paused", State.PAUSED), ("running", State.RUNNING), ("blocked", State.BLOCKED))

Facts = Mapping[str, Any]
"""A libxl_dominfo, as libxl_dominfo_to_json says it; what is false or 0 is left out."""


class Domains:
    """Asks libxl.  `HypervisorError` where it refuses."""

    def __init__(self, ctx: Ctx) -> None:
        self._ctx = ctx
        self._size = types.size_of(ctx.library.libxl_dominfo_init)

    def all(self) -> list[Facts]:
        """Every domain, domain 0 included."""
        library, count = self._ctx.library, ctypes.c_int()
        with self._ctx.inside("list the domains"):
            found = library.libxl_list_domain(self._ctx.pointer, ctypes.byref(count))
            if not found:
                raise self._ctx.refusal("list the domains", ERROR_FAIL)
            try:
                return [self._said(found + self._size * index) for index in range(count.value)]
            finally:
                library.libxl_dominfo_list_free(found, count)

    def one(self, domid: int) -> Facts | None:
        """None where there is no such domain."""
        with self._ctx.inside("look at", domid), self._struct() as struct:
            code = self._ctx.library.libxl_domain_info(self._ctx.pointer, struct, domid)
            if code in (NO_SUCH_DOMAIN, ERROR_INVAL):  # 4.5 and before had no code of its own for it
                return None
            if code:
                raise self._ctx.refusal("look at", code, domid)
            return self._said(ctypes.addressof(struct))

    def name(self, domid: int) -> str | None:
        """None where it has none, or is gone."""
        with self._ctx.inside("name", domid):
            return types.text_of(self._ctx.library.libxl_domid_to_name(self._ctx.pointer, domid))

    def no_such(self, domid: int) -> HypervisorError:
        return HypervisorError(
            f"{self._ctx.uri}: there is no domain {domid}", code=NO_SUCH_DOMAIN, operation="info", domain=str(domid)
        )

    def _said(self, struct: int) -> Facts:
        return types.json_of(types.text_of(self._ctx.library.libxl_dominfo_to_json(self._ctx.pointer, struct)))

    def _struct(self) -> _Struct:
        return _Struct(self._ctx.library, self._size)


class _Struct:
    """A libxl_dominfo of ours, for the length of a with."""

    def __init__(self, library: Any, size: int) -> None:
        self._library = library
        self._room = ctypes.create_string_buffer(size)

    def __enter__(self) -> ctypes.Array[ctypes.c_char]:
        self._library.libxl_dominfo_init(self._room)
        return self._room

    def __exit__(self, *exception: object) -> None:
        self._library.libxl_dominfo_dispose(self._room)


def ref(facts: Facts, name: str | None = None) -> DomainRef:
    return DomainRef(name, facts.get("uuid"), facts.get("domid", 0))


def reason(facts: Facts) -> int | None:
    """The shutdown reason, where its guest has stopped; -1 for one that libxl does not name."""
    if not facts.get("shutdown"):
        return None
    return _REASONS.get(facts.get("shutdown_reason", ""), (-1, UNKNOWN))[0]


def is_dying(facts: Facts) -> bool:
    """Destroyed already, and there only until the last of its memory is given back: libxl counts it as dead."""
    return bool(facts.get("dying"))


def info(facts: Facts, name: str | None) -> DomainInfo:
    return DomainInfo(
        ref(facts, name),
        _state(facts),
        vcpus=facts.get("vcpu_online", 0),
        memory=facts.get("current_memkb", 0),
        max_memory=facts.get("max_memkb", 0),
        cpu_time=facts.get("cpu_time", 0),
    )


def _state(facts: Facts) -> State:
    if facts.get("shutdown") and not is_dying(facts):
        meant: Meaning = _REASONS.get(facts.get("shutdown_reason", ""), (-1, UNKNOWN))[1]
        return meant.state
    return next((state for flag, state in _STATES if facts.get(flag)), State.RUNNING)
