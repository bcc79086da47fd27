"""A connection on a loop that the test turns, to a hypervisor that does what the test says."""

from __future__ import annotations

from collections.abc import Callable

from eventbridge import Backoff, Bridge, Connection
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.testing import SteppingHost
from tests.support.patience import PATIENCE
from tests.support.scripted_hypervisor import Scripted

AT_ONCE = Backoff(first=0.001, most=0.001)


class Desk:
    """What a test has at hand: ``connection``, to ``hypervisor``; ``events`` has what was told."""

    def __init__(
        self,
        hypervisor: Scripted,
        host: SteppingHost,
        reconnect: Backoff | None = AT_ONCE,
        audit: float | None = None,
    ) -> None:
        self.hypervisor = hypervisor
        self.host = host
        self.bridge = Bridge(host)
        self.connection = Connection(hypervisor.uri, self.bridge, reconnect=reconnect, audit=audit)
        self.events: list[DomainEvent] = []
        self.connection.subscribe(self.events.append)

    def open(self) -> None:
        self.until(lambda: self.connection.opened.done)
        self.connection.opened.result()

    def until(self, happened: Callable[[], bool]) -> None:
        assert self.host.step_until(happened, PATIENCE), f"it did not happen: {self.connection}, {self.events}"

    def settle(self) -> None:
        """For what must not come."""
        self.host.step_until_idle()

    def told(self) -> list[str]:
        return [f"{event}{' *' if event.synthetic else ''}" for event in self.events]

    def agrees(self) -> bool:
        """Is what is known what is true?"""
        known = {domain.ref.uuid: (domain.ref, domain.state) for domain in self.connection.known}
        return known == {key: (info.domain, info.state) for key, info in self.hypervisor.domains.items()}

    def close(self) -> None:
        closed = self.connection.close()
        self.until(lambda: closed.done)
        self.settle()
        assert self.bridge.is_empty(), f"something was left: {self.bridge!r}"
        self.bridge.close()
