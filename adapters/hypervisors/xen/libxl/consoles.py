"""A domain's consoles as libxl knows them: the tty is libxl's word, the rest is xenstore's.

libxl names the tty alone (``libxl_console_get_tty``, libxl.h); both ends of a console it has never told.  For a domain
whose consoles another domain serves, its device model's, libxl knows where to look.  Blocks: any thread but a running
loop's.
"""

from __future__ import annotations

import ctypes

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import ConsoleInfo, ConsoleKind

from .. import console
from ..xenstore.store import Store
from . import types
from .context import Context

# libxl_console_type (libxl_types.idl).
TYPES = {ConsoleKind.SERIAL: 1, ConsoleKind.PV: 2, ConsoleKind.VUART: 3}


def console_info(
    context: Context, store: Store, domid: int, kind: ConsoleKind = ConsoleKind.PV, number: int = 0
) -> ConsoleInfo:
    """Console ``number`` of that kind, from 0; the first paravirtual one where nothing is said.

    `HypervisorError`: ENOENT where the domain has no such console, or whatever libxl refuses for.
    """
    tty = console_tty(context, domid, kind, number)
    return console.console_info(store, domid, kind, number, tty)


def console_tty(context: Context, domid: int, kind: ConsoleKind = ConsoleKind.PV, number: int = 0) -> str | None:
    """Where it can be opened; None where libxl knows of no tty."""
    path = ctypes.c_void_p()
    try:
        context.call("libxl_console_get_tty", domid, number, TYPES[kind], ctypes.byref(path), domid=domid)
    except HypervisorError as error:
        if error.code is None:  # not libxl's answer: it was not asked
            raise
        return None
    return types.text_of(path.value)
