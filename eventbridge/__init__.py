"""One event dispatcher for every hypervisor control library, on whichever event loop a management daemon already
runs.
"""

from .bridge import Bridge, Stats, attach
from .errors import (
    BridgeClosed,
    BridgeForked,
    ConnectionLost,
    EventBridgeError,
    HostUnavailable,
    HypervisorError,
    HypervisorUnavailable,
    UnknownHandle,
)
from .host import HostLoop
from .masks import Events
from .models import CallbackModel, DirectSource

__version__ = "0.1.0"

__all__ = [
    "Bridge",
    "BridgeClosed",
    "BridgeForked",
    "CallbackModel",
    "ConnectionLost",
    "DirectSource",
    "EventBridgeError",
    "Events",
    "HostLoop",
    "HostUnavailable",
    "HypervisorError",
    "HypervisorUnavailable",
    "Stats",
    "UnknownHandle",
    "attach",
]
