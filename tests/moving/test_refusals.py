"""D9: a host that cannot take a bridge leaves it where it was, whole, and the error says so."""

from __future__ import annotations

import os
import resource
import selectors
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from eventbridge import Bridge, HostUnavailable
from eventbridge.adapters.hosts.select import SelectHost
from tests.moving.loops import MAIN, Loop, Witness, loops, travelling
from tests.moving.stepped_host import StandIn, from_another_thread, in_a_callback
from tests.support.patience import PATIENCE


@pytest.mark.parametrize("name", MAIN)
def test_a_closed_host_is_refused_and_the_bridge_stays(name: str) -> None:
    """D9: at once, on whichever thread, and nothing has changed."""
    errors: list[Any] = []
    closed = Loop(name)
    closed.close()
    with loops("select") as stage, travelling(stage["select"].start(), errors) as (bridge, witness):
        refused: list[str] = []

        def move() -> None:
            try:
                bridge.move(closed.host)
            except HostUnavailable as error:
                refused.append(str(error))

        in_a_callback(bridge, move)
        from_another_thread(move)
        assert len(refused) == 2 and all("closed" in words for words in refused)
        assert bridge.host is stage["select"].host
        ticks = witness.ticks
        witness.until(lambda: witness.ticks > ticks + 2)
        witness.end()


@pytest.fixture
def high() -> Iterator[None]:
    """Every fd below 1024 is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"needs 2048 open files, and the hard limit (ulimit -Hn) is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] < 1024:
        taken.append(os.dup(taken[0]))
    yield
    for fd in taken:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("old", ["asyncio", "trio", "glib", "libuv"])
def test_a_host_that_cannot_watch_the_fd_leaves_it_where_it_was(
    old: str, running: bool, request: pytest.FixtureRequest
) -> None:
    """D9: select(2), of an fd of 1024 and more.  Found out on the new loop's own thread it is told to on_error."""
    errors: list[tuple[BaseException, str]] = []
    selector = selectors.SelectSelector()
    host = SelectHost(selector)
    thread = threading.Thread(target=host.run, daemon=True)
    with loops(old) as stage:
        stage[old].start()
        request.getfixturevalue("high")
        bridge = Bridge(stage[old].host, on_error=lambda error, context: errors.append((error, context)))
        witness = Witness(bridge)
        if running:
            thread.start()
            bridge.move(host)
            witness.until(lambda: errors)
            (error, context) = errors.pop()
            assert context == "while it was moved"
        else:
            with pytest.raises(HostUnavailable) as caught:
                stage[old].do(lambda: bridge.move(host))
            error = caught.value
        assert isinstance(error, HostUnavailable)
        assert "select(2) cannot watch fd" in str(error) and f"it stays on the {old} loop" in str(error)
        assert bridge.host is stage[old].host
        ticks = witness.ticks
        witness.until(lambda: witness.ticks > ticks + 2)
        assert set(witness.threads) == {stage[old].thread}
        witness.end()
        bridge.close()
        assert bridge._closed.wait(PATIENCE)
        if running:
            host.call_soon_threadsafe(host.stop)
            thread.join(PATIENCE)
    host.close()
    selector.close()
    assert not errors


def test_a_host_that_refuses_and_an_old_one_that_has_gone_leave_it_to_be_moved_again(
    three: tuple[StandIn, ...],
) -> None:
    """D9: nobody serves it then, which the error says; the next move is as any."""
    first, second, third = three
    told: list[BaseException] = []
    bridge = Bridge(first, on_error=lambda error, context: told.append(error))
    first.turn()
    second.refuses = OSError("no more room")
    bridge.move(second)
    first.turn()
    first.closed = True
    second.turn()
    first.turn()
    assert "no more room" in str(told[0])
    bridge.move(third)
    third.turn()
    assert third.watched and not second.watched
    bridge.close()
    third.turn()


def test_a_bridge_on_its_way_to_its_first_loop_stays_on_it_where_another_refuses(three: tuple[StandIn, ...]) -> None:
    """D9: it has not even arrived there."""
    first, second, _ = three
    told: list[BaseException] = []
    bridge = Bridge(first, on_error=lambda error, context: told.append(error))
    second.refuses = OSError("no more room")
    bridge.move(second)
    for _ in range(2):
        second.turn()
        first.turn()
    assert first.watched and not second.watched and bridge.host is first
    assert "it stays on the first loop" in str(told[0]) and len(told) == 1
    bridge.close()
    first.turn()
