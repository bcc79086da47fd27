"""``libxl:///``: the domain events of this Xen host through libxl, of whichever generation the library is.

This is where 4.1 and 4.2 part, and the last place that knows of both.
"""

from __future__ import annotations

import importlib
from urllib.parse import urlsplit

from eventbridge.bridge import Bridge
from eventbridge.errors import HypervisorError
from eventbridge.events import Emit

from ..xenstore.opening import open_store
from . import library
from .library import Generation
from .lookout import Lookout, OpenToolstack

# The package that drives each generation; loaded when it is wanted.
_PACKAGES = {Generation.CALLBACKS: "libxl", Generation.WAITING_FD: "libxl41"}


class LibxlDriver:
    """`eventbridge.drivers.Driver` for ``libxl:///``."""

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> Lookout:
        """As `eventbridge.drivers.Driver.subscribe`.  `HypervisorUnavailable` where there is no libxl."""
        parts = urlsplit(uri)
        if parts.netloc or parts.path not in ("", "/") or parts.query:
            raise HypervisorError(
                f"{uri}: libxl serves the Xen host it runs on and nothing else: write libxl:///", operation="open"
            )
        open_toolstack = _open_toolstack()
        return Lookout.open(uri, bridge, emit, open_store(), open_toolstack)

    def version(self) -> str:
        """As in "libxenlight.so.4.17 (4.2 and later: it registers what it wants watched)"."""
        found = library.libxl()
        return f"{library.version(found)} ({library.generation(found).value})"


def _open_toolstack() -> OpenToolstack:
    package = _PACKAGES[library.generation(library.libxl())]
    module = importlib.import_module(f"..{package}.toolstack", __package__)
    found: OpenToolstack = module.open_toolstack
    return found


driver = LibxlDriver()
