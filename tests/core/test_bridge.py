"""Bridge: attaching, draining, transferring, and every wrong way to begin."""

from __future__ import annotations

import asyncio
import os
import selectors
import subprocess
import sys
import threading
from typing import Any

import pytest

import eventbridge
from eventbridge import Bridge, BridgeClosed, Events, HostUnavailable, UnknownHandle
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hosts.libuv import LibuvHost
from eventbridge.adapters.hosts.select import SelectHost
from eventbridge.core import transfer
from eventbridge.testing import SteppingHost
from tests.support.patience import PATIENCE

R = Events.READABLE


def test_attach_finds_the_loop_that_is_running() -> None:
    async def main() -> str:
        with eventbridge.attach() as bridge:
            assert bridge.host.loop is asyncio.get_running_loop()  # type: ignore[attr-defined]
            return bridge.stats().host

    assert asyncio.run(main()) == "asyncio"


def test_attach_outside_of_a_loop_says_what_to_do() -> None:
    with pytest.raises(HostUnavailable, match=r"no event loop is running.*Bridge\(NAME\).*select"):
        eventbridge.attach()


@pytest.mark.parametrize(
    ("host", "error", "message"),
    [
        ("nosuch", HostUnavailable, "no host loop is called 'nosuch'; there are: asyncio, libuv, select"),
        (42, TypeError, "host must be a name, a HostLoop or None"),
    ],
)
def test_a_wrong_host_is_refused(host: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Bridge(host)


def test_a_closed_loop_is_refused() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(HostUnavailable, match="closed"):
        AsyncioHost(loop)


@pytest.mark.parametrize("host", [AsyncioHost, SelectHost, LibuvHost])
def test_a_loop_of_another_kind_is_refused(host: type) -> None:
    with pytest.raises(TypeError):
        host(object())


def test_select_refuses_an_fd_that_it_would_fail_whole_on() -> None:
    """The bridge's fd at 1024 or above, on select(2)."""
    fds = [os.dup(0) for _ in range(1100)]
    try:
        host = None
        with selectors.SelectSelector() as selector, pytest.raises(HostUnavailable, match="1024"):
            host = SelectHost(selector)
            Bridge(host)
        if host is not None:
            host.close()
    finally:
        for fd in fds:
            os.close(fd)


def test_a_host_that_is_not_ours_to_run_says_so() -> None:
    with Bridge(SteppingHost()) as bridge:
        with pytest.raises(HostUnavailable, match="not ours to run"):
            bridge.run()
        with pytest.raises(HostUnavailable, match="not ours to stop"):
            bridge.stop()


def test_a_running_asyncio_loop_cannot_be_run_by_the_bridge() -> None:
    async def main() -> None:
        with eventbridge.attach() as bridge, pytest.raises(HostUnavailable, match="running already"):
            bridge.run()

    asyncio.run(main())


def test_without_an_error_handler_asyncios_is_told_once() -> None:
    """D4."""

    async def main() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        with eventbridge.attach() as bridge:

            def fail(id: int, opaque: Any) -> None:
                bridge.remove_timeout(id)
                raise ValueError("once")

            bridge.add_timeout(0, fail)
            assert await bridge.drain(5)
        return told

    (context,) = asyncio.run(main())
    assert isinstance(context["exception"], ValueError)
    assert "timeout 1" in context["message"]


def test_an_error_handler_that_fails_does_not_end_the_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """D4."""

    def on_error(error: BaseException, context: str) -> None:
        raise RuntimeError("the handler's own")

    host = SteppingHost()
    with Bridge(host, on_error=on_error) as bridge:
        calls: list[int] = []

        def fail(id: int, opaque: Any) -> None:
            calls.append(id)
            raise ValueError

        bridge.add_timeout(0, fail)
        bridge.add_timeout(0, fail)
        assert host.step_until(lambda: len(calls) >= 2, 10)  # on a busy machine the budget may end a pass between them
        assert calls[:2] == [1, 2]
    assert "the handler's own" in capsys.readouterr().err


def test_drain_waits_for_what_is_registered_and_for_its_free() -> None:
    """D8: several at once; False at the deadline; True at once when there is nothing."""

    async def main() -> list[Any]:
        with eventbridge.attach() as bridge:
            freed: list[Any] = []
            assert await bridge.drain()
            id = bridge.add_timeout(-1, lambda *_: None, None, freed.append)
            assert not await bridge.drain(0.01)
            both = asyncio.gather(bridge.drain(5), bridge.drain(5))
            await asyncio.sleep(0)
            bridge.remove_timeout(id)
            assert await both == [True, True]
            return freed

    assert asyncio.run(main()) == [None]


def test_drain_on_a_host_without_tasks_says_what_to_use() -> None:
    with Bridge("select") as bridge, pytest.raises(HostUnavailable, match="is_empty"):
        bridge.drain().send(None)


def test_a_second_asyncio_run_goes_on_where_the_first_ended() -> None:
    """D9: a bridge outlives its loop, and moves to the next."""
    seen: list[int] = []
    bridges: list[Bridge] = []

    async def first() -> None:
        bridge = eventbridge.attach()
        bridges.append(bridge)
        bridge.add_timeout(200, lambda id, opaque: seen.append(id))  # long enough for a busy machine to end this run

    async def second() -> None:
        bridge = bridges[0]
        bridge.move(AsyncioHost(asyncio.get_running_loop()))
        while len(seen) < 3:
            await asyncio.sleep(0)
        bridge.close()

    asyncio.run(first())
    assert not seen
    asyncio.run(second())
    assert set(seen) == {1}


def test_closing_after_the_loop_was_closed_calls_every_free() -> None:
    """D8: nobody else can any more."""
    freed: list[Any] = []
    bridges: list[Bridge] = []

    async def main() -> None:
        bridges.append(eventbridge.attach())
        bridges[0].add_timeout(-1, lambda *_: None, "opaque", freed.append)

    asyncio.run(main())
    bridges[0].close()
    assert freed == ["opaque"]


def test_transfer_carries_one_librarys_and_leaves_the_rest() -> None:
    """D9: by its free function; ids are kept, and told, where the other bridge has given out none of them."""
    freed: list[Any] = []
    calls: list[Any] = []
    old_host, new_host = SteppingHost(), SteppingHost()
    reader, writer = os.pipe()
    with Bridge(old_host) as old, Bridge(new_host) as new:

        def free(opaque: Any) -> None:
            freed.append(opaque)

        old.add_handle(writer, 0, lambda *_: calls.append("mine"))
        handle = old.add_handle(reader, R, lambda id, *_: calls.append(("handle", id)), "handle", free)
        timeout = old.add_timeout(0, lambda id, opaque: calls.append(("timeout", id)), "timeout", free)
        owed = old.add_timeout(-1, lambda *_: None, "owed", free)
        old.remove_timeout(owed)
        assert old.transfer(new, free) == ({}, {})
        os.write(writer, b"x")
        old_host.step()
        assert not calls
        new_host.step()
        assert set(calls) == {("handle", handle), ("timeout", timeout)}
        assert freed == ["owed"]
        assert (old.stats().handles, new.stats().handles) == (1, 1)
        with pytest.raises(UnknownHandle):
            old.remove_handle(handle)
        new.remove_handle(handle)
        new.remove_timeout(timeout)
        new_host.step_until_idle()
        assert sorted(freed) == ["handle", "owed", "timeout"]
        assert new.add_timeout(-1, lambda *_: None) > owed, "H1: above every id that was carried over"
    os.close(reader), os.close(writer)


def test_transfer_renames_what_collides_and_tells_the_old_id() -> None:
    """D9: the other bridge has given out the same ids itself."""
    calls: list[Any] = []
    old_host, new_host = SteppingHost(), SteppingHost()
    fd = os.eventfd(1)
    with Bridge(old_host) as old, Bridge(new_host) as new:

        def free(opaque: Any) -> None:
            calls.append("free")

        theirs = new.add_handle(fd, 0, lambda *_: calls.append("theirs"))
        mine = old.add_handle(fd, R, lambda id, *rest: calls.append((id, rest)), "opaque", free)
        assert mine == theirs
        renamed, _ = old.transfer(new, free)
        assert set(renamed) == {mine}
        assert renamed[mine] != mine
        new_host.step()
        assert calls == [(mine, (fd, R, "opaque"))]
        new.remove_handle(renamed[mine])
        new_host.step_until_idle()
        assert calls[-1] == "free"
        assert new.stats().handles == 1
    os.close(fd)


def test_transfer_takes_a_number_that_was_closed_for_its_next_file() -> None:
    """D9, H11."""
    old_host, new_host = SteppingHost(), SteppingHost()
    called: list[int] = []
    reader, writer = os.pipe()
    with Bridge(old_host) as old, Bridge(new_host) as new:

        def free(opaque: Any) -> None:
            """Known by identity."""

        id = old.add_handle(reader, R, lambda *_: called.append(1), None, free)
        os.close(reader)
        old.transfer(new, free)
        fresh = os.eventfd(1)
        if fresh != reader:
            os.dup2(fresh, reader)
            os.close(fresh)
        new.update_handle(id, R | Events.WRITABLE)
        new_host.step()
        new_host.step()
        assert called
    os.close(reader), os.close(writer)


def test_transfer_to_a_closed_bridge_changes_nothing() -> None:
    with Bridge(SteppingHost()) as old:
        new = Bridge(SteppingHost())
        new.close()
        free = [].append
        id = old.add_timeout(-1, lambda *_: None, None, free)
        with pytest.raises(BridgeClosed):
            old.transfer(new, free)
        old.remove_timeout(id)


def test_transfer_and_the_loop_call_what_is_owed_once_between_them() -> None:
    """H7, D9: the old loop is at it on its thread; of what is owed to others nothing is carried."""
    freed: list[str] = []
    sys.setswitchinterval(1e-6)
    try:
        with Bridge("select") as old, Bridge("select") as new:

            def free(opaque: Any) -> None:
                freed.append("ours")

            def others(opaque: Any) -> None:
                freed.append("others'")

            loop = threading.Thread(target=old.run)
            loop.start()
            for _ in range(300):
                for whose in (free, others) * 5:
                    old.remove_timeout(old.add_timeout(-1, lambda *_: None, None, whose))
                old.transfer(new, free)
            old.stop()
            loop.join()
            for bridge in (old, new):
                assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    finally:
        sys.setswitchinterval(0.005)
    assert (freed.count("ours"), freed.count("others'")) == (1500, 1500)


def test_what_finds_the_new_bridge_closed_in_the_middle_of_a_transfer_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """H7, D8, D9: as if it had been closed right after; each once, and of the ids that are lost the library is told."""
    old_host, new_host = SteppingHost(), SteppingHost()
    freed: list[str] = []
    fd = os.eventfd(0)
    with Bridge(old_host) as old, Bridge(new_host) as new:

        def free(opaque: Any) -> None:
            freed.append(opaque)

        def adopt_and_close(*about: Any) -> int:
            id = adopt(*about)
            new.close()
            return id

        adopt = transfer._adopt_handle
        monkeypatch.setattr(transfer, "_adopt_handle", adopt_and_close)
        one, two = (old.add_handle(fd, 0, lambda *_: None, name, free) for name in ("one", "two"))
        timeout = old.add_timeout(1000, lambda *_: None, "timeout", free)
        old.remove_timeout(old.add_timeout(-1, lambda *_: None, "owed", free))
        assert old.transfer(new, free) == ({two: 0}, {timeout: 0})
        assert one
        for host in (old_host, new_host):
            host.step_until_idle()
        assert sorted(freed) == ["one", "owed", "timeout", "two"]
        assert old.is_empty() and new.is_empty()
    os.close(fd)
    assert len(freed) == 4


def test_a_forked_child_may_have_a_bridge_of_its_own() -> None:
    """D7."""
    program = """
import os, eventbridge
parent = eventbridge.Bridge("select")
child = os.fork()
if not child:
    mine = eventbridge.Bridge("select")
    seen = []
    mine.add_timeout(1, lambda id, opaque: seen.append(id))
    assert mine.run(lambda: seen, 5)
    try:
        parent.add_timeout(1, print)
    except eventbridge.BridgeForked as error:
        assert "make one of its own" in str(error)
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "7\n"


def test_a_debug_bridge_refuses_the_loops_side_to_other_threads() -> None:
    """The marks of affinity.py are held to where EVENTBRIDGE_DEBUG is set."""
    program = """
import threading, eventbridge
from eventbridge.testing.conformance.harness import Rig
from eventbridge.adapters.hosts.select import SelectHost
rig = Rig(SelectHost(), own_thread=True)
try:
    rig.bridge._dispatcher.run_pass()
except AssertionError as error:
    print(error)
rig.end()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "EVENTBRIDGE_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Dispatcher.run_pass belongs to the host loop's thread" in done.stdout


def test_stats_name_the_slowest_callback() -> None:
    from eventbridge.testing import busy

    host = SteppingHost()
    with Bridge(host) as bridge:

        def slow(id: int, opaque: Any) -> None:
            busy(0.003)
            bridge.remove_timeout(id)

        bridge.add_timeout(0, slow)
        host.step()
        stats = bridge.stats()
        assert stats.slowest >= 0.003
        assert "slow" in stats.slowest_callback
        assert (stats.callbacks, stats.timeouts, stats.host) == (1, 0, "stepping")


def test_hosts_of_others_are_found_by_their_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group eventbridge.hosts: by name, and as the loop that is running here."""

    class Entry:
        name = "theirs"

        def load(self) -> type:
            return Theirs

    class Theirs(SteppingHost):
        name = "theirs"

        @classmethod
        def running(cls) -> SteppingHost:
            return cls()

    monkeypatch.setattr("eventbridge.plugins.entry_points", lambda group: [Entry()])
    for bridge in (Bridge("theirs"), eventbridge.attach()):
        assert bridge.stats().host == "theirs"
        bridge.close()
