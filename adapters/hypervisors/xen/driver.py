"""``libxl:///``: this Xen host through libxl, of whichever generation the library is.

This is where 4.1 and 4.2 part, and the last place that knows of both.

A domain's ``stopped`` says how its guest had stopped, if libxl or Xen's list says so at any time before the domain
leaves that list; the driver asks once more before it emits the event.  What cannot be known is told as follows.

- A domain that shut down, was destroyed and left the list before anybody here looked ends as "destroyed".  Neither Xen
  nor xenstored keeps a record of it.  This takes a host loop, or a machine, that is busy for as long as the toolstack
  needs to destroy the domain.
- A domain that left the list while the connection was lost ends as "inferred", when the connection is restored.
- A disk that a guest ejects while nobody watches is delivered at the next opening by 4.2 and later, unless another
  toolstack was there first, and is not delivered by 4.1, in which nobody acknowledges an ejection.
"""

from __future__ import annotations

import importlib
from typing import Any
from urllib.parse import urlsplit

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.events import Emit

from .session import XenSession
from .support import library
from .support.library import Generation
from .xenstore.opening import open_store

# The package that drives each generation; loaded when it is wanted.
_PACKAGES = {Generation.CALLBACKS: "libxl", Generation.WAITING_FD: "libxl41"}


class LibxlDriver:
    """`eventbridge.hypervisor.driver.Driver` for ``libxl:///``."""

    def subscribe(self, uri: str, bridge: BridgeCore, emit: Emit) -> XenSession:
        """As `eventbridge.hypervisor.driver.Driver.subscribe`.  `HypervisorUnavailable` where there is no libxl."""
        parts = urlsplit(uri)
        if parts.netloc or parts.path not in ("", "/") or parts.query:
            raise HypervisorError(
                f"{uri}: libxl serves the Xen host it runs on and nothing else: write libxl:///", operation="open"
            )
        toolstack, operations = (_of_the_library(name) for name in ("toolstack", "operations"))
        return XenSession.open(uri, bridge, emit, open_store(), toolstack.open_toolstack, operations.calls)

    def version(self) -> str:
        """As in "libxenlight.so.4.17 (4.2 and later: it registers what it wants watched)"."""
        found = library.libxl()
        return f"{library.version(found)} ({library.generation(found).value})"


def _of_the_library(name: str) -> Any:
    package = _PACKAGES[library.generation(library.libxl())]
    return importlib.import_module(f".{package}.{name}", __package__)


driver = LibxlDriver()
