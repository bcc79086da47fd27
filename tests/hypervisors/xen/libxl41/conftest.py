"""What the tests of libxl 4.1's adapter share: the stand-in for it, over the hypercall stand-in and the real xenstored,
and the check that of what it made nothing is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41
from tests.support.xen.standin import XenStandIn

HOSTS = ("asyncio", "libuv", "select")


@pytest.fixture
def xen(monkeypatch: pytest.MonkeyPatch) -> Iterator[XenStandIn]:
    """A private Xen, whose libxl is the stand-in for 4.1."""
    with XenStandIn() as running:
        running.load()
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(libxl41.stand_in()))
        before = libxl41.counts()
        yield running
        after = libxl41.counts()
        assert after[:3] == before[:3], "ctxs, waiters, events: all are freed"
        assert after.freed_too_early == before.freed_too_early, "the waiters go before their ctx"


@pytest.fixture(params=HOSTS)
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """A bridge, to be run by the test, which reports nothing and keeps nothing."""
    errors: list[BaseException] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append(error)) as bridge:
        yield bridge
        assert bridge.closed or bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert errors == []
