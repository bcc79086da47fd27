"""Everything eventbridge raises on its own account.

One tree, so that ``except EventBridgeError`` catches it all; each class is also the built-in exception that fits, so
that code which knows nothing of eventbridge still does the right thing with it.  `eventbridge.jobs` has those of jobs.
"""

from __future__ import annotations


class EventBridgeError(Exception):
    """The root of every error that eventbridge itself raises."""


class UnknownHandle(EventBridgeError, KeyError):
    """An id that this bridge never gave out, or whose handle or timeout is removed already (rule H8)."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class BridgeClosed(EventBridgeError, RuntimeError):
    """The bridge was closed: nothing can be registered on it any more (rule D8)."""


class BridgeForked(EventBridgeError, RuntimeError):
    """The bridge belongs to the parent of this process; a child makes one of its own (rule D7)."""


class HostUnavailable(EventBridgeError, ImportError):
    """A host loop that is not known, not installed, not running here, or already closed."""


class HypervisorError(EventBridgeError, RuntimeError):
    """What a hypervisor's library answered when it refused.

    ``code`` is the library's own number (or None), ``operation`` what was tried, ``domain`` the name of the domain it
    was tried on.
    """

    def __init__(
        self, message: str, *, code: int | None = None, operation: str | None = None, domain: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation
        self.domain = domain


class HypervisorUnavailable(HypervisorError, ImportError):
    """The library of a hypervisor is not installed here, or its URI's scheme is not known."""


class NoSuchDomain(HypervisorError, LookupError):
    """The domain that was asked about is not there, or no more."""


class ConnectionLost(EventBridgeError, ConnectionError):
    """The hypervisor, or the daemon in front of it, has gone."""
