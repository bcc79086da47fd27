"""An open simulated hypervisor, and the fds it may not keep."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from sim_watch import Watched

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim import simulation
from eventbridge.hypervisor.events import DomainEvent
from tests.support.descriptors import open_fds

numbers = itertools.count()


@pytest.fixture(scope="session")
def libuv_is_up() -> None:
    """libuv's first loop opens fds that stay for the life of the process."""
    with Bridge("libuv") as bridge:
        bridge.run(timeout=0.001)


@pytest.fixture
def watch(libuv_is_up: None) -> Iterator[Callable[..., Watched]]:
    """``watch(query, host)`` opens ``sim:///default?query``; at the end nothing of it is left, not one fd."""
    before = open_fds()
    opened: list[Watched] = []

    def watch(query: str, host: str = "select", emit: Callable[[DomainEvent], None] | None = None) -> Watched:
        errors: list[BaseException] = []
        bridge = Bridge(host, on_error=lambda error, context: errors.append(error))
        opened.append(Watched(bridge, f"sim:///default?{query}", emit, errors=errors))
        opened[-1].open()
        return opened[-1]

    yield watch
    while opened:
        opened.pop().close()
    assert open_fds() == before


@pytest.fixture
def world() -> Iterator[str]:
    """The name of a world of the test's own, forgotten at its end."""
    name = f"test-{next(numbers)}"
    yield name
    simulation.forget(name)
