"""What the tests of moving share."""

from __future__ import annotations

import pytest

from tests.moving.stepped_host import StandIn


@pytest.fixture
def three() -> tuple[StandIn, StandIn, StandIn]:
    return StandIn("first"), StandIn("second"), StandIn("third")
