"""One event dispatcher for every hypervisor control library, on whichever event loop a management daemon already
runs.
"""

from .bridge import Bridge, attach
from .connection.backoff import Backoff
from .connection.call import Call, LongCall
from .connection.connection import Connection, connect, open
from .connection.domain import Domain
from .connection.event_stream import EventStream, StreamLagged
from .core.host import HostLoop
from .core.masks import Events
from .core.models import CallbackModel, DirectSource
from .core.version import VERSION
from .diagnosis.slow import SlowCallback
from .diagnosis.stats import Stats
from .diagnosis.tracing import Trace
from .errors import (
    BridgeClosed,
    BridgeForked,
    ConnectionLost,
    EventBridgeError,
    HostUnavailable,
    HypervisorError,
    HypervisorUnavailable,
    NoSuchDomain,
    UnknownHandle,
)
from .hypervisor.events import DomainEvent, Kind
from .jobs import Job, Progress
from .jobs.errors import JobAborted, JobBusy, JobTimeout

__version__ = VERSION

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
