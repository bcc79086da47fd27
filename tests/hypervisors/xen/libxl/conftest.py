"""What the tests of libxl's adapter share: a Xen stand-in, and a bridge on each host whose loop matters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.testing import SteppingHost
from tests.support.libxl_hooked import Libxl
from tests.support.libxl_rig import Errors, Rig
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn


@pytest.fixture
def errors() -> Errors:
    """What the bridge was told of exceptions; a test that causes some takes them out."""
    return []


@pytest.fixture(params=["asyncio", "libuv", "select"])
def bridge(request: pytest.FixtureRequest, errors: Errors) -> Iterator[Bridge]:
    """A bridge on which libxl leaves nothing."""
    with Bridge(request.param, on_error=lambda error, context: errors.append((error, context))) as bridge:
        yield bridge
        if not bridge.closed:
            assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), f"libxl left something: {bridge!r}"
        assert errors == []


@pytest.fixture
def rig(xen: XenStandIn, bridge: Bridge) -> Iterator[Rig]:
    """A context on the bridge, spied on."""
    rig = Rig(bridge)
    yield rig
    rig.close()


@pytest.fixture
def host(unhurried: None) -> SteppingHost:
    return SteppingHost()


@pytest.fixture
def stepped(xen: XenStandIn, host: SteppingHost) -> Iterator[Rig]:
    """As ``rig``, on a loop that turns when the test says so."""
    with Bridge(host) as bridge:
        rig = Rig(bridge)
        yield rig
        rig.close()
        assert host.reported == []


@pytest.fixture
def by_hand(host: SteppingHost) -> Iterator[Libxl]:
    """A stand-in for libxl's side of the hooks, on a loop that turns when the test says so."""
    with Bridge(host) as bridge:
        yield Libxl(bridge)
    assert host.reported == []
