"""libvirt, opened: for every URI that it knows a session of its own, with connections of its own.

Opening blocks and belongs on a thread of its own where a loop is running.
"""

from __future__ import annotations

import functools
import logging
from importlib import metadata

import libvirt

from eventbridge.core.bridge import BridgeCore
from eventbridge.hypervisor.events import Emit

from . import install, installed
from .errors import cannot_open
from .opening import Opener
from .session import LibvirtSession
from .subscription import LibvirtSubscription

__all__ = ["KEEPALIVE", "LibvirtDriver", "LibvirtSession", "LibvirtSubscription", "driver"]

KEEPALIVE = (5, 3)
"""Ask a remote daemon that is silent for so many seconds whether it lives; so many times before it counts as lost."""

log = logging.getLogger(__name__)


class LibvirtDriver:
    """`eventbridge.hypervisor.driver.Driver` for every URI that libvirt knows."""

    def __init__(self, keepalive: tuple[int, int] = KEEPALIVE) -> None:
        self._keepalive = keepalive

    def subscribe(self, uri: str, bridge: BridgeCore, emit: Emit) -> LibvirtSession:
        """Open ``uri``, emit its events and do what it is asked; libvirt is installed on ``bridge`` if it is not yet.
        Blocks.

        `HypervisorError` where it cannot be opened or tells no events; nothing is then left behind."""
        _quieten()
        if installed() is not bridge:
            install(bridge)
        opener = Opener(uri, self._keepalive)
        try:
            connection = opener()
        except libvirt.libvirtError as error:
            raise cannot_open(uri, "cannot open", error) from error
        session = LibvirtSession(uri, connection, emit, opener)
        try:
            session.register(self._keepalive)
        except BaseException:
            session.close()
            raise
        return session

    def version(self) -> str:
        """As in "libvirt 9.0.0 (libvirt-python 12.8.0)"."""
        number = libvirt.getVersion()
        library = f"libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
        try:
            return f"{library} (libvirt-python {metadata.version('libvirt-python')})"
        except metadata.PackageNotFoundError:  # some distributions leave a binding's metadata out
            return library


@functools.cache
def _quieten() -> None:
    """libvirt prints every error to standard error unless somebody takes them; they reach us as exceptions."""
    libvirt.registerErrorHandler(lambda _, error: log.debug("libvirt: %s", error[2]), None)


driver = LibvirtDriver()
