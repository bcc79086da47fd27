"""While somebody observes a bridge it keeps every rule: the conformance suite, with each bridge of it traced."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventbridge import Bridge, Events
from eventbridge.adapters.hosts.select import SelectHost
from eventbridge.core.bridge import BORN, BridgeCore
from eventbridge.core.dispatcher import Dispatcher
from eventbridge.core.observed import ObservedDispatcher
from eventbridge.core.observer import Observer
from eventbridge.core.origin import Origin
from eventbridge.diagnosis.tracing import Trace
from eventbridge.stress.loops import bridge_on
from eventbridge.testing import HostConformance, SteppingHost
from tests.support.patience import PATIENCE

R = Events.READABLE


class TestSelectTraced(HostConformance):
    own_thread = False

    @pytest.fixture(autouse=True)
    def _traced(self) -> Iterator[None]:
        def begin(bridge: BridgeCore) -> None:
            Trace(bridge, 1000, pulse_seconds=None).start()

        BORN.append(begin)
        yield
        BORN.remove(begin)

    @pytest.fixture
    def make_host(self) -> Callable[[], SelectHost]:
        return SelectHost


class Heard(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Origin, int, int]] = []
        self.passes: list[tuple[int, int]] = []
        self.freed_count = 0
        self.failures: list[tuple[BaseException, Origin]] = []

    def passed(self, began: int, ended: int, depth: int, callbacks: int) -> None:
        assert began <= ended
        self.passes.append((depth, callbacks))

    def called(self, whose: Origin, began: int, ended: int, events: int, deadline: int) -> None:
        assert began <= ended
        self.calls.append((whose, events, deadline))

    def freed(self, began: int, ended: int, count: int) -> None:
        self.freed_count += count

    def failed(self, error: BaseException, whose: Origin) -> None:
        self.failures.append((error, whose))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_every_callback_pass_and_free_is_told_once(stepping: SteppingHost, heard: Heard, scripted_fd: Any) -> None:
    fd = scripted_fd(content=b"x")
    with Bridge(stepping) as bridge:
        bridge.observe(heard)
        handle = bridge.add_handle(fd.fileno(), R, fd.callback)
        off = bridge.add_handle(fd.fileno(), 0, lambda *_: pytest.fail("turned off"))
        timeout = bridge.add_timeout(0, lambda id, opaque: bridge.remove_timeout(id), None, lambda opaque: None)
        stepping.step_until_idle()
        bridge.unobserve(heard)
        fd.send(b"more")
        stepping.step_until_idle()
    told = [(whose.kind, whose.id, events) for whose, events, _ in heard.calls]
    assert told == [("timeout", timeout, 0), ("handle", handle, R)]
    assert off != handle
    assert heard.freed_count == 1
    assert sum(callbacks for _, callbacks in heard.passes) == 2
    assert heard.failures == []
    assert fd.heard == b"xmore", "what came after it had left was dispatched, and not told"


def test_a_nested_pass_is_told_with_its_depth_and_what_it_took_from_the_outer_one(
    stepping: SteppingHost, heard: Heard
) -> None:
    """D5."""
    fds = [os.eventfd(1), os.eventfd(1)]
    order: list[int] = []

    def ready(id: int, fd: int, events: int, opaque: object) -> None:
        os.eventfd_read(fd)
        order.append(id)
        if len(order) == 1:
            stepping.step()

    with Bridge(stepping) as bridge:
        bridge.observe(heard)
        for fd in fds:
            bridge.add_handle(fd, R, ready)
        stepping.step_until_idle()
    assert len(order) == 2
    assert [whose.id for whose, _, _ in heard.calls] == order[::-1], "the outer one's callback ended last"
    assert (1, 1) in heard.passes and (0, 2) in heard.passes
    for fd in fds:
        os.close(fd)


def test_a_callback_that_raises_is_told_and_reported_as_ever(stepping: SteppingHost, heard: Heard) -> None:
    """D4."""

    def fails(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        raise ZeroDivisionError

    with Bridge(stepping) as bridge:
        bridge.observe(heard)
        bridge.add_timeout(0, fails)
        stepping.step_until_idle()
    assert [(type(error), whose.kind) for error, whose in heard.failures] == [(ZeroDivisionError, "timeout")]
    assert len(stepping.reported) == len(heard.calls) == 1


def test_a_keyboard_interrupt_leaves_nothing_running(stepping: SteppingHost, heard: Heard) -> None:
    """D4: it goes out through the host; the next pass is as any."""

    def interrupts(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        raise KeyboardInterrupt

    with Bridge(stepping) as bridge:
        bridge.observe(heard)
        bridge.add_timeout(0, interrupts)
        with pytest.raises(KeyboardInterrupt):
            stepping.step_until_idle()
        assert isinstance(bridge._dispatcher, ObservedDispatcher)
        assert bridge._dispatcher.running == 0
        assert len(heard.calls) == len(heard.passes) == 1


def test_it_begins_after_the_pass_in_which_it_is_asked_for(stepping: SteppingHost, heard: Heard) -> None:
    def begin(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        bridge.observe(heard)
        assert type(bridge._dispatcher) is Dispatcher

    with Bridge(stepping) as bridge:
        bridge.add_timeout(0, begin)
        stepping.step_until_idle()
        assert isinstance(bridge._dispatcher, ObservedDispatcher)
        assert heard.calls == []
        bridge.add_timeout(0, lambda id, opaque: bridge.remove_timeout(id))
        stepping.step_until_idle()
        assert len(heard.calls) == 1


def test_another_thread_leaves_the_exchange_to_the_loop_s(heard: Heard) -> None:
    host = SteppingHost()
    with Bridge(host) as bridge:
        host.here = False
        bridge.observe(heard)
        assert type(bridge._dispatcher) is Dispatcher, "this is not the thread to do it"
        host.here = True
        host.step()
        assert isinstance(bridge._dispatcher, ObservedDispatcher)
        assert list(host.watched.values()) == [bridge._dispatcher.run_pass]


def test_who_begins_and_leaves_at_once_on_several_threads_leaves_a_plain_dispatcher() -> None:
    """D6: whoever comes last finds it as it is wanted."""

    def begin_and_leave() -> None:
        for _ in range(50):
            heard = Heard()
            bridge.observe(heard)
            bridge.unobserve(heard)

    with Bridge("select") as bridge:
        threads = [threading.Thread(target=begin_and_leave) for _ in range(4)]
        for thread in threads:
            thread.start()
        bridge.add_timeout(1, lambda id, opaque: None)  # a pass, after which it is looked whether they have ended
        assert bridge.run(until=lambda: not any(thread.is_alive() for thread in threads), timeout=PATIENCE)
        bridge.run(timeout=0.01)  # what they have left for the loop is done
        assert bridge.observers == ()
        assert type(bridge._dispatcher) is Dispatcher


def test_its_move_takes_the_observer_along(stepping: SteppingHost, heard: Heard) -> None:
    """D9."""
    other = SteppingHost()
    with Bridge(stepping) as bridge:
        bridge.observe(heard)
        bridge.move(other)
        bridge.add_timeout(0, lambda id, opaque: bridge.remove_timeout(id))
        other.step_until_idle()
        assert len(heard.calls) == 1
        bridge.unobserve(heard)
        assert type(bridge._dispatcher) is Dispatcher
        assert stepping.watched == {}


@pytest.mark.parametrize("loop", ["asyncio", "libuv", "glib", "trio"])
def test_on_a_real_loop_it_begins_and_ends_while_that_runs(loop: str, heard: Heard) -> None:
    """The host is given another callback for the poller's fd, and then the first one again; it loses no event."""
    with bridge_on(loop) as bridge:
        calls: list[int] = []

        def tick(id: int, opaque: object) -> None:
            calls.append(id)
            if len(calls) == 3:
                bridge.observe(heard)
            if len(calls) == 6:
                bridge.unobserve(heard)

        timeout = bridge.add_timeout(1, tick)
        assert bridge.run(until=lambda: len(calls) >= 9, timeout=PATIENCE)
        bridge.remove_timeout(timeout)
        assert [whose.id for whose, _, _ in heard.calls if whose.owner == "application"] == [timeout] * 2
        assert type(bridge._dispatcher) is Dispatcher


def test_who_is_called_often_is_looked_at_once(stepping: SteppingHost, heard: Heard) -> None:
    with Bridge(stepping) as bridge:
        bridge.observe(heard)
        bridge.add_timeout(0, lambda id, opaque: None)
        for _ in range(3):
            stepping.step()
        assert len({id(whose) for whose, _, _ in heard.calls}) == 1
        assert len(heard.calls) == 3
