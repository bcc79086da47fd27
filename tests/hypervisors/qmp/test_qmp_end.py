"""The end of a QEMU, of its connection, and of ours: told once, in order, and nothing is left waiting."""

from __future__ import annotations

import signal
import threading

import pytest

from eventbridge.errors import ConnectionLost
from tests.support.patience import PATIENCE
from tests.support.qmp_proxy import CuttingProxy
from tests.support.qmp_qemu import NONE, Start, wait_until
from tests.support.qmp_rig import Rig


@pytest.mark.parametrize(
    ("number", "story"),
    [
        (signal.SIGKILL, ["stopped crashed", "connection_lost eof"]),
        (signal.SIGTERM, ["shutdown host", "stopped destroyed", "connection_lost eof"]),
    ],
)
def test_a_qemu_that_is_killed_stops_once(each_rig: Rig, start: Start, number: int, story: list[str]) -> None:
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    qemu.process.send_signal(number)
    opened.told("connection_lost eof")
    each_rig.passes()
    assert opened.story == story
    assert [event.domain is None for event in opened.events] == [False] * (len(story) - 1) + [True]
    assert [event.sequence for event in opened.events] == list(range(1, len(story) + 1))


def test_what_is_under_way_is_refused_when_it_ends(each_rig: Rig, start: Start) -> None:
    """After its end is told; and what is asked later, too, at once."""
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    qemu.freeze()
    asked = [opened.begin(operation) for operation in ("info", "suspend", "list") * 10]
    each_rig.passes()
    qemu.kill()
    for each in asked:
        error = each.error()
        assert isinstance(error, ConnectionLost)
        assert str(error).startswith(f"cannot {each.request.operation} a: {qemu.uri}: QEMU has closed the connection")
        assert len(each.answers) == 1
    assert opened.story == ["stopped crashed", "connection_lost eof"]
    assert isinstance(opened.begin("info").error(), ConnectionLost)


def test_destroy_is_answered_also_where_somebody_else_was_faster(rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    opened = rig.open(qemu.uri)
    qemu.freeze()
    destroying = opened.begin("destroy")
    rig.passes()
    qemu.kill()
    assert destroying.value() is None
    assert opened.story == ["stopped crashed", "connection_lost eof"]


def test_somebody_elses_quit_is_told(rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    opened = rig.open(qemu.uri)
    qemu.side.ask("quit")
    opened.told("connection_lost eof")
    assert opened.story == ["shutdown host", "stopped destroyed", "connection_lost eof"]


def test_a_network_that_is_cut_is_an_end_of_the_connection(each_rig: Rig, start: Start) -> None:
    """Nobody can tell it from QEMU's own end here; who connects anew finds out."""
    qemu = start("a", *NONE)
    with CuttingProxy(str(qemu.path)) as proxy:
        opened = each_rig.open(f"qmp+tcp://127.0.0.1:{proxy.port}")
        qemu.freeze()
        asked = opened.begin("info")
        each_rig.passes()
        proxy.cut()
        assert isinstance(asked.error(), ConnectionLost)
    assert opened.story == ["stopped crashed", "connection_lost eof"]
    qemu.thaw()
    again = each_rig.open(qemu.uri)
    assert again.ask("info").state == "running"


def test_a_message_that_is_cut_off_is_said_to_be(rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    with CuttingProxy(str(qemu.path)) as whole:
        opened = rig.open(f"qmp+tcp://127.0.0.1:{whole.port}")
        opened.session.close()
        rig.passes()
        opening = whole.passed[1]
    with CuttingProxy(str(qemu.path), back=opening + 10) as proxy:
        opened = rig.open(f"qmp+tcp://127.0.0.1:{proxy.port}")
        error = opened.begin("info").error()
    assert "bytes into a message" in str(error)
    assert opened.story == ["stopped crashed", "connection_lost eof"]


def test_close_from_another_thread_waits_for_an_event_that_is_being_told(each_rig: Rig, start: Start) -> None:
    """And after it has returned nothing is told."""
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    telling, closed = threading.Event(), threading.Event()

    def on_event(event: object) -> None:
        telling.set()
        wait_until(lambda: opened.session._closed)
        assert not closed.is_set()

    def close() -> None:
        assert telling.wait(PATIENCE)
        opened.session.close()
        closed.set()

    opened.on_event = on_event
    qemu.side.ask("stop")
    qemu.side.ask("cont")
    each_rig.beside(close)
    each_rig.passes()
    assert closed.is_set()
    assert len(opened.events) == 1


def test_close_within_an_event_is_the_last_of_it(each_rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    opened.on_event = lambda event: opened.session.close()
    for command in ("stop", "cont", "stop"):
        qemu.side.ask(command)
    opened.told("suspended")
    each_rig.passes()
    assert opened.story == ["suspended"]


def test_a_subscriber_that_raises_loses_nothing(rig: Rig, start: Start) -> None:
    """The bridge is told, and the next event comes all the same."""
    qemu = start("a", *NONE)
    opened = rig.open(qemu.uri)

    def on_event(event: object) -> None:
        raise RuntimeError("a subscriber's own")

    opened.on_event = on_event
    for _ in range(10):
        qemu.side.ask("stop")
        qemu.side.ask("cont")
    rig.until(lambda: len(opened.events) == 20)
    assert opened.story == ["suspended", "resumed"] * 10
    rig.until(lambda: len(rig.errors) == 20)
    rig.errors.clear()
    assert opened.ask("info").state == "running"


def test_whoever_raises_at_the_end_keeps_nobody_else_from_being_told(rig: Rig, start: Start) -> None:
    """Neither a subscriber nor one who asked."""
    qemu = start("a", *NONE)
    opened = rig.open(qemu.uri)

    def raises(*arguments: object) -> None:
        raise RuntimeError("a foreigner's own")

    opened.on_event = raises
    qemu.freeze()
    first, second, third = (opened.begin("info") for _ in range(3))
    second.ended = raises  # type: ignore[assignment, method-assign]
    rig.passes()
    qemu.kill()
    assert isinstance(first.error(), ConnectionLost)
    assert isinstance(third.error(), ConnectionLost)
    assert opened.story == ["stopped crashed", "connection_lost eof"]
    rig.until(lambda: len(rig.errors) == 3)
    rig.errors.clear()


def test_a_bridge_that_is_closed_takes_the_session_with_it(start: Start) -> None:
    qemu = start("a", *NONE)
    rig = Rig("select")
    opened = rig.open(qemu.uri)
    qemu.freeze()
    asked = opened.begin("info")
    rig.passes()
    rig.bridge.close()
    assert isinstance(asked.answers[0][1], ConnectionLost)
    late = opened.begin("info")
    assert isinstance(late.answers[0][1], ConnectionLost)
    opened.session.close()
    assert not opened.events
    assert qemu.process.poll() is None


def test_requests_from_many_threads_are_each_answered(each_rig: Rig, start: Start) -> None:
    opened = each_rig.open(start("a", *NONE).uri)

    def ask() -> list[object]:
        asked = [[] for _ in range(8)]  # type: ignore[var-annotated]

        def some(mine: list[object]) -> None:
            mine += [opened.begin("info") for _ in range(50)]

        threads = [threading.Thread(target=some, args=(mine,)) for mine in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [each for mine in asked for each in mine]

    all_of_them = each_rig.beside(ask)
    assert len(all_of_them) == 400
    for each in all_of_them:
        assert each.value().domain.name == "a"
        assert len(each.answers) == 1


def test_other_callbacks_are_called_while_events_pour_in(rig: Rig, start: Start) -> None:
    """A drain has a budget: the loop's other work goes on between, and no event is lost for it."""
    qemu = start("a", *NONE)
    opened = rig.open(qemu.uri)

    def pour() -> None:
        for _ in range(1000):
            qemu.side.ask("stop")
            qemu.side.ask("cont")

    ticks = [0]

    def tick(id: int, opaque: object) -> None:
        ticks[0] += 1

    timeout = rig.bridge.add_timeout(1, tick)
    rig.beside(pour)
    rig.until(lambda: len(opened.events) == 2000)
    rig.bridge.remove_timeout(timeout)
    assert opened.story == ["suspended", "resumed"] * 1000
    assert ticks[0] > 10
