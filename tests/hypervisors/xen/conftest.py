"""What the tests of Xen's adapters share."""

from collections.abc import Iterator

import pytest

from tests.support.xen.standin import XenStandIn


@pytest.fixture
def xen() -> Iterator[XenStandIn]:
    """A stand-in that runs, whose libraries this process finds by their plain names."""
    with XenStandIn() as running:
        running.load()
        yield running
