"""What an observer of a bridge implements, and the little that it learns of calls and connections.

`observed` has the dispatcher that calls observers.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from .origin import Origin


class ObservedCall(Protocol):
    """A call on its way through a connection, as far as an observer needs to know it."""

    key: Hashable | None
    """The domain's; None for a call of the whole hypervisor."""
    operation: str

    @property
    def call(self) -> Hashable:
        """Return the caller's object, which `Observer.settled` is called with."""

    @property
    def what(self) -> str:
        """Return what the call is called in messages."""

    @property
    def uri(self) -> str:
        """Return the connection's URI."""

    @property
    def domain_name(self) -> str | None:
        """Return the domain's name, if it is known."""


class ObservedLink(Protocol):
    """A connection to a hypervisor, as far as an observer needs to know it."""

    uri: str
    last_error: Exception | None

    @property
    def state_name(self) -> str:
        """Return the state that the connection is in."""

    @property
    def owner(self) -> Any:
        """Return the connection, which has the jobs and the inventory of domains."""


class Observer:
    """What can be observed of a bridge; each method does nothing here.

    An observer's methods are short and raise nothing.  Times are nanoseconds of `time.monotonic_ns`.  The bridge calls
    those of passes on the loop thread, inside the pass; connections call the others on any thread.
    """

    def passed(self, began: int, ended: int, depth: int, callbacks: int) -> None:
        """A pass is over; ``depth`` 0: an outermost one."""

    def called(self, whose: Origin, began: int, ended: int, events: int, deadline: int) -> None:
        """A callback has returned.  ``events``: what a handle was told; ``deadline``: of a timeout, 0 for one of every
        pass.
        """

    def freed(self, began: int, ended: int, count: int) -> None:
        """So many ``free`` that were owed have been called."""

    def failed(self, error: BaseException, whose: Origin) -> None:
        """A callback or a free has raised."""

    def asked(self, call: ObservedCall) -> None:
        """A call has set out."""

    def begun(self, call: ObservedCall) -> None:
        """It is handed to the hypervisor's session."""

    def answered(self, call: ObservedCall, error: BaseException | None) -> None:
        """The hypervisor is done with it."""

    def settled(self, call: Hashable, error: BaseException | None) -> None:
        """A call has ended for its caller."""

    def linked(self, link: ObservedLink, why: str) -> None:
        """A connection is made, or (`supervisor.state`) has come into another state."""
