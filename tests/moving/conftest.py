"""What the tests of moving share."""

from __future__ import annotations

import pytest

from tests.moving.stepped_host import StandIn


@pytest.fixture
def three(unhurried: None) -> tuple[StandIn, StandIn, StandIn]:
    """Three stand-ins for hosts, each of whose turns is a whole round, however long the machine keeps it waiting."""
    return StandIn("first"), StandIn("second"), StandIn("third")
