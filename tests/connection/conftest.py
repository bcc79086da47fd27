"""The fixtures of the tests of connections: a desk on a loop that the test turns, and rigs on loops that run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventbridge.testing import SteppingHost
from tests.connection.sim_rig import HOSTS, Rig
from tests.support.desk import Desk
from tests.support.scripted_hypervisor import Scripted, script, scripted

__all__ = ["script", "scripted"]


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
    from eventbridge.hypervisor.model import State

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
