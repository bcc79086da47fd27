"""The disks of a domain whose medium its guest can eject, as xenstored has them.

Blocks: a round trip to xenstored for each node.  Any thread but a running loop's.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from eventbridge.errors import HypervisorError

from .xenstore.store import Store

_DISKS = "/local/domain/{domid}/device/vbd"
_MISSING = (errno.ENOENT, errno.EACCES)
EJECTED = "eject"
"""What a guest writes to the tray of a drive to have its medium out."""


class Drive(NamedTuple):
    """A disk with a tray."""

    vdev: str
    """Its virtual name, as "hdc"."""
    tray: str
    """The node that the guest writes `EJECTED` to."""


def drives(store: Store, domid: int) -> list[Drive]:
    """The drives of a domain.  A frontend says that it is a CD-ROM, and its backend what it is called
    (libxl_disk.c).
    """
    above = _DISKS.format(domid=domid)
    found = []
    for devid in _names(store, above):
        frontend = f"{above}/{devid}"
        if value(store, f"{frontend}/device-type") == "cdrom":
            backend = value(store, f"{frontend}/backend")
            name = value(store, f"{frontend}/dev") or (value(store, f"{backend}/dev") if backend else None)
            if name:
                found.append(Drive(name, f"{frontend}/{EJECTED}"))
    return found


def value(store: Store, path: str) -> str | None:
    """The text of a node; None if there is no such node."""
    try:
        return store.read(path).decode(errors="replace")
    except HypervisorError as error:
        if error.code in _MISSING:
            return None
        raise


def _names(store: Store, path: str) -> list[str]:
    try:
        return store.list(path)
    except HypervisorError as error:
        if error.code in _MISSING:
            return []
        raise
