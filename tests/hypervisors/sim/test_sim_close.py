"""The end of a simulation: nothing is emitted afterwards, and no fd is left, whoever closes it and when."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sim_watch import PATIENCE, Watched

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim.driver import driver
from eventbridge.errors import BridgeClosed
from tests.support.descriptors import open_fds

Watch = Callable[..., Watched]


def quiet_after(watched: Watched) -> bool:
    """Give it the chance to emit more."""
    told = len(watched.events)
    watched.bridge.run(timeout=0.05)
    return len(watched.events) == told


def test_closing_in_the_middle_ends_it_at_once(watch: Watch) -> None:
    """Nothing is emitted after close() returns; twice is once."""
    before = open_fds()
    watched = watch("domains=300&rate=50000")
    watched.until(100)
    watched.subscription.close()
    watched.subscription.close()
    assert quiet_after(watched)
    assert len(open_fds()) <= len(before) + 7, "but for the bridge's own: the poller's, its spare, and the host's"
    assert watched.bridge.is_empty()
    assert not watched.errors


def test_it_may_be_closed_by_the_receiver_of_an_event(watch: Watch) -> None:
    """Within emit, on the loop's thread; the event in hand is the last."""

    def emit(event: object) -> None:
        watched.events.append(event)
        if len(watched.events) == 50:
            watched.subscription.close()

    watched = watch("domains=300&rate=50000", emit=emit)
    watched.until(50)
    assert quiet_after(watched)
    assert len(watched.events) == 50
    assert not watched.errors


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select"])
def test_another_thread_may_open_and_close_it_while_the_loop_runs(watch: Watch, host: str) -> None:
    """No event is emitted after close() has returned there."""
    watched = watch("events=0", host)
    late: list[object] = []
    closed = threading.Event()

    def emit(event: object) -> None:
        (late if closed.is_set() else watched.events).append(event)

    def other() -> None:
        for _ in range(20):
            told = len(watched.events)
            closed.clear()
            subscription = driver.subscribe("sim:///default?domains=120&rate=50000", watched.bridge, emit)
            while len(watched.events) < told + 200 and watched.bridge.stats().errors == 0:
                closed.wait(0.001)
            subscription.close()
            closed.set()

    watched.run_beside(other)
    assert not late
    assert not watched.errors
    assert len(watched.events) >= 20 * 200


def test_close_waits_for_the_event_that_is_being_emitted(watch: Watch) -> None:
    """From another thread: when it returns, emit has."""
    entered, leave, order = threading.Event(), threading.Event(), []

    def emit(event: object) -> None:
        entered.set()
        leave.wait(PATIENCE)
        order.append("emitted")

    def other() -> None:
        entered.wait(PATIENCE)
        threading.Timer(0.02, leave.set).start()
        watched.subscription.close()
        order.append("closed")

    watched = watch("rate=1000&domains=2", emit=emit)
    watched.run_beside(other)
    assert order == ["emitted", "closed"]


def test_a_bridge_that_is_closed_takes_it_along() -> None:
    """D8: no fd is left, and close() afterwards does nothing."""
    before = open_fds()
    bridge = Bridge("select")
    subscription = driver.subscribe("sim:///default?domains=20&rate=1000", bridge, lambda event: None)
    bridge.close()
    assert open_fds() == before
    subscription.close()


def test_a_closed_bridge_is_refused_and_nothing_is_left() -> None:
    """Nothing half-registered, no fd open."""
    before = open_fds()
    bridge = Bridge("select")
    bridge.close()
    with pytest.raises(BridgeClosed, match="make a new one"):
        driver.subscribe("sim:///default", bridge, lambda event: None)
    assert open_fds() == before


def test_a_receiver_that_fails_is_reported_and_misses_nothing(watch: Watch) -> None:
    """D4: contained; the next events come all the same."""

    def emit(event: object) -> None:
        watched.events.append(event)
        if len(watched.events) % 7 == 0:
            raise RuntimeError("the receiver's own")

    watched = watch("domains=30&rate=50000&events=700", emit=emit)
    watched.until(700)
    assert [event.sequence for event in watched.events] == list(range(1, 701))
    assert [str(error) for error in watched.errors] == ["the receiver's own"] * 100
