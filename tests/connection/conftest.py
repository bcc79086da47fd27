"""A connection on a loop that the test turns, to a hypervisor that does what the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventbridge import Backoff, Bridge, Connection
from eventbridge.events import DomainEvent
from eventbridge.testing import SteppingHost
from tests.connection.sim_rig import HOSTS, Rig
from tests.support.scripted_hypervisor import PATIENCE, Scripted, script, scripted

__all__ = ["script", "scripted"]

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


@pytest.fixture
def host() -> SteppingHost:
    return SteppingHost()


@pytest.fixture
def at(host: SteppingHost) -> Iterator[Callable[..., Desk]]:
    """``at(hypervisor)``: a desk, not open yet."""
    desks: list[Desk] = []

    def at(hypervisor: Scripted, **options: Any) -> Desk:
        desks.append(Desk(hypervisor, host, **options))
        return desks[-1]

    yield at
    for desk in desks:
        desk.close()
    assert host.reported == []


@pytest.fixture
def desk(scripted: Scripted, at: Callable[..., Desk]) -> Desk:
    """Open, with three domains: d1 runs, d2 is paused, d3 is off."""
    from eventbridge.domain import State

    scripted.add(1, State.RUNNING)
    scripted.add(2, State.PAUSED)
    scripted.add(3)
    desk = at(scripted)
    desk.open()
    return desk


@pytest.fixture(params=HOSTS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Simulated hypervisors, on each host."""
    rig = Rig(request.param)
    yield rig
    rig.close()


@pytest.fixture
def rig_on_select() -> Iterator[Rig]:
    """On one host, for what does not depend on it."""
    rig = Rig("select")
    yield rig
    rig.close()
