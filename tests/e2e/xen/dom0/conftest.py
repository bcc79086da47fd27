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
