"""``xenstore:///`` and ``xenstore:///path/to/socket``: a Xen host by xenstored alone.

For where there is no libxl, or no permission to make its hypercalls.  What is told of a domain's end is what
`toolstack` says that can be known.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import HypervisorError, HypervisorUnavailable
from eventbridge.hypervisor.events import Emit

from ..session import XenSession
from ..support import library
from ..xenstore.opening import open_store
from .operations import calls
from .toolstack import open_toolstack


class XenstoreDriver:
    """`eventbridge.hypervisor.driver.Driver` for ``xenstore:///``."""

    def subscribe(self, uri: str, bridge: BridgeCore, emit: Emit) -> XenSession:
        """As `eventbridge.hypervisor.driver.Driver.subscribe`.  Without a path it is this machine's xenstored, through
        libxenstore where that is installed; with one, the socket or device there, by the wire protocol.
        """
        return XenSession.open(uri, bridge, emit, open_store(_address(uri)), open_toolstack, calls)

    def version(self) -> str:
        """As in "libxenstore.so.4"."""
        try:
            return library.version(library.libxenstore())
        except HypervisorUnavailable:
            return "the wire protocol, without libxenstore"


def _address(uri: str) -> str | None:
    parts = urlsplit(uri)
    if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise HypervisorError(
            f"{uri}: write xenstore:/// for this machine's xenstored, or xenstore:///path/to/its/socket",
            operation="open",
        )
    return None if parts.path == "/" else unquote(parts.path)


driver = XenstoreDriver()
