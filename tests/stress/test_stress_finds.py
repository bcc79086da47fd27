"""What `eventbridge stress` has found: each as small as it was shrunk to, or with a stand-in for the chance it took."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import pytest

from eventbridge import Bridge, HostUnavailable
from eventbridge.core.masks import Events
from eventbridge.core.poll_poller import best_poller
from eventbridge.stress import loops, shutdown
from eventbridge.stress.plan import NEW_BRIDGE
from eventbridge.testing import SteppingHost
from eventbridge.testing.fakes.clock import FakeClock
from tests.support import wanted
from tests.support.patience import PATIENCE

R, W = Events.READABLE, Events.WRITABLE


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """What a test opens, closed at its end."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def ready(fds: list[int]) -> int:
    """The reading end of a pipe with something in it."""
    reader, writer = os.pipe()
    fds.extend((reader, writer))
    os.write(writer, b"!")
    return reader


@pytest.mark.parametrize("host", ["select", "libuv", "glib", "qt"])
def test_a_timeout_of_0_set_in_a_callback_wakes_the_loop_that_the_callback_runs(host: str, fds: list[int]) -> None:
    """D5, T2: nobody wrote the wake-up during a pass, so a nested loop with nothing else to do slept."""
    outcomes: list[bool] = []
    try:
        bridging = loops.bridge_on(host)
        bridge = bridging.__enter__()
    except HostUnavailable as error:
        wanted.absent(str(error))

    def nest(id: int, fd: int, events: int, opaque: object) -> None:
        bridge.remove_handle(id)
        bridge.add_timeout(0, lambda *_: bridge.stop())
        outcomes.append(bridge.run(timeout=PATIENCE))

    bridge.add_handle(ready(fds), R, nest)
    bridge.run(until=lambda: bool(outcomes), timeout=2 * PATIENCE)
    bridging.__exit__(None, None, None)
    assert outcomes == [True], "only its own timeout woke it"


def test_a_timeout_that_comes_due_in_a_pass_inside_its_own_callback_is_not_lost() -> None:
    """D5, T1: it was taken off the heap, passed over because its callback runs further out, and never put back."""
    clock = FakeClock()
    calls: list[int] = []
    with clock.installed(), Bridge("select") as bridge:

        def nest(id: int, opaque: object) -> None:
            calls.append(id)
            if len(calls) > 1:
                return
            clock.advance(ms=1)
            bridge.add_timeout(0, lambda other, _: (bridge.remove_timeout(other), bridge.stop()))
            bridge.run()

        bridge.add_timeout(1, nest)
        clock.advance(ms=1)
        assert bridge.run(until=lambda: bool(calls))
        clock.advance(ms=1)
        turns = bridge.add_timeout(0, lambda *_: None)
        passes = bridge.stats().passes
        bridge.run(until=lambda: bridge.stats().passes >= passes + 3)
        bridge.remove_timeout(turns)
    assert len(calls) >= 2
    assert len(set(calls)) == 1


def test_what_two_exits_have_left_undone_is_done_in_the_next_pass(stepping: SteppingHost, clock: FakeClock) -> None:
    """D2, D4: a timeout's SystemExit left the round unfinished, a free's that nobody was told so: the other timeout was
    called when something else woke the loop, or never.
    """

    def leave(*_: object) -> None:
        raise SystemExit

    called: list[int] = []
    with Bridge(stepping) as bridge:
        bridge.add_timeout(1, leave)
        bridge.remove_timeout(bridge.add_timeout(-1, leave, None, leave))
        bridge.add_timeout(1, lambda id, opaque: called.append(id))
        clock.advance(ms=1)
        with pytest.raises(SystemExit):
            stepping.step()
        assert called == []
        assert stepping.step(), "there is more to do, and the loop knows"
        assert len(called) == 1


def test_a_closed_fd_is_refused_also_where_another_handle_is_on_its_number(fds: list[int]) -> None:
    """H1, H4: with a mask of 0 nothing was to be armed, so nobody looked whether it is open."""
    reader, writer = os.pipe()
    fds.append(writer)
    with Bridge("select") as bridge:
        first = bridge.add_handle(reader, R, lambda *_: None)
        os.close(reader)
        with pytest.raises(OSError, match="is not open"):
            bridge.add_handle(reader, 0, lambda *_: None)
        assert bridge.stats().handles == 1
        bridge.remove_handle(first)


def test_a_handle_turned_on_hears_of_its_file_where_another_was_on_the_number_before(fds: list[int]) -> None:
    """H11: the number's mask stayed the same, so the poller was not told, and the new file never armed."""
    reader, writer = os.pipe()
    os.close(writer)
    heard: list[int] = []
    with Bridge("select") as bridge:
        bridge.add_handle(reader, R, lambda *_: None)
        os.close(reader)
        new_reader, writer = os.pipe()
        fds.extend((new_reader, writer))
        assert new_reader == reader
        handle = bridge.add_handle(new_reader, 0, lambda id, fd, events, _: (heard.append(events), bridge.stop()))
        bridge.update_handle(handle, R)
        os.write(writer, b"!")
        assert bridge.run(timeout=PATIENCE)
    assert heard == [R]


def test_a_handle_turned_on_by_another_on_its_number_is_not_told_what_the_other_was_told_of_a_ghost(
    fds: list[int], stepping: SteppingHost
) -> None:
    """H5, H11: turning it on has shown that the number is another file; its part of the round's event was called all
    the same, as what several handles share is dealt out under numbers of its own.
    """
    heard: list[tuple[str, int]] = []
    number = ready(fds)
    with Bridge(stepping) as bridge:

        def turn_on(id: int, fd: int, events: int, opaque: object) -> None:
            heard.append(("first", len(bridge._registry.handles)))
            bridge.update_handle(second, R)

        bridge.add_handle(number, R, turn_on)
        second = bridge.add_handle(number, 0, lambda id, fd, events, opaque: heard.append(("second", events)))
        fds.append(os.dup(number))
        reader, writer = os.pipe()
        fds.extend((reader, writer))
        os.dup2(reader, number)
        stepping.step()
        stepping.step()
        assert heard == [("first", 2)], "of the ghost, of which there was no sign until then"
        os.write(writer, b"!")
        stepping.step()
        assert heard[1:] == [("first", 2), ("second", R)]


@pytest.mark.parametrize("host", ["select", "asyncio"])
def test_ghosts_are_left_behind_also_when_no_fd_is_to_be_had(host: str, fds: list[int]) -> None:
    """H11: the fresh epoll object failed with EMFILE, out of the pass, which lost the watch or ended the loop."""
    heard: list[object] = []
    reader, writer = os.pipe()
    fds.append(writer)
    other = ready(fds)
    os.write(writer, b"!")
    fds.append(os.dup(reader))  # which keeps the closed file alive
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with loops.bridge_on(host, lambda error, _: heard.append(error)) as bridge:

        def starve(id: int, fd: int, events: int, opaque: object) -> None:
            bridge.remove_handle(id)
            resource.setrlimit(resource.RLIMIT_NOFILE, (reader, limits[1]))  # the lowest that is free, once closed
            os.close(reader)
            bridge.remove_handle(ghost)
            bridge.add_timeout(0, go_on)

        def go_on(id: int, opaque: object) -> None:
            bridge.remove_timeout(id)
            heard.append("went on")
            bridge.stop()

        ghost = bridge.add_handle(reader, R, lambda *_: None)
        bridge.add_handle(other, R, starve)
        try:
            assert bridge.run(timeout=PATIENCE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert heard == ["went on"]


class ComesIn:
    """A stand-in for a signal's handler, or a finalizer: does something when a function is called, once."""

    def __init__(self, original: Callable[..., Any], act: Callable[[], object]) -> None:
        self._original, self._act = original, act
        self._came = False

    def __call__(self, *args: Any) -> Any:
        if not self._came:
            self._came = True
            self._act()
        return self._original(*args)


def test_a_handler_that_adds_a_handle_within_an_add_gets_an_id_of_its_own(fds: list[int]) -> None:
    """H1, D6: both were given the same id, and the one that was removed was then the other."""
    one, other = ready(fds), ready(fds)
    ids: list[int] = []
    with Bridge("select") as bridge:
        table = bridge._registry.table
        table.join = ComesIn(table.join, lambda: ids.append(bridge.add_handle(other, R, lambda *_: None)))  # type: ignore[method-assign]
        ids.append(bridge.add_handle(one, R, lambda *_: None))
        assert len(set(ids)) == 2
        assert bridge.stats().handles == 2


def test_a_handler_that_reuses_a_number_while_ghosts_are_left_behind_makes_no_new_one(
    fds: list[int], stepping: SteppingHost
) -> None:
    """H11, D6: the fresh poller knew the file before, under the number of the next, and nothing of the next."""
    heard: list[tuple[str, int]] = []
    old, haunted = ready(fds), ready(fds)

    def reuse() -> None:
        bridge.remove_handle(first)
        fds.append(os.dup(old))
        os.dup2(ready(fds), old)
        os.set_blocking(old, False)
        bridge.add_handle(old, R, lambda id, fd, events, opaque: heard.append(("new", len(os.read(fd, 9)))))

    def leave_a_ghost() -> None:
        id = bridge.add_handle(haunted, R, lambda *_: None)
        fds.append(os.dup(haunted))
        os.dup2(ready(fds), haunted)
        bridge.remove_handle(id)
        bridge.remove_handle(bridge.add_handle(haunted, R, lambda *_: None))

    poller = best_poller()
    with Bridge(stepping, poller=poller) as bridge:
        first = bridge.add_handle(old, R, lambda *_: heard.append(("old", 0)))
        came_in = ComesIn(lambda: None, reuse)
        rebuild = poller.rebuild

        def meddled_with(armed: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
            yield from armed
            came_in()

        poller.rebuild = lambda armed: rebuild(meddled_with(armed))  # type: ignore[method-assign]
        leave_a_ghost()
        for _ in range(5):
            stepping.step()
        assert (heard, stepping.reported) == ([("new", 1)], []), "the old one's event was told"
        assert stepping.step_until_idle() == 0


def test_a_handler_that_sets_an_earlier_timeout_within_another_is_not_overruled() -> None:
    """T2, D6: the timer was armed for the later one last."""
    clock = FakeClock()
    with clock.installed(), Bridge("select") as bridge:
        registry = bridge._registry
        earlier = ComesIn(registry._set_look_at, lambda: bridge.add_timeout(5, lambda *_: None))
        registry._set_look_at = earlier  # type: ignore[method-assign]
        bridge.add_timeout(50, lambda *_: None)
        assert clock.deadline == clock.now + 5_000_000


def test_a_handler_that_removes_a_handle_while_a_pass_ends_does_not_end_it(fds: list[int]) -> None:
    """D6: the frees that are owed were looked through, and changed meanwhile: RuntimeError, out of the pass."""
    freed: list[str] = []
    errors: list[BaseException] = []
    fd = ready(fds)
    with Bridge("select", on_error=lambda error, _: errors.append(error)) as bridge:
        kept = [bridge.add_handle(fd, 0, lambda *_: None, str(n), freed.append) for n in range(3)]

        def nest(id: int, opaque: object) -> None:
            bridge.remove_timeout(id)  # so that there is a free that waits for this to return
            bridge.add_timeout(0, lambda other, _: (bridge.remove_timeout(other), bridge.stop()))
            sys.settrace(tracing)
            try:
                bridge.run()
            finally:
                sys.settrace(None)
            bridge.stop()

        def tracing(frame: FrameType, event: str, argument: object) -> Any:
            if frame.f_code.co_name == "<genexpr>" and frame.f_back and frame.f_back.f_code.co_name == "_more_to_do":
                if kept:
                    bridge.remove_handle(kept.pop())
                return None
            return tracing

        bridge.add_timeout(1, nest, "nest", freed.append)
        bridge.run(timeout=PATIENCE)
        for handle in kept:
            bridge.remove_handle(handle)
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert sorted(freed) == ["0", "1", "2", "nest"]
    assert not errors


class StoppedJustBefore:
    """A loop that another thread stops when it is about to run."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._loop: Any = bridge.host.loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def run_forever(self) -> None:
        stopping = threading.Thread(target=self._bridge.stop)
        stopping.start()
        stopping.join()
        self._bridge.host.loop = self._loop
        self._loop.run_forever()


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "tornado", "gbulb", "qasync"])  # rloop leaves its sockets open
def test_a_stop_that_comes_when_the_loop_is_about_to_run_is_kept(name: str) -> None:
    """gbulb's forgot it, and as it was not asked to stop twice, ran for ever."""
    try:
        bridging = loops.bridge_on(name)
        bridge = bridging.__enter__()
    except HostUnavailable as error:
        wanted.absent(str(error))
    bridge.host.loop = StoppedJustBefore(bridge)
    try:
        assert bridge.run(timeout=PATIENCE), "its timeout came first"
    finally:
        bridging.__exit__(None, None, None)


def on_a_context_of_its_own() -> Bridge:
    """The default one is Qt's where there is a Qt application."""
    return Bridge(wanted.adapter("glib").GlibHost(apart=True))


@pytest.mark.usefixtures("gevent_leaves")
@pytest.mark.parametrize("name", ["select", "libuv", "glib", "gevent", "trio", "twisted", "qt"])
@pytest.mark.parametrize("knows", [False, True], ids=["asked before", "asks then"])
def test_a_stop_that_comes_when_a_run_begins_is_kept(name: str, knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, which asks then who runs the loop, or was told just before that nobody does.  GLib's was an
    IndexError there, and the run went on.
    """
    with on_a_context_of_its_own() if name == "glib" else loops.bridge_on(name) as bridge:
        host: Any = bridge.host
        begins = "run_once" if name == "select" else "run_loop"
        begin, stop = getattr(host, begins), bridge.stop if knows else host.stop

        def stopped_by_another() -> None:
            monkeypatch.setattr(host, begins, begin)
            stopping = threading.Thread(target=stop)
            stopping.start()
            stopping.join()
            begin()

        monkeypatch.setattr(host, begins, stopped_by_another)
        assert bridge.run(timeout=PATIENCE), "its timeout came first"


def test_who_asks_whose_a_glib_context_is_keeps_nobody_from_running_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask is to take it for a moment, which is a long one here."""
    held, refused = threading.Event(), threading.Event()
    with on_a_context_of_its_own() as bridge:
        host: Any = bridge.host
        release = type(host.loop).release

        def slowly(context: Any) -> None:
            if threading.current_thread() is asking:
                held.set()
                refused.wait(0.2)
            release(context)

        monkeypatch.setattr(type(host.loop), "release", slowly)
        asking = threading.Thread(target=host.is_loop_thread)
        asking.start()
        assert held.wait(PATIENCE)
        try:
            bridge.run(timeout=0.001)
        finally:
            refused.set()
            asking.join()


def test_a_loop_that_was_stopped_is_not_run_again_before_it_has_ended() -> None:
    """qasync's does not say that it is running then; Qt said so, on standard error, and the run returned at once."""
    wanted.installed("qasync")  # not imported here: it would take another binding of Qt's than is loaded
    refused: list[HostUnavailable] = []
    with loops.bridge_on("qasync") as bridge:

        def again(id: int, opaque: object) -> None:
            bridge.remove_timeout(id)
            bridge.stop()
            try:
                bridge.run(timeout=PATIENCE)
            except HostUnavailable as error:
                refused.append(error)

        bridge.add_timeout(1, again)
        bridge.run(timeout=PATIENCE)
    assert len(refused) == 1


def test_a_glib_source_that_is_left_says_nothing_at_the_end() -> None:
    """PyGObject destroys it when nothing can be imported any more, and could not find how."""
    wanted.module("gi")
    assert shutdown.end(NEW_BRIDGE, "glib", "the end of main before any run") == ""
