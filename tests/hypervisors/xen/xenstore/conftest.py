"""A private xenstored, and connections to it of both kinds, of which nothing may be left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from store_rig import KINDS, Opened, wait_until

from tests.support.descriptors import open_fds
from tests.support.xen.standin import XenStandIn


@pytest.fixture(params=list(KINDS))
def opened(request: pytest.FixtureRequest, xen: XenStandIn) -> Iterator[Opened]:
    """``opened()`` connects; at the end no fd is left of what it made, and no thread."""
    fds, threads = open_fds(), threading.active_count()
    made = Opened(xen, request.param)
    yield made
    made.close()
    wait_until(lambda: threading.active_count() == threads)
    if xen.xenstored.poll() is not None:
        xen.restart()  # the stand-in's own connection counts too
    wait_until(lambda: open_fds() == fds)  # a thread that was inside closes on its way out
