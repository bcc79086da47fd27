"""What the tests of stress leave to others: nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def gevent_leaves() -> Iterator[None]:
    """Of its hub, which `attach()` takes for what runs here, wherever there is one."""
    yield
    if "gevent" in sys.modules:
        sys.modules["gevent"].get_hub().destroy(destroy_loop=True)
