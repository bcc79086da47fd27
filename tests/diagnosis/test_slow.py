"""`Bridge.report_slow`: which callback is slow, and what it is at while it blocks."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from eventbridge import Bridge, Events
from eventbridge.core.dispatcher import Dispatcher
from eventbridge.diagnosis.slow import SlowCallback
from eventbridge.testing import FakeClock, SteppingHost
from tests.support.patience import PATIENCE

R = Events.READABLE


def test_a_callback_that_took_too_long_is_told_once_it_has_returned(stepping: SteppingHost, clock: FakeClock) -> None:
    told: list[SlowCallback] = []
    fd = os.eventfd(1)

    def slow(id: int, fd: int, events: int, opaque: object) -> None:
        clock.advance(ms=250)
        bridge.remove_handle(id)

    def quick(id: int, opaque: object) -> None:
        clock.advance(ms=99)
        bridge.remove_timeout(id)

    with Bridge(stepping) as bridge, bridge.report_slow(0.1, told.append):
        bridge.add_timeout(0, quick)
        id = bridge.add_handle(fd, R, slow)
        stepping.step_until_idle()
    ended = [slow for slow in told if not slow.blocks]  # what it was seen at meanwhile is the watching thread's luck
    assert len(ended) == 1, "and not the quick one"
    assert (ended[0].origin.kind, ended[0].origin.id, ended[0].origin.fd) == ("handle", id, fd)
    assert ended[0].seconds == pytest.approx(0.25)
    assert str(ended[0]).startswith(f"handle {id} on fd {fd} of application (") and " took 0.250 s" in str(ended[0])
    os.close(fd)


def test_one_that_blocks_is_told_of_while_it_does_with_what_it_is_at(stepping: SteppingHost) -> None:
    """From a thread of its own: the callback here returns only because it was told of."""
    told: list[tuple[SlowCallback, int]] = []
    seen = threading.Event()

    def handler(slow: SlowCallback) -> None:
        told.append((slow, threading.get_ident()))
        seen.set()

    def stuck_in_here(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        assert seen.wait(PATIENCE), "it was not told of"

    with Bridge(stepping) as bridge, bridge.report_slow(0.001, handler, stack=True):
        bridge.add_timeout(0, stuck_in_here)
        stepping.step_until_idle()
    (blocked, by), (ended, then) = told
    assert (blocked.blocks, ended.blocks) == (True, False)
    assert by != threading.get_ident() == then
    assert blocked.stack is not None and "stuck_in_here" in blocked.stack and "seen.wait" in blocked.stack
    assert "run_pass" not in blocked.stack, "from the callback on, not how the loop came there"
    assert ended.stack == blocked.stack
    assert ended.seconds > blocked.seconds >= 0.001


def test_without_asking_for_it_no_stack_is_taken(stepping: SteppingHost) -> None:
    told: list[SlowCallback] = []
    seen = threading.Event()

    def handler(slow: SlowCallback) -> None:
        told.append(slow)
        seen.set()

    def stuck(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        seen.wait(PATIENCE)

    with Bridge(stepping) as bridge, bridge.report_slow(0.001, handler):
        bridge.add_timeout(0, stuck)
        stepping.step_until_idle()
    assert [slow.stack for slow in told] == [None, None]


def test_a_slow_free_is_told_of(stepping: SteppingHost, clock: FakeClock) -> None:
    """H7: it is foreign code as well."""
    told: list[SlowCallback] = []
    with Bridge(stepping) as bridge, bridge.report_slow(0.1, told.append):
        stepping.step_until_idle()
        bridge.remove_timeout(bridge.add_timeout(-1, print, None, lambda opaque: clock.advance(ms=200)))
        stepping.step_until_idle()
    assert [slow.origin.kind for slow in told if not slow.blocks] == ["free"]


def test_without_a_handler_it_is_a_warning(
    stepping: SteppingHost, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        clock.advance(s=1)

    with caplog.at_level(logging.WARNING, "eventbridge"), Bridge(stepping) as bridge, bridge.report_slow(0.5):
        bridge.add_timeout(0, slow)
        stepping.step_until_idle()
    took = [record.getMessage() for record in caplog.records if " took 1.000 s" in record.getMessage()]
    assert len(took) == 1 and took[0].startswith("timeout 1 of application (")


def test_a_handler_that_fails_is_reported_and_the_pass_goes_on(stepping: SteppingHost, clock: FakeClock) -> None:
    """D4."""
    called: list[int] = []

    def handler(slow: SlowCallback) -> None:
        raise ZeroDivisionError

    def slow(id: int, opaque: object) -> None:
        called.append(id)
        bridge.remove_timeout(id)
        clock.advance(s=1)

    with Bridge(stepping) as bridge, bridge.report_slow(0.5, handler):
        bridge.add_timeout(0, slow)
        bridge.add_timeout(0, slow)
        stepping.step_until_idle()
    assert called == [1, 2]
    assert [type(error) for error, _ in stepping.reported] == [ZeroDivisionError] * 2


def test_after_its_end_nothing_is_told_and_the_dispatcher_is_the_plain_one(
    stepping: SteppingHost, clock: FakeClock
) -> None:
    told: list[SlowCallback] = []
    with Bridge(stepping) as bridge:
        with bridge.report_slow(0.1, told.append):
            assert type(bridge._dispatcher) is not Dispatcher
        assert type(bridge._dispatcher) is Dispatcher
        bridge.add_timeout(1000, lambda id, opaque: clock.advance(s=1))
        clock.advance(s=1)
        stepping.step()
    assert told == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_what_is_slow_must_be_some_time(stepping: SteppingHost, seconds: float) -> None:
    with Bridge(stepping) as bridge, pytest.raises(ValueError, match="more than 0 seconds"):
        bridge.report_slow(seconds)


def test_a_debug_bridge_reports_callbacks_of_a_tenth_of_a_second(
    stepping: SteppingHost, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        clock.advance(ms=100)

    with caplog.at_level(logging.WARNING, "eventbridge"), Bridge(stepping, debug=True) as bridge:
        bridge.add_timeout(0, slow)
        stepping.step_until_idle()
    assert any(" took 0.100 s" in record.getMessage() for record in caplog.records)


def test_its_thread_ends_with_its_bridge() -> None:
    before = {thread.ident for thread in threading.enumerate()}
    bridge = Bridge(SteppingHost(), debug=True)
    (watching,) = [thread for thread in threading.enumerate() if thread.ident not in before]
    bridge.close()
    watching.join(PATIENCE)
    assert not watching.is_alive()
