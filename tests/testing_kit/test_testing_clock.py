"""The kit's fake clock: the core believes it, and nothing is left of it afterwards."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.core import bridge, dispatcher, timers
from eventbridge.core.poller import EpollPoller
from eventbridge.testing import FakeClock, SteppingHost
from eventbridge.testing.fakes.clock import ClockPoller

SECOND = 1_000_000_000


@pytest.fixture
def bridged(clock: FakeClock, stepping: SteppingHost) -> Iterator[Bridge]:
    with Bridge(stepping) as bridged:
        yield bridged


def test_time_stands_still_until_it_is_advanced(clock: FakeClock) -> None:
    before = clock.monotonic_ns()
    assert dispatcher.monotonic() == dispatcher.monotonic() == before / SECOND
    clock.advance(s=1, ms=2, us=3, ns=4)
    assert timers.monotonic_ns() == clock.now == before + 1_002_003_004
    assert dispatcher.monotonic() == pytest.approx(clock.now / SECOND)


def test_the_whole_core_has_it_and_the_hosts_have_not(clock: FakeClock) -> None:
    import eventbridge.connection.connection
    import eventbridge.testing.conformance.harness

    for name, module in list(sys.modules.items()):
        apart = (
            "eventbridge.testing",
            "eventbridge.stress",
            "eventbridge.cli",
            "eventbridge.benchmark",
            "eventbridge.adapters.hosts",
        )
        if name.startswith("eventbridge.") and not name.startswith(apart):
            assert time.monotonic not in vars(module).values(), name
            assert time.monotonic_ns not in vars(module).values(), name
    assert eventbridge.connection.connection.time.monotonic() == clock.now / SECOND
    assert eventbridge.connection.connection.time.sleep is time.sleep
    assert eventbridge.testing.conformance.harness.time is time


def test_afterwards_everything_is_as_it_was() -> None:
    before = (timers.monotonic_ns, dispatcher.monotonic, bridge.best_poller)
    with pytest.raises(ZeroDivisionError), FakeClock().installed():
        assert timers.monotonic_ns is not time.monotonic_ns
        1 / 0  # noqa: B018  # that is the test
    assert (timers.monotonic_ns, dispatcher.monotonic, bridge.best_poller) == before
    assert timers.monotonic_ns is time.monotonic_ns
    with Bridge(SteppingHost()) as real:
        assert type(real._poller) is EpollPoller


def test_it_does_not_go_back(clock: FakeClock) -> None:
    before = clock.now
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(ms=1, us=-1001)
    assert clock.now == before


def test_the_earliest_deadline_is_known(clock: FakeClock, bridged: Bridge, stepping: SteppingHost) -> None:
    assert clock.deadline is None
    bridged.add_timeout(50, lambda *_: None)
    bridged.add_timeout(20, lambda *_: None)
    with Bridge(stepping) as other:
        other.add_timeout(10, lambda *_: None)
        assert clock.deadline == clock.now + 10_000_000
    assert clock.deadline == clock.now + 20_000_000, "the closed one's is nobody's"


def test_a_timer_fires_once_and_the_passes_that_there_are_not_are_not_made(
    clock: FakeClock, bridged: Bridge, stepping: SteppingHost
) -> None:
    """Nothing due: the bridge's fd is not readable, and a step has nothing to call."""
    bridged.add_timeout(20, lambda *_: None)
    clock.advance(ms=19)
    assert stepping.step_until_idle() == 0
    clock.advance(ms=1)
    assert stepping.step() is True
    assert stepping.step() is False


def test_a_rebuilt_poller_still_has_it(clock: FakeClock, bridged: Bridge, stepping: SteppingHost) -> None:
    """H11: a closed file that a dup keeps alive has the epoll made anew."""
    fired: list[int] = []
    reader, writer = os.pipe()
    bridged.add_timeout(20, lambda id, opaque: fired.append(clock.now))
    id = bridged.add_handle(reader, 1, lambda *_: fired.append(-1))
    ghost = os.dup(reader)
    os.close(reader)
    bridged.remove_handle(id)
    os.write(writer, b"ghost")
    stepping.step_until_idle()
    assert not fired
    clock.advance(ms=20)
    stepping.step_until_idle()
    assert fired == [clock.now]
    for fd in (ghost, writer):
        os.close(fd)


def test_a_real_loop_that_sleeps_is_woken_by_it(clock: FakeClock) -> None:
    """T2, D6: an hour passes, on another thread, while select(2) waits in this one."""
    fired: list[int] = []
    with Bridge("select") as real:
        real.add_timeout(3_600_000, lambda id, opaque: fired.append(clock.now))
        due = clock.now + 3600 * SECOND
        thread = threading.Thread(target=lambda: clock.advance(s=3600))
        thread.start()
        assert real.run(lambda: bool(fired))
        thread.join()
    assert fired == [due]


def test_a_poller_of_its_own_serves_a_bridge_where_it_is_not_installed() -> None:
    clock = FakeClock(now=1)
    poller = clock.poller()
    assert isinstance(poller, ClockPoller)
    poller.arm(3)
    assert (clock.deadline, poller.poll(10)) == (3, [])
    clock.advance(ns=2)
    assert [fd for fd, _ in poller.poll(10)] == [poller.inner[1]]
    assert (clock.deadline, poller.poll(10)) == (None, [])
    poller.arm(2)  # past, as with a timerfd: at once
    assert [fd for fd, _ in poller.poll(10)] == [poller.inner[1]]
    poller.close()
    poller.close()


def test_time_that_runs_goes_from_deadline_to_deadline(
    clock: FakeClock, bridged: Bridge, stepping: SteppingHost
) -> None:
    fired: list[tuple[int, int]] = []
    start = clock.now
    for ms in (3, 10):
        bridged.add_timeout(ms, lambda id, ms: fired.append((ms, (clock.now - start) // 1_000_000)), ms)
    clock.run(stepping.step_until_idle, ms=10)
    assert fired == [(3, 3), (3, 6), (3, 9), (10, 10)]
    assert clock.now == start + 10_000_000
