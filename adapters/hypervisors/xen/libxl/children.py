"""Whose children libxl reaps, and whose SIGCHLD it is.  Rule 17 of Xen's.

libxl forks: hotplug scripts, helpers that save and restore.  By default it waits for any child of the process while
an operation runs, and takes the application's exit codes.  Since 4.4 it can be told to wait for its own alone, for
which it keeps SIGCHLD's handler.  It asserts that nobody else has one: the process would be aborted.  So that is
looked at before."""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_void_p
from signal import SIG_DFL, SIG_IGN, SIGCHLD
from typing import Any

from eventbridge.errors import HypervisorError

from . import types

_ROOM = 256  # bytes: struct sigaction has 152 on x86-64; its first word is the handler
_FREE = (None, int(SIG_DFL), int(SIG_IGN))


class _DlInfo(ctypes.Structure):
    _fields_ = (("file", c_char_p), ("base", c_void_p), ("symbol", c_char_p), ("address", c_void_p))


def check(uri: str) -> None:
    """`HypervisorError` where SIGCHLD has a handler that is not libxl's."""
    handler = _handler()
    if handler in _FREE:
        return
    whose = _file_of(handler)
    if "libxenlight" not in whose:
        raise HypervisorError(
            f"{uri}: libxl needs SIGCHLD's handler for its own children and would abort this process, which has one "
            f"already (of {whose or 'no file that is known'}): remove it before, signal.signal(SIGCHLD, SIG_DFL)",
            operation="open",
        )


def hooks(version: types.Version) -> types.ChildHooks | None:
    """What ``libxl_childproc_setmode`` is to be given; None before 4.4, which knows no way of sparing the application's
    children but to have it reap libxl's: there no children of one's own may run while an operation does.
    """
    return types.ChildHooks(types.SELECTIVE_REAP) if version >= types.SELECTIVE_REAP_SINCE else None


def _handler() -> int | None:
    """Python knows only of the handlers that were set through it."""
    now = (c_void_p * (_ROOM // ctypes.sizeof(c_void_p)))()
    _sigaction(SIGCHLD, None, byref(now))
    found: int | None = now[0]
    return found


def _file_of(address: int | None) -> str:
    info = _DlInfo()
    return (info.file or b"").decode(errors="replace") if _dladdr(address, byref(info)) else ""


_libc = ctypes.CDLL(None)
_sigaction: Any = CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(("sigaction", _libc))
_dladdr: Any = CFUNCTYPE(c_int, c_void_p, POINTER(_DlInfo))(("dladdr", _libc))
