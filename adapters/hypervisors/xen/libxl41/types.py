"""libxl 4.1 as ctypes sees it: its structs, and the functions that are used of it, as a table.

The shapes are those of Xen 4.1's libxl.h on a 64-bit machine; there was no later version with this interface, so they
are laid out here and never measured.  No state; any thread.
"""

from __future__ import annotations

import ctypes
import enum
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_int,
    c_uint,
    c_uint8,
    c_uint32,
    c_uint64,
    c_ulong,
    c_void_p,
)
from typing import Any

from eventbridge.errors import HypervisorUnavailable

from ..support import library as xen_library

LIBXL_VERSION = 0
"""What ``libxl_ctx_init`` is to be asked for."""


class EventType(enum.IntEnum):
    """libxl_event_type."""

    DOMAIN_DEATH = 0
    DISK_EJECT = 1


class VersionInfo(Structure):
    _fields_ = (
        ("major", c_int),
        ("minor", c_int),
        ("text", c_char_p * 7),
        ("virt_start", c_ulong),
        ("pagesize", c_ulong),
        ("commandline", c_char_p),
    )


class Ctx(Structure):
    """libxl_ctx, which the caller allocates."""

    _fields_ = (
        ("logger", c_void_p),
        ("xch", c_void_p),
        ("xsh", c_void_p),
        ("waitpid_instead", c_void_p),
        ("version_info", VersionInfo),
    )


class Event(Structure):
    """libxl_event.  The texts are libxl's, until libxl_free_event."""

    _fields_ = (("type", c_int), ("path", c_char_p), ("token", c_char_p))


class Waiter(Structure):
    """libxl_waiter."""

    _fields_ = (("path", c_char_p), ("token", c_char_p))


class DomInfo(Structure):
    """libxl_dominfo; sizes in KiB, ``cpu_time`` in ns."""

    _fields_ = (
        ("uuid", c_uint8 * 16),
        ("domid", c_uint32),
        ("running", c_uint8, 1),
        ("blocked", c_uint8, 1),
        ("paused", c_uint8, 1),
        ("shutdown", c_uint8, 1),
        ("dying", c_uint8, 1),
        ("shutdown_reason", c_uint32),
        ("current_memkb", c_uint64),
        ("max_memkb", c_uint64),
        ("cpu_time", c_uint64),
        ("vcpu_max_id", c_uint32),
        ("vcpu_online", c_uint32),
    )


# Struct: its size in bytes.
SIZES = {Ctx: 120, Event: 24, Waiter: 16, DomInfo: 64}

_CTX = POINTER(Ctx)

# Name: what it returns and takes.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "libxl_ctx_init": (c_int, _CTX, c_int, c_void_p),
    "libxl_ctx_free": (c_int, _CTX),
    "libxl_get_wait_fd": (c_int, _CTX, POINTER(c_int)),
    "libxl_wait_for_domain_death": (c_int, _CTX, c_uint32, POINTER(Waiter)),
    "libxl_get_event": (c_int, _CTX, POINTER(Event)),
    "libxl_stop_waiting": (c_int, _CTX, POINTER(Waiter)),
    "libxl_free_event": (c_int, POINTER(Event)),
    "libxl_free_waiter": (c_int, POINTER(Waiter)),
    "libxl_event_get_domain_death_info": (c_int, _CTX, c_uint32, POINTER(Event), POINTER(DomInfo)),
    "libxl_list_domain": (POINTER(DomInfo), _CTX, POINTER(c_int)),
    "libxl_domain_info": (c_int, _CTX, POINTER(DomInfo), c_uint32),
    "libxl_domid_to_name": (c_void_p, _CTX, c_uint32),
    "libxl_domain_pause": (c_int, _CTX, c_uint32),
    "libxl_domain_unpause": (c_int, _CTX, c_uint32),
    "libxl_domain_shutdown": (c_int, _CTX, c_uint32, c_int),
    "libxl_domain_destroy": (c_int, _CTX, c_uint32, c_int),
    "xtl_createlogger_stdiostream": (c_void_p, c_void_p, c_int, c_uint),
    "xtl_logger_destroy": (None, c_void_p),
}


class Library:
    """libxl 4.1's functions by name, with their prototypes; `HypervisorUnavailable` where that is not here."""

    def __init__(self, cdll: ctypes.CDLL | None = None) -> None:
        self._cdll = cdll or xen_library.libxl()
        if xen_library.generation(self._cdll) is not xen_library.Generation.WAITING_FD:
            raise HypervisorUnavailable(
                f"{self._cdll._name} is a libxl of 4.2 or later, which is driven by its hooks: "
                "eventbridge.adapters.hypervisors.xen.libxl drives it"
            )
        self.name = xen_library.version(self._cdll)
        self._functions = {name: self._typed(name) for name in PROTOTYPES if hasattr(self._cdll, name)}

    def __getattr__(self, name: str) -> Any:
        try:
            return self._functions[name]
        except KeyError:
            raise HypervisorUnavailable(f"{self.name} has no {name}: is it libxl 4.1?") from None

    def _typed(self, name: str) -> Any:
        returns, *takes = PROTOTYPES[name]
        return CFUNCTYPE(returns, *takes)((name, self._cdll))


def taken(address: int | None) -> str | None:
    """A text that libxl has allocated for us, which is freed; None for NULL."""
    if not address:
        return None
    try:
        return ctypes.string_at(address).decode(errors="replace")
    finally:
        free(address)


free = CFUNCTYPE(None, c_void_p)(("free", ctypes.CDLL(None)))
