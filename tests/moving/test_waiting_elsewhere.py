"""D9: tasks of a loop that the bridge has left go on to wait for what is its, and are told, on their own loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import eventbridge
from eventbridge import Bridge, HostUnavailable
from eventbridge.adapters.hypervisors.sim import simulation
from eventbridge.connection.event_stream import LAGGED
from eventbridge.core.host_lookup import awaiting
from eventbridge.core.waker import Bell
from tests.moving.office import NAME, Office
from tests.moving.stepped_host import StandIn
from tests.moving.travelling import FAST, SLOW
from tests.support import wanted
from tests.support.patience import PATIENCE


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    with ExitStack() as stack:
        yield Office(request.param, stack)


async def value(awaitable: Any) -> Any:
    return await awaitable


def test_a_call_that_is_awaited_is_answered_after_the_move(office: Office) -> None:
    """D9: on the task's own thread."""
    office.simulation.freeze()
    call = office.connection.domains()
    task = office.task(lambda: value(call))
    office.leave()
    assert not task.ended
    office.simulation.thaw()
    assert len(task.result()) == 3


def test_a_call_that_is_begun_after_the_move_can_be_awaited_too(office: Office) -> None:
    """D9: where the task runs is found out."""
    office.leave()
    assert len(office.task(lambda: value(office.connection.domains())).result()) == 3


def test_drain_ends_after_the_move(office: Office) -> None:
    """D8, D9: once what is on the bridge is gone, whoever serves that."""
    bridge = Bridge(office.home.host)
    kept = bridge.add_timeout(-1, print)
    task = office.task(lambda: bridge.drain(PATIENCE))
    bridge.move(office.away.host)
    office.home.do(lambda: None)
    office.away.do(lambda: None)
    later = office.task(lambda: bridge.drain(PATIENCE))
    assert not task.ended and not later.ended
    bridge.remove_timeout(kept)
    assert task.result() is True and later.result() is True
    bridge.move(StandIn("to be closed with it"))
    office.away.do(bridge.close)


def test_a_stream_is_read_by_a_task_of_the_old_loop(office: Office) -> None:
    """D9: every event once, in order, though they are put by another thread."""
    stream = office.home.do(office.connection.events)

    async def read() -> list[int]:
        seen: list[int] = []
        async for event in stream:
            seen.append(event.sequence)
            if len(seen) == 400:
                break
        stream.close()
        return seen

    task = office.task(read)
    office.simulation.do("start", NAME)
    office.leave()
    for _ in range(200):
        office.simulation.do("suspend", NAME)
        office.simulation.do("resume", NAME)
    seen = task.result()
    assert seen == list(range(seen[0], seen[0] + 400))
    office.away.do(lambda: None)
    assert stream not in office.connection._streams


def test_a_reader_of_the_old_loop_that_did_not_keep_up_is_told_the_difference(office: Office) -> None:
    """D9: which is looked up where the domains' state belongs, on the bridge's own thread."""
    stream = office.home.do(lambda: office.connection.events(limit=2))
    office.leave()
    for operation in ("start", "suspend", "resume", "destroy"):
        office.simulation.do(operation, NAME)
    office.connection.domains().result(PATIENCE)  # told by now

    async def read() -> list[tuple[str, str | None, bool]]:
        return [(str(event.kind), event.reason, event.synthetic) for event in [await anext(stream) for _ in range(4)]]

    told = office.task(read).result()
    assert [kind for kind, *_ in told] == ["started", "suspended", "other", "stopped"] and told[2][1] == LAGGED
    assert [synthetic for *_, synthetic in told] == [False, False, True, True]
    assert stream.missed == 2
    office.away.do(stream.close)


def test_the_end_of_a_stream_reaches_a_task_of_the_old_loop(office: Office) -> None:
    """D9: also of one that waits."""
    stream = office.home.do(office.connection.events)

    async def read() -> list[Any]:
        return [event async for event in stream]

    task = office.task(read)
    office.leave()
    assert not task.ended
    office.connection.close().result(PATIENCE)
    assert task.result() == []


def test_the_progress_of_a_job_reaches_a_task_of_the_old_loop(office: Office) -> None:
    """D9: to its end."""
    office.simulation.do("start", NAME)
    there = eventbridge.open(office.connection.uri.replace("elsewhere", "there"), office.bridge, audit=None)
    there.opened.result(PATIENCE)
    far = simulation.simulation_of(there.uri)
    for info in far.domains():
        far.do("undefine", info.domain.name)
    domain = office.domain()
    call = domain.migrate(there, bandwidth=SLOW)

    async def follow() -> list[int]:
        return [progress.processed async for progress in call]

    task = office.task(follow)
    office.leave()
    assert not task.ended
    domain.set_bandwidth(FAST).result(PATIENCE)
    processed = task.result()
    assert processed and processed == sorted(set(processed))
    call.result(PATIENCE)
    there.close().result(PATIENCE)
    simulation.forget(far.world.parameters.world or "")


def test_a_greenlet_waits_for_a_call_across_the_move() -> None:
    """D9: gevent's hub is not to be touched by another thread."""
    with ExitStack() as stack:
        office = Office("gevent", stack)
        spawn = wanted.module("gevent").spawn
        office.simulation.freeze()
        call = office.connection.domains()
        ended = threading.Event()
        results: list[Any] = []

        def wait() -> None:
            results.append(call.result(PATIENCE))
            ended.set()

        office.home.do(lambda: spawn(wait) and None)
        office.home.do(lambda: None)
        office.leave()
        assert not ended.is_set()
        office.simulation.thaw()
        assert ended.wait(PATIENCE) and len(results[0]) == 3


def test_waiting_where_there_are_no_tasks_is_one_clear_error_at_once() -> None:
    """AwaitingHost: neither the bridge's loop has any, nor does a loop run here."""
    with (
        Bridge("select") as bridge,
        pytest.raises(HostUnavailable, match="the select host has no tasks to wait in: do"),
    ):
        awaiting(bridge.host, "do")
    with Bridge("asyncio") as bridge:
        bridge.add_timeout(-1, print)
        with pytest.raises(HostUnavailable, match="no task of an asyncio loop"):
            bridge.drain().send(None)


def test_a_bell_is_heard_by_whoever_waits_and_by_nobody_who_has_gone() -> None:
    """One waits at a time; what has come already rings at once."""
    bell = Bell()
    heard: list[str] = []
    bell.ring()
    bell.wait(lambda: heard.append("gave up"), lambda: False)
    bell.wait(lambda: heard.append("waits"), lambda: False)
    assert heard == []
    bell.ring()
    bell.ring()
    assert heard == ["waits"]
    bell.wait(lambda: heard.append("late"), lambda: True)
    assert heard == ["waits", "late"] and not bell.waits
