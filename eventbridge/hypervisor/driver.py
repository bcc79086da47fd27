"""What a hypervisor's driver implements: it emits events, and does what it is requested to do."""

from __future__ import annotations

from typing import Protocol

from eventbridge.core.bridge import BridgeCore

from .events import Emit
from .request import Request


class Subscription(Protocol):
    """A source of events that is open."""

    def close(self) -> None:
        """No event is emitted after it returns.  May block: not on the loop's thread while the loop runs.
        Idempotent.
        """


class Session(Subscription, Protocol):
    """A hypervisor that is open: its events, and what can be asked of it (`operations.OPERATIONS`)."""

    @property
    def operations(self) -> frozenset[str]:
        """What it can do; fixed from the beginning."""

    def begin(self, request: Request) -> None:
        """Have it done, and answered in time; one of ``operations``.  Any thread; never blocks, never raises.

        The caller holds the domain's job until the answer, so at most one normal request a domain is under way, beside
        an asynchronous one.  After `close`, or when the hypervisor has gone, requests are refused with
        `ConnectionLost`, those under way too.
        """

    def given_up(self, request: Request) -> None:
        """Whoever asked waits no more: its deadline has passed.  For what can be cut short, or made room for.  Any
        thread; never blocks.
        """


class Driver(Protocol):
    """One hypervisor."""

    def subscribe(self, uri: str, bridge: BridgeCore, emit: Emit) -> Session:
        """Open ``uri`` and call ``emit(event)`` on the bridge's loop for everything that happens from then on.

        Blocks until it is open: call it on a thread of its own where a loop is running.  `HypervisorError` where it
        cannot be opened.
        """

    def version(self) -> str:
        """The library's name and version, for ``eventbridge doctor``."""
