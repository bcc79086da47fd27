"""Xen's libraries, found and loaded: whichever version is there, and which generation of libxl that is.

Xen gives libxl a new SONAME with every release and keeps no ABI across them, so the names are tried from the newest
on; everything that is asked of it must hold from 4.2 on.  ``EVENTBRIDGE_LIBXL`` and ``EVENTBRIDGE_LIBXENSTORE`` name
a file instead.  The libraries are loaded through ctypes, which lets go of the GIL in every call, as the hooks that
come back on other threads need.  Any thread.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import os
from collections.abc import Iterable

from eventbridge.errors import HypervisorUnavailable

# 4.2 was libxenlight.so.2.0 and 4.1 libxenlight.so.1.0; from 4.3 on the SONAME is Xen's version.
LIBXL_NAMES = (*(f"libxenlight.so.4.{minor}" for minor in range(40, 2, -1)), "libxenlight.so.2.0", "libxenlight.so.1.0")
LIBXENSTORE_NAMES = ("libxenstore.so.4", "libxenstore.so.3.0")

LIBXL_PACKAGE = (
    "on Debian: apt-get install libxenmisc4.17, or of whichever version `apt-cache pkgnames libxenmisc` says"
)
LIBXENSTORE_PACKAGE = "on Debian: apt-get install libxenstore4"


class Generation(enum.Enum):
    """How a libxl wants to be driven."""

    CALLBACKS = "4.2 and later: it registers what it wants watched"
    WAITING_FD = "4.1: it has one fd to wait on"


# By what a library exports.
GENERATIONS = (
    ("libxl_osevent_register_hooks", Generation.CALLBACKS),
    ("libxl_get_wait_fd", Generation.WAITING_FD),
)


def libxl() -> ctypes.CDLL:
    """libxl, of either generation; `HypervisorUnavailable` where there is none."""
    return _loaded("libxl", os.environ.get("EVENTBRIDGE_LIBXL"))


def libxenstore() -> ctypes.CDLL:
    """libxenstore; `HypervisorUnavailable` where there is none."""
    return _loaded("libxenstore", os.environ.get("EVENTBRIDGE_LIBXENSTORE"))


def generation(library: ctypes.CDLL) -> Generation:
    """Which generation a libxl is of, by what it exports; `HypervisorUnavailable` for what is no libxl."""
    for symbol, found in GENERATIONS:
        if hasattr(library, symbol):
            return found
    raise HypervisorUnavailable(
        f"{library._name} is no libxl that is known: it exports neither "
        f"{' nor '.join(name for name, _ in GENERATIONS)}; EVENTBRIDGE_LIBXL may name another file"
    )


def version(library: ctypes.CDLL) -> str:
    """As in "libxenlight.so.4.17": what it was loaded as."""
    return os.path.basename(library._name)


@functools.cache
def _loaded(what: str, path: str | None) -> ctypes.CDLL:
    names, package, variable = _KNOWN[what]
    found = _first((path,) if path else names)
    if isinstance(found, ctypes.CDLL):
        return found
    if path:
        raise HypervisorUnavailable(
            f"{what} cannot be loaded from {variable}={path}: {found}; unset it to look elsewhere"
        )
    raise HypervisorUnavailable(f"{what} cannot be loaded ({found}): {package}; {variable} may name its file")


_KNOWN = {
    "libxl": (LIBXL_NAMES, LIBXL_PACKAGE, "EVENTBRIDGE_LIBXL"),
    "libxenstore": (LIBXENSTORE_NAMES, LIBXENSTORE_PACKAGE, "EVENTBRIDGE_LIBXENSTORE"),
}


def _first(names: Iterable[str]) -> ctypes.CDLL | str:
    """The first that can be loaded, or why none can: a library that is there and broken says more than those that are
    not there.
    """
    why = ""
    for name in names:
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            text = str(error)
            if not why or not text.startswith(f"{name}: cannot open shared object file"):
                why = text
    return why
