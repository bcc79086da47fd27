"""A connection to xenstored, by whatever is here: libxenstore, or else its wire protocol.  Any thread; blocks."""

from __future__ import annotations

import logging

from eventbridge.errors import HypervisorUnavailable

from .client import WireStore
from .libxenstore import LibxenstoreStore
from .store import Store

log = logging.getLogger(__name__)


def open_store(address: str | None = None) -> Store:
    """A connection to the xenstored at ``address``, a path (a unix socket, or /dev/xen/xenbus), or to this machine's:
    that of XENSTORED_PATH or XENSTORED_RUNDIR where they are set.

    Through libxenstore where it is installed and no address is given, for it knows of none; otherwise by the wire
    protocol.  `eventbridge.errors.HypervisorError` where nobody is there, or who is there lets nobody in.
    """
    if address is None:
        try:
            return LibxenstoreStore()
        except HypervisorUnavailable as error:
            log.info("xenstored is spoken to without libxenstore: %s", error)
    return WireStore.open(address)
