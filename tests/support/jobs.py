"""A table of jobs on a clock that the test sets."""

from __future__ import annotations

from eventbridge.errors import EventBridgeError
from eventbridge.jobs import Ticket

UNIX = 1_000_000_000.0


class Clock:
    """Seconds, which pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return UNIX + self.now


def granted(ticket: Ticket) -> Ticket:
    assert ticket.token is ticket, ticket.error
    assert ticket.error is None
    return ticket


def refused(ticket: Ticket, kind: type[EventBridgeError]) -> EventBridgeError:
    error = ticket.error
    assert ticket.settled
    assert ticket.token is None
    assert type(error) is kind
    return error
