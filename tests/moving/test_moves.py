"""D9: from where a bridge may be moved, and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eventbridge
from eventbridge import Bridge, BridgeClosed
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hosts.select import SelectHost
from eventbridge.core.masks import Events
from tests.moving.loops import MAIN, Loop, loops, travelling
from tests.moving.stepped_host import StandIn, from_another_thread, in_a_callback
from tests.moving.travelling import OpenSim
from tests.support.patience import PATIENCE

PAIRS = [("asyncio", "select"), ("select", "trio"), ("trio", "glib"), ("glib", "libuv"), ("libuv", "gevent")]
PAIRS += [("gevent", "twisted"), ("twisted", "qt"), ("qt", "uvloop"), ("uvloop", "asyncio")]
R = int(Events.READABLE)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


CALLERS: dict[str, Callable[[Bridge, Loop, Loop, Callable[[], Any]], object]] = {
    "in a callback of the old loop's": lambda bridge, old, new, step: in_a_callback(bridge, step),
    "on the old loop's thread": lambda bridge, old, new, step: old.do(step),
    "on the new loop's thread": lambda bridge, old, new, step: new.do(step),
    "on a third thread": lambda bridge, old, new, step: from_another_thread(step),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_it_may_be_moved_on_any_thread_while_both_loops_run(
    old: str, new: str, caller: str, pipe: tuple[int, int]
) -> None:
    """D9, D1: every byte is read once, and in the end on the new loop's thread."""
    errors: list[Any] = []
    reader, writer = pipe
    with loops(old, new) as stage, travelling(stage[old].start(), errors) as (bridge, witness):
        stage[new].start()
        read: list[bytes] = []

        def ready(id: int, fd: int, events: int, opaque: object) -> None:
            with witness.saw():
                read.append(os.read(fd, 1))

        handle = bridge.add_handle(reader, R, ready)
        sent = [bytes([number]) for number in range(200)]
        os.write(writer, b"".join(sent))
        CALLERS[caller](bridge, stage[old], stage[new], lambda: bridge.move(stage[new].host))
        assert bridge.host is stage[new].host
        witness.until(lambda: len(read) == len(sent) and witness.threads.get(stage[new].thread))
        assert read == sent
        before = witness.threads.get(stage[old].thread)
        ticks = witness.ticks
        witness.until(lambda: witness.ticks > ticks + 2)
        assert witness.threads.get(stage[old].thread) == before, "the old loop serves it no more"
        bridge.remove_handle(handle)
        witness.end()


@pytest.mark.parametrize("name", MAIN)
def test_the_old_host_may_be_closed_right_after_the_move(name: str) -> None:
    """D9: in the callback that moves, and, from another thread, by a call that is left there after it."""
    errors: list[Any] = []
    other = "asyncio" if name == "select" else "select"
    with loops(name, other) as stage, travelling(stage[name].start(), errors) as (bridge, witness):
        home = stage[other].start()

        def move() -> None:
            bridge.move(home.host)
            stage[name].host.close()

        in_a_callback(bridge, move)
        witness.until(lambda: witness.threads.get(home.thread))
        last = Loop(name).start()
        bridge.move(last.host)
        witness.until(lambda: witness.threads.get(last.thread))
        bridge.move(home.host)
        last.host.call_soon_threadsafe(last.host.close)
        before, ticks = witness.threads[home.thread], witness.ticks
        witness.until(lambda: witness.threads[home.thread] > before and witness.ticks > ticks)
        witness.end()
        last.close()


@pytest.mark.parametrize("name", MAIN)
def test_the_new_loop_may_be_started_later(name: str) -> None:
    """D9: the old one runs, and is left by it for nobody; nothing is called until the new one runs."""
    errors: list[Any] = []
    other = "asyncio" if name == "select" else "select"
    with loops(other, name) as stage, travelling(stage[other].start(), errors) as (bridge, witness):
        new = stage[name]
        witness.until(lambda: witness.ticks)
        in_a_callback(bridge, lambda: bridge.move(new.host))
        stage[other].do(lambda: None)
        ticks = witness.ticks
        stage[other].do(lambda: None)
        assert witness.ticks == ticks, "between two loops nobody calls"
        new.start()
        witness.until(lambda: witness.ticks > ticks and witness.threads.get(new.thread))
        witness.end()


def test_a_move_to_where_it_is_does_nothing(three: tuple[StandIn, ...]) -> None:
    """D9: the fd is looked away from at no time."""
    host = three[0]
    with Bridge(host) as bridge:
        host.turn()
        watched = dict(host.watched)
        host.elsewhere.clear()
        bridge.move(host)
        host.turn()
        assert host.watched == watched and not host.elsewhere
    host.turn()


def test_what_is_unwatched_in_a_turn_of_select_is_not_called_in_it() -> None:
    """D1, D9: both were ready when the turn began, and a move is a call on the loop's thread that unwatches."""
    host = SelectHost()
    one, other = os.eventfd(1), os.eventfd(1)
    called: list[int] = []

    def seen(fd: int, rest: int) -> None:
        called.append(fd)
        host.unwatch(rest)

    host.watch(one, lambda: seen(one, other))
    host.watch(other, lambda: seen(other, one))
    host.run_once(0)
    assert len(called) == 1
    host.watch(other if called == [one] else one, lambda: called.append(0))
    host.run_once(0)
    assert called[1:] in ([0, called[0]], [called[0]]), "watched again it is called, by who watches it now"
    host.close()
    os.close(one)
    os.close(other)


def test_the_last_of_two_moves_at_once_says_where_it_goes(three: tuple[StandIn, ...]) -> None:
    """D9: whichever loop turns first, each is touched on its own thread alone, and one watches in the end."""
    for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0), (1, 0, 2)):
        first, second, third = hosts = [StandIn(name) for name in ("first", "second", "third")]
        bridge = Bridge(first)
        first.turn()
        bridge.move(second)
        bridge.move(third)
        for _ in range(3):
            for number in order:
                hosts[number].turn()
        assert [bool(host.watched) for host in hosts] == [False, False, True]
        assert [host.elsewhere for host in hosts] == [[], [], []]
        bridge.close()
        third.turn()
        assert not third.watched


def test_many_moves_at_once_from_many_threads_end_with_one_loop_that_serves() -> None:
    """D9, D1."""
    names = ["asyncio", "select", "glib", "libuv"]
    errors: list[Any] = []
    with loops(*names) as stage, travelling(stage["asyncio"].start(), errors) as (bridge, witness):
        for name in names[1:]:
            stage[name].start()
        together = threading.Barrier(len(names))

        def mover(name: str) -> None:
            for _ in range(25):
                together.wait(PATIENCE)
                bridge.move(stage[name].host)

        movers = [threading.Thread(target=mover, args=(name,)) for name in names]
        for thread in movers:
            thread.start()
        for thread in movers:
            thread.join(PATIENCE)
        last = next(loop for loop in stage.values() if loop.host is bridge.host)
        before = witness.threads.get(last.thread, 0)
        witness.until(lambda: witness.threads.get(last.thread, 0) > before + 2)
        witness.end()


def test_what_the_budget_has_left_of_a_pass_is_called_on_the_new_loop() -> None:
    """D2, D9: each of 600 handles once."""
    fds = [os.eventfd(1) for _ in range(600)]
    errors: list[Any] = []
    with loops("asyncio", "select") as stage, travelling(stage["asyncio"], errors) as (bridge, witness):
        called: list[int] = []
        here: list[int] = []

        def ready(id: int, fd: int, events: int, opaque: object) -> None:
            os.eventfd_read(fd)
            called.append(fd)
            if len(called) == 1:
                bridge.move(stage["select"].host)
            if bridge._berth.serving is stage["asyncio"].host:
                here.append(fd)

        for fd in fds:
            bridge.add_handle(fd, R, ready)
        while len(called) < len(fds):
            assert bridge.run(lambda: len(called) == len(fds), PATIENCE)
        assert sorted(called) == fds
        assert 1 <= len(here) <= 256, "the pass that moves is ended first, and no other is made there"
        witness.end()
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("moves_first", [True, False])
def test_a_close_meets_a_move_and_everything_is_freed_once(moves_first: bool, three: tuple[StandIn, ...]) -> None:
    """D8, D9: and neither loop watches then."""
    first, second, _ = three
    bridge = Bridge(first)
    first.turn()
    freed: list[int] = []
    for number in range(5):
        bridge.add_timeout(-1, print, number, freed.append)
    bridge.move(second)
    if not moves_first:
        bridge.close()
    for _ in range(3):
        first.turn()
        if moves_first:
            bridge.close()
        second.turn()
    assert freed == list(range(5))
    assert not first.watched and not second.watched and not first.elsewhere and not second.elsewhere


def test_closing_while_another_thread_moves_frees_everything_once() -> None:
    """D8, D9, with real loops, forty times."""
    with loops("asyncio", "uvloop") as stage:
        for loop in stage.values():
            loop.start()
        for _ in range(40):
            _close_while_moved(AsyncioHost(stage["asyncio"].host.loop), AsyncioHost(stage["uvloop"].host.loop))


def _close_while_moved(old: AsyncioHost, new: AsyncioHost) -> None:
    bridge = Bridge(old)
    freed: list[int] = []
    bridge.add_timeout(-1, print, 1, freed.append)

    def move() -> None:
        with contextlib.suppress(BridgeClosed):
            bridge.move(new)

    mover = threading.Thread(target=move)
    mover.start()
    bridge.close()
    mover.join(PATIENCE)
    assert bridge._closed.wait(PATIENCE) and freed == [1]


def test_a_step_left_on_a_loop_that_has_ended_holds_up_nothing(three: tuple[StandIn, ...]) -> None:
    """D9: as asyncio.run may end between a move's call and its step."""
    first, second, third = three
    bridge = Bridge(first)
    first.turn()
    bridge.move(second)
    first.soon.clear()
    first.closed = True
    assert not second.soon or not second.watched
    bridge.move(third)
    second.turn()
    third.turn()
    assert third.watched and not second.watched
    bridge.move(second)
    third.soon.clear()
    third.closed = True
    bridge.close()
    second.turn()
    assert bridge._closed.is_set() and not second.watched


def test_run_ends_where_the_bridge_moves_away_and_each_run_keeps_its_condition() -> None:
    """Bridge.run: one thread runs the old loop until something, and another the new."""
    errors: list[Any] = []
    with loops("select", "asyncio") as stage, travelling(stage["select"], errors) as (bridge, witness):
        conditions = {"old": False, "new": False}
        ended: list[str] = []

        def run(name: str, until: str) -> None:
            assert bridge.run(lambda: conditions[until], PATIENCE)
            ended.append(name)
            witness.changed()

        old = threading.Thread(target=run, args=("old", "old"))
        old.start()
        witness.until(lambda: witness.ticks)
        bridge.move(stage["asyncio"].host)
        new = threading.Thread(target=run, args=("new", "new"))
        new.start()
        witness.until(lambda: "old" in ended)
        ticks = witness.ticks
        witness.until(lambda: witness.ticks > ticks + 2)
        assert ended == ["old"], "the other's end did not take the condition of this one's run with it"
        conditions["new"] = True
        witness.until(lambda: ended == ["old", "new"])
        old.join(PATIENCE)
        new.join(PATIENCE)
        witness.end()


def test_a_move_in_a_free_waits_for_the_end_of_the_pass() -> None:
    """H7, D9."""
    errors: list[Any] = []
    with loops("select", "asyncio") as stage, travelling(stage["select"], errors) as (bridge, witness):
        serving: list[Any] = []

        def free(opaque: object) -> None:
            bridge.move(stage["asyncio"].host)
            serving.append(bridge._berth.serving)

        bridge.remove_timeout(bridge.add_timeout(-1, print, None, free))
        bridge.run(lambda: bool(serving), PATIENCE)
        assert serving == [stage["select"].host]
        ticks = witness.ticks
        assert bridge.run(lambda: witness.ticks > ticks, PATIENCE)
        assert bridge._berth.serving is stage["asyncio"].host
        witness.end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_live_connections_go_from_one_asyncio_run_to_the_next() -> None:
    """D9 names it: the loop is closed, and nobody took the bridge off it before."""
    kept: list[Any] = []

    async def until(happened: Callable[[], object]) -> None:
        for _ in range(100_000):
            if happened():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("this never came true")

    async def first() -> None:
        bridge = eventbridge.attach()
        connections = [
            eventbridge.open(uri, bridge, audit=None) for uri in ("sim:///default?domains=6&seed=3", "test:///default")
        ]
        for connection in connections:
            await connection.opened
        events: list[Any] = []
        connections[0].subscribe(events.append)
        await until(lambda: len(events) > 2)
        kept.append((bridge, connections, events, connections[0].domains()))

    async def again(last: bool) -> None:
        bridge, connections, events, call = kept.pop()
        bridge.move(AsyncioHost(asyncio.get_running_loop()))
        seen = len(events)
        assert len(await call) == 6, "asked in the run before, answered in this one"
        assert await connections[1].domains()
        await until(lambda: len(events) > seen + 2)
        assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))
        if last:
            for connection in connections:
                await connection.close()
            assert await bridge.drain(PATIENCE)
            bridge.close()
        else:
            kept.append((bridge, connections, events, connections[0].domains()))

    asyncio.run(first())
    for number in range(3):
        asyncio.run(again(number == 2))


def test_a_simulated_hypervisor_waits_while_no_loop_serves_it() -> None:
    """D9: it is moved to a loop that is run later, by another thread."""
    errors: list[Any] = []
    with loops("select", "trio") as stage, travelling(stage["select"], errors) as (bridge, witness):

        def drive(happened: Callable[[], object]) -> None:
            assert bridge.run(lambda: bool(happened()), PATIENCE)

        sim = OpenSim(witness, drive)
        sim.mark()
        drive(sim.moved_on)
        sim.mark()
        bridge.move(stage["trio"].host)
        told = len(sim.events)
        stage["trio"].start()
        witness.until(sim.moved_on)
        assert len(sim.events) > told
        sim.finish(witness.until)
        witness.end()
