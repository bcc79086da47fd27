"""One event dispatcher for every hypervisor control library, on whichever event loop a management daemon already
runs.
"""

from .backoff import Backoff
from .bridge import Bridge, Stats, attach
from .calls import Call, LongCall
from .connection import Connection, connect, open
from .diagnosis.slow import SlowCallback
from .diagnosis.tracing import Trace
from .domains import Domain
from .errors import (
    BridgeClosed,
    BridgeForked,
    ConnectionLost,
    EventBridgeError,
    HostUnavailable,
    HypervisorError,
    HypervisorUnavailable,
    JobAborted,
    JobBusy,
    JobTimeout,
    NoSuchDomain,
    UnknownHandle,
)
from .events import DomainEvent, Kind
from .host import HostLoop
from .jobs import Job, Progress
from .masks import Events
from .models import CallbackModel, DirectSource
from .stream import EventStream, StreamLagged

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Bridge",
    "BridgeClosed",
    "BridgeForked",
    "Call",
    "CallbackModel",
    "Connection",
    "ConnectionLost",
    "DirectSource",
    "Domain",
    "DomainEvent",
    "EventBridgeError",
    "EventStream",
    "Events",
    "HostLoop",
    "HostUnavailable",
    "HypervisorError",
    "HypervisorUnavailable",
    "Job",
    "JobAborted",
    "JobBusy",
    "JobTimeout",
    "Kind",
    "LongCall",
    "NoSuchDomain",
    "Progress",
    "SlowCallback",
    "Stats",
    "StreamLagged",
    "Trace",
    "UnknownHandle",
    "attach",
    "connect",
    "open",
]
