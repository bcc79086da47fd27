"""How late the host calls: `Bridge.diagnose`."""

from __future__ import annotations

import pytest

from eventbridge import Bridge, BridgeClosed
from eventbridge.testing import FakeClock, SteppingHost


def test_it_tells_how_late_each_beat_was_called(stepping: SteppingHost, clock: FakeClock) -> None:
    with Bridge(stepping) as bridge, bridge.diagnose(0.01) as pulse:
        assert pulse.lag().calls == 0
        for late in (0, 1, 30):
            clock.advance(ms=10 + late)
            stepping.step_until_idle()
        lag = pulse.lag()
        assert (lag.calls, lag.p50, lag.p99, lag.most) == (3, 0.001, 0.030, 0.030)
        assert bridge.stats().host_lag == lag


def test_it_is_no_registration_and_beats_no_more_once_it_is_closed(stepping: SteppingHost, clock: FakeClock) -> None:
    """D8: a bridge that is drained does not wait for it."""
    with Bridge(stepping) as bridge:
        pulse = bridge.diagnose(0.01)
        assert bridge.is_empty()
        assert bridge.stats().timeouts == 0
        pulse.close()
        pulse.close()
        clock.advance(ms=100)
        stepping.step_until_idle()
        assert (pulse.lag().calls, bridge.stats().callbacks) == (0, 0)
        assert bridge.stats().host_lag.calls == 0


def test_only_the_last_beats_are_kept(stepping: SteppingHost, clock: FakeClock) -> None:
    from eventbridge.diagnosis.pulse import Pulse

    with Bridge(stepping) as bridge, Pulse(bridge, 0.01, keep=2) as pulse:
        for late in (50, 1, 2):
            clock.advance(ms=10 + late)
            stepping.step_until_idle()
        assert (pulse.lag().calls, pulse.lag().most) == (2, 0.002)


def test_it_goes_on_where_its_bridge_has_moved_to(stepping: SteppingHost, clock: FakeClock) -> None:
    """D9."""
    other = SteppingHost()
    with Bridge(stepping) as bridge, bridge.diagnose(0.01) as pulse:
        bridge.move(other)
        clock.advance(ms=12)
        stepping.step_until_idle()
        assert pulse.lag().calls == 0
        other.step_until_idle()
        assert (pulse.lag().calls, pulse.lag().most) == (1, 0.002)


def test_a_closed_bridge_has_none(stepping: SteppingHost) -> None:
    bridge = Bridge(stepping)
    bridge.close()
    with pytest.raises(BridgeClosed):
        bridge.diagnose()
    assert bridge.stats().handles == 0, "its figures can still be asked for"
