"""Races that were met, each made to happen every time."""

from __future__ import annotations

import collections
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventbridge import Bridge, Events, HostUnavailable
from eventbridge.adapters.hosts.select import SelectHost
from eventbridge.core.poller import EpollPoller
from eventbridge.testing import SteppingHost, busy
from tests.support.patience import PATIENCE

R = Events.READABLE


class Interrupted(EpollPoller):
    """A poller in which something happens just before a poll, or just after."""

    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None

    def poll(self, limit: int) -> list[tuple[int, int]]:
        todo, self.before = self.before, None
        if todo is not None:
            todo()
        events = super().poll(limit)
        todo, self.after = self.after, None
        if todo is not None:
            todo()
        return events


@pytest.fixture
def poller() -> Interrupted:
    return Interrupted()


@pytest.fixture
def bridge(poller: Interrupted) -> Any:
    with Bridge(SteppingHost(), poller=poller) as bridge:
        yield bridge


def turn(bridge: Bridge, timeout: float = 0) -> bool:
    host = bridge.host
    assert isinstance(host, SteppingHost)
    return host.step(timeout)


def test_a_deadline_that_passes_just_before_the_poll_is_not_lost(bridge: Bridge, poller: Interrupted) -> None:
    """T1: the poll clears the poller's timer; the time must be read after it."""
    fired: list[int] = []
    reader, writer = os.pipe()
    bridge.add_handle(reader, R, lambda *_: os.read(reader, 1))
    bridge.add_timeout(1, lambda id, opaque: fired.append(id))
    os.write(writer, b"x")
    poller.before = lambda: busy(0.0013)  # past the deadline, and within the pass's budget
    turn(bridge)
    assert fired or turn(bridge, timeout=0.1), "the loop sleeps though a timeout is due"
    os.close(reader), os.close(writer)


def test_a_ghost_met_by_another_thread_just_before_the_poll_reaches_nobody(bridge: Bridge, poller: Interrupted) -> None:
    """H11: what is polled while the ghost is known is not delivered."""
    called: list[int] = []
    old, old_writer = os.pipe()
    new, new_writer = os.pipe()
    ghost = os.dup(old)
    id = bridge.add_handle(old, R, lambda *_: called.append(1))
    other, other_writer = os.pipe()
    bridge.add_handle(other, R, lambda *_: os.read(other, 1))
    os.write(other_writer, b"x")

    def meanwhile() -> None:
        os.dup2(new, old)
        bridge.update_handle(id, 0)
        bridge.update_handle(id, R)
        os.write(old_writer, b"ghost")

    poller.before = lambda: _on_a_thread(meanwhile)
    for _ in range(5):
        turn(bridge)
    assert not called
    for fd in (old, old_writer, new, new_writer, ghost, other, other_writer):
        os.close(fd)


def test_an_event_polled_before_its_number_changed_files_is_dropped(bridge: Bridge, poller: Interrupted) -> None:
    """H5, H11: the poll has it already when another thread puts another file on the number."""
    called: list[int] = []
    old, old_writer = os.pipe()
    new, new_writer = os.pipe()
    id = bridge.add_handle(old, R, lambda *_: called.append(1))
    os.write(old_writer, b"x")

    def meanwhile() -> None:
        os.dup2(new, old)
        bridge.update_handle(id, 0)
        bridge.update_handle(id, R)

    poller.after = lambda: _on_a_thread(meanwhile)
    for _ in range(5):
        turn(bridge)
    assert not called
    for fd in (old, old_writer, new, new_writer):
        os.close(fd)


def test_an_event_polled_before_its_number_changed_files_reaches_none_of_several_handles(
    bridge: Bridge, poller: Interrupted
) -> None:
    """H5, H4: another thread removes two handles that share the number, and two more share its next file."""
    called: list[int] = []
    number, writer = os.pipe()
    os.close(writer)
    other, others_writer = os.pipe()
    ids = [bridge.add_handle(number, R, lambda *_: None) for _ in range(2)]

    def reuse() -> None:
        for id in ids:
            bridge.remove_handle(id)
        os.dup2(other, number)
        ids[:] = [bridge.add_handle(number, R, lambda id, *_: called.append(id)) for _ in range(2)]

    turn(bridge)
    poller.after = reuse
    turn(bridge)
    turn(bridge)
    assert called == [], "the hang-up was the old file's"
    os.write(others_writer, b"!")
    turn(bridge)
    assert called == ids
    for fd in (number, other, others_writer):
        os.close(fd)


def test_a_removal_between_the_poll_and_the_call_is_kept(bridge: Bridge, poller: Interrupted) -> None:
    """H6: from another thread."""
    called: list[int] = []
    reader, writer = os.pipe()
    id = bridge.add_handle(reader, R, lambda *_: called.append(1))
    os.write(writer, b"x")
    poller.after = lambda: _on_a_thread(lambda: bridge.remove_handle(id))
    turn(bridge)
    turn(bridge)
    assert not called
    os.close(reader), os.close(writer)


def test_work_added_by_another_thread_at_any_point_of_a_pass_wakes_the_loop(
    bridge: Bridge, poller: Interrupted
) -> None:
    """D6: before the poll, after it, and in the last callback, with nothing else to wake for."""
    reader, writer = os.pipe()
    in_callback: list[Callable[[], None]] = []

    def read(id: int, fd: int, events: int, opaque: Any) -> None:
        os.read(fd, 1)
        for call in in_callback:
            call()

    bridge.add_handle(reader, R, read)
    for place in ("before", "after", "callback"):
        freed: list[Any] = []
        id = bridge.add_timeout(-1, lambda *_: None, None, freed.append)
        remove = functools.partial(_on_a_thread, functools.partial(bridge.remove_timeout, id))
        if place == "callback":
            in_callback.append(remove)
        else:
            setattr(poller, place, remove)
        os.write(writer, b"x")
        for _ in range(3):
            turn(bridge)
        assert freed == [None], place
    os.close(reader), os.close(writer)


def test_a_finalizer_inside_a_locked_line_may_remove_a_handle(bridge: Bridge, poller: Interrupted) -> None:
    """D6: a collection may run a destructor that calls the hooks, on the very thread that holds the lock."""
    reader, writer = os.pipe()
    first = bridge.add_handle(reader, R, lambda *_: None)
    add = poller.add

    def adding(fd: int, bits: int) -> None:
        poller.add = add  # type: ignore[method-assign]  # once
        bridge.remove_handle(first)
        add(fd, bits)

    poller.add = adding  # type: ignore[method-assign]
    second = bridge.add_handle(writer, Events.WRITABLE, lambda *_: None)
    assert second > first
    assert bridge.stats().handles == 1
    os.close(reader), os.close(writer)


def test_the_same_deadline_removed_and_set_again_is_armed_again(bridge: Bridge) -> None:
    """T2: what the poller was armed for has gone; a later deadline must not be thought covered by it."""
    fired: list[int] = []
    first = bridge.add_timeout(1, lambda id, opaque: fired.append(id))
    bridge.remove_timeout(first)
    busy(0.002)
    second = bridge.add_timeout(5, lambda id, opaque: fired.append(id))
    for _ in range(10):
        turn(bridge, timeout=0.1)
        if fired:
            break
    assert fired == [second]


def _on_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_thread_that_is_held_up_while_it_arms_loses_no_timeout() -> None:
    """T2, D6: the poller's timer may fire before the thread that armed it has done anything more."""
    fired = threading.Event()

    class SlowToReturn(EpollPoller):
        def arm(self, deadline: int) -> None:
            super().arm(deadline)
            if threading.current_thread() is not threading.main_thread():
                while not bridge._dispatcher.passes:
                    bridge.host.step(1)  # type: ignore[attr-defined]  # the loop turns meanwhile

    with Bridge(SteppingHost(), poller=SlowToReturn()) as bridge:
        timer = bridge.add_timeout(-1, lambda id, opaque: fired.set())
        _on_a_thread(lambda: bridge.update_timeout(timer, 1))
        turn(bridge, timeout=0.1)
        assert fired.is_set()


def test_a_loop_that_is_closed_while_another_thread_wakes_it_is_woken_or_refuses() -> None:
    """D8: never does a wake-up go to an fd that is closed by then, or is somebody else's."""

    class ClosedMeanwhile(collections.deque[Any]):
        def append(self, step: Any) -> None:
            super().append(step)
            closing.start()
            closing.join(0.05)  # as far as it gets

    host = SelectHost()
    closing = threading.Thread(target=host.close)
    host._soon = ClosedMeanwhile()
    host.call_soon_threadsafe(lambda: None)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    with pytest.raises(HostUnavailable):
        host.call_soon_threadsafe(lambda: None)
