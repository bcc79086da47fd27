"""libxl as ctypes sees it: the structs that are alike in every version from 4.2 on, and the functions, as a table.

Xen keeps no ABI between its releases.  What is here has not changed since 4.2 (libxl_event.h, and ``libxl_asyncop_how``
of libxl.h); of `Event` that holds up to its union's first word.  Anything else of libxl's is never laid out here:
`size_of` measures it, and `json_of` has libxl itself say what is in it.  No state; any thread.
"""

from __future__ import annotations

import ctypes
import json
import re
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_long, c_short, c_uint, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from eventbridge.errors import HypervisorUnavailable

from ..support import library as xen_library

LIBXL_VERSION = 0
"""What ``libxl_ctx_alloc`` is to be asked for, in every version (LIBXL_VERSION of libxl.h)."""


class TimeVal(ctypes.Structure):
    _fields_ = (("seconds", c_long), ("microseconds", c_long))


FdRegister = CFUNCTYPE(c_int, c_void_p, c_int, POINTER(c_void_p), c_short, c_void_p)
FdModify = CFUNCTYPE(c_int, c_void_p, c_int, POINTER(c_void_p), c_short)
FdDeregister = CFUNCTYPE(None, c_void_p, c_int, c_void_p)
TimeoutRegister = CFUNCTYPE(c_int, c_void_p, POINTER(c_void_p), TimeVal, c_void_p)
TimeoutModify = CFUNCTYPE(c_int, c_void_p, POINTER(c_void_p), TimeVal)
TimeoutDeregister = CFUNCTYPE(None, c_void_p, c_void_p)


class OsEventHooks(ctypes.Structure):
    """libxl_osevent_hooks.  libxl keeps a pointer to it (rule 1)."""

    _fields_ = (
        ("fd_register", FdRegister),
        ("fd_modify", FdModify),
        ("fd_deregister", FdDeregister),
        ("timeout_register", TimeoutRegister),
        ("timeout_modify", TimeoutModify),
        ("timeout_deregister", TimeoutDeregister),
    )


class EventUnion(ctypes.Union):
    """Of the first word of libxl_event's union; DISK_EJECT's, DOMAIN_SHUTDOWN's, OPERATION_COMPLETE's."""

    _fields_ = (("vdev", c_char_p), ("shutdown_reason", c_uint8), ("rc", c_int))


class Event(ctypes.Structure):
    """libxl_event, as far as it is the same everywhere."""

    _fields_ = (
        ("link", c_void_p * 2),
        ("domid", c_uint32),
        ("uuid", c_uint8 * 16),
        ("for_user", c_uint64),
        ("type", c_int),
        ("u", EventUnion),
    )


EventOccurs = CFUNCTYPE(None, c_void_p, POINTER(Event))
Disaster = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_int)


class EventHooks(ctypes.Structure):
    """libxl_event_hooks."""

    _fields_ = (("mask", c_uint64), ("event_occurs", EventOccurs), ("disaster", Disaster))


class ChildHooks(ctypes.Structure):
    """libxl_childproc_hooks."""

    _fields_ = (("owner", c_int), ("fork_replacement", c_void_p), ("reaped", c_void_p))


Completed = CFUNCTYPE(None, c_void_p, c_int, c_void_p)


class How(ctypes.Structure):
    """libxl_asyncop_how with a callback; ``key`` is its for_callback."""

    _fields_ = (("callback", Completed), ("key", c_void_p))


SELECTIVE_REAP = 3
"""libxl_sigchld_owner_libxl_always_selective_reap: libxl reaps its own children and nobody else's."""

_CTX = c_void_p
_HOW = POINTER(How)

# Name: what it returns and takes.  Those that begin an operation take a how last, from `HOW_SINCE` on.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "libxl_ctx_alloc": (c_int, POINTER(c_void_p), c_int, c_uint, c_void_p),
    "libxl_ctx_free": (c_int, _CTX),
    "libxl_osevent_register_hooks": (None, _CTX, POINTER(OsEventHooks), c_void_p),
    "libxl_osevent_occurred_fd": (None, _CTX, c_void_p, c_int, c_short, c_short),
    "libxl_osevent_occurred_timeout": (None, _CTX, c_void_p),
    "libxl_osevent_afterpoll": (None, _CTX, c_int, c_void_p, TimeVal),
    "libxl_event_register_callbacks": (None, _CTX, POINTER(EventHooks), c_void_p),
    "libxl_event_free": (None, _CTX, POINTER(Event)),
    "libxl_childproc_setmode": (None, _CTX, POINTER(ChildHooks), c_void_p),
    "libxl_evenable_domain_death": (c_int, _CTX, c_uint32, c_uint64, POINTER(c_void_p)),
    "libxl_evdisable_domain_death": (None, _CTX, c_void_p),
    "libxl_evenable_disk_eject": (c_int, _CTX, c_uint32, c_char_p, c_uint64, POINTER(c_void_p)),
    "libxl_evdisable_disk_eject": (None, _CTX, c_void_p),
    "libxl_ao_abort": (c_int, _CTX, _HOW),
    "libxl_list_domain": (c_void_p, _CTX, POINTER(c_int)),
    "libxl_dominfo_list_free": (None, c_void_p, c_int),
    "libxl_dominfo_init": (None, c_void_p),
    "libxl_dominfo_dispose": (None, c_void_p),
    "libxl_dominfo_to_json": (c_void_p, _CTX, c_void_p),
    "libxl_domain_info": (c_int, _CTX, c_void_p, c_uint32),
    "libxl_domid_to_name": (c_void_p, _CTX, c_uint32),
    "libxl_domain_destroy": (c_int, _CTX, c_uint32, _HOW),
    "libxl_domain_shutdown": (c_int, _CTX, c_uint32, _HOW),
    "libxl_domain_reboot": (c_int, _CTX, c_uint32, _HOW),
    "libxl_domain_pause": (c_int, _CTX, c_uint32, _HOW),
    "libxl_domain_unpause": (c_int, _CTX, c_uint32, _HOW),
    "libxl_domain_suspend": (c_int, _CTX, c_uint32, c_int, c_int, _HOW),
    "libxl_domain_resume": (c_int, _CTX, c_uint32, c_int, _HOW),
    "libxl_domain_create_new": (c_int, _CTX, c_void_p, POINTER(c_uint32), _HOW, c_void_p),
    "libxl_domain_create_restore": (c_int, _CTX, c_void_p, POINTER(c_uint32), c_int, c_int, c_void_p, _HOW, c_void_p),
    "libxl_domain_restore_params_init": (None, c_void_p),
    "libxl_domain_restore_params_dispose": (None, c_void_p),
    "libxl_domain_restore_params_from_json": (c_int, _CTX, c_void_p, c_char_p),
    "libxl_domain_config_init": (None, c_void_p),
    "libxl_domain_config_dispose": (None, c_void_p),
    "libxl_domain_config_from_json": (c_int, _CTX, c_void_p, c_char_p),
    "libxl_domain_config_to_json": (c_void_p, _CTX, c_void_p),
    "libxl_retrieve_domain_configuration": (c_int, _CTX, c_uint32, c_void_p, _HOW),
    "libxl_domain_rename": (c_int, _CTX, c_uint32, c_char_p, c_char_p),
    "xtl_createlogger_stdiostream": (c_void_p, c_void_p, c_int, c_uint),
    "xtl_logger_destroy": (None, c_void_p),
}

Version = tuple[int, int]
NEWEST: Version = (999, 0)

# The version from which on a function takes a how; all others that do have from 4.2 on (LIBXL_API_VERSION < 0x041300 in
# libxl.h keeps the older shape of these for a compiler, and not for us).
HOW_SINCE: dict[str, Version] = dict.fromkeys(
    ("libxl_domain_pause", "libxl_domain_unpause", "libxl_domain_shutdown", "libxl_domain_reboot"), (4, 13)
)
SELECTIVE_REAP_SINCE: Version = (4, 4)

_SONAME = re.compile(r"libxenlight\.so\.(\d+)\.(\d+)")


class Library:
    """libxl's functions by name, with their prototypes, for us alone: whoever else uses the same ``CDLL`` has his own.

    `HypervisorUnavailable` where there is no libxl, or it is older than 4.2.
    """

    def __init__(self, cdll: ctypes.CDLL | None = None) -> None:
        self._cdll = cdll or xen_library.libxl()
        if xen_library.generation(self._cdll) is not xen_library.Generation.CALLBACKS:
            raise HypervisorUnavailable(
                f"{self._cdll._name} is a libxl of before 4.2, which has no hooks to register: "
                "eventbridge.adapters.hypervisors.xen.libxl41 drives it"
            )
        self.name = xen_library.version(self._cdll)
        self.version = soname_version(self._cdll._name)
        self._functions = {name: self._typed(name) for name in PROTOTYPES if hasattr(self._cdll, name)}

    def __getattr__(self, name: str) -> Any:
        try:
            return self._functions[name]
        except KeyError:
            return self._cdll[name]  # AttributeError where libxl has none of that name

    def _typed(self, name: str) -> Any:
        returns, *takes = PROTOTYPES[name]
        return CFUNCTYPE(returns, *takes)((name, self._cdll))


def soname_version(path: str) -> Version:
    """Of the file a libxl was loaded from: (4, 17) of libxenlight.so.4.17.0; `NEWEST` where its name does not say."""
    for name in (Path(path).name, Path(path).resolve().name):
        if found := _SONAME.match(name):
            major, minor = int(found[1]), int(found[2])
            return (4, 2) if (major, minor) == (2, 0) else (major, minor)
    return NEWEST


_ROOM = 65536
_UNTOUCHED = b"\xa5"


def size_of(init: Any) -> int:
    """How large libxl has a struct to be, in bytes: its ``init`` writes exactly that much."""
    room = ctypes.create_string_buffer(_UNTOUCHED * _ROOM, _ROOM)
    init(ctypes.byref(room))
    return len(room.raw.rstrip(_UNTOUCHED))


def text_of(address: int | None) -> str | None:
    """A string that libxl has allocated for us, which is freed; None for NULL."""
    if not address:
        return None
    try:
        return ctypes.string_at(address).decode(errors="replace")
    finally:
        _free(address)


def json_of(text: str | None) -> dict[str, Any]:
    """What a ``libxl_TYPE_to_json`` has said.  It leaves out whatever is false, 0 or empty."""
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


_free = CFUNCTYPE(None, c_void_p)(("free", ctypes.CDLL(None)))
