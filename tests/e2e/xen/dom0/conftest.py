"""What the tests in domain 0 share.  They are run by ``python -m tests.e2e.xen`` alone: no name here is one that a run
of all tests collects, and nothing of Xen is loaded before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from tests.e2e.xen.dom0 import guests
from tests.e2e.xen.dom0.rig import Rig


@pytest.fixture
def toolstack() -> Iterator[guests.Toolstack]:
    """Makes and ends guests, from outside the process under test."""
    with guests.toolstack_running() as running:
        yield running


@pytest.fixture(scope="session")
def linux_of_all() -> Iterator[guests.Linux]:
    with guests.toolstack_running() as running:
        yield guests.Linux(running)
        running.forget_all()  # it is another domain by now, and goes with the machine


@pytest.fixture
def linux(linux_of_all: guests.Linux) -> guests.Linux:
    """The same guest for all of them.  It runs; of what is asked for after it nobody has seen it start."""
    linux_of_all.run()
    return linux_of_all


@pytest.fixture(params=["asyncio", "select"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """On each of two host loops; no callback of it has failed in the end."""
    errors: list[tuple[BaseException, str]] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append((error, context))) as bridge:
        yield bridge
    assert errors == []


@pytest.fixture
def rig(bridge: Bridge) -> Iterator[Rig]:
    """libxl on that bridge: its operations, and what ``libxl:///`` tells."""
    made = Rig(bridge)
    yield made
    made.close()
