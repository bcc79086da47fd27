"""The kit's plugin, for a report of the rules that were kept; and the one thing that the kit asks for."""

import pytest
from tinyloop_eventbridge import TinyloopHost

pytest_plugins = ["eventbridge.testing.plugin"]


@pytest.fixture
def make_host():
    return TinyloopHost
