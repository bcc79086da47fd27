"""libxl 4.2 and later on a bridge: events, domains and operations of a Xen host, through hooks that libxl registers.

``Context(bridge)`` is the way in; ``libxl:///`` (``eventbridge.adapters.hypervisors.xen.driver``) stands on it.
"""

from .async_operation import Operation
from .consoles import console_info
from .context import Context
from .events import Event, EventKind, Generator

__all__ = ["Context", "Event", "EventKind", "Generator", "Operation", "console_info"]
