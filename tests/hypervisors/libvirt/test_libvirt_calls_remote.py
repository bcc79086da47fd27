"""What is asked of a daemon: that answers, that is frozen, that is killed, and whose connection is closed meanwhile."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt.session import LibvirtSession
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.model import State
from tests.hypervisors.libvirt.calls_rig import Answer, ask, do, soon, threads_of
from tests.support.descriptors import open_fds
from tests.support.libvirtd import Libvirtd
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN, Watch, Watched

QUICKLY = (1, 1)
"""A keepalive that finds a frozen daemon within two seconds or so."""
OF_ANY_KIND = ["list", "info", "define", "suspend", "console_info", "save", "migrate"]
GIVEN = {"definition": DOMAIN.format("c"), "path": "/nowhere/x", "to": "test:///default"}


def test_a_daemon_is_asked_over_each_transport(remote_uri: str, watch: Watch) -> None:
    watched = watch(remote_uri)
    session = watched.subscription
    known = do(session, "create", definition=DOMAIN.format("c"))
    do(session, "suspend", known)
    assert do(session, "info", known).state is State.PAUSED
    assert {info.domain.name: info.state for info in do(session, "list")} == {
        "test": State.RUNNING,
        "c": State.PAUSED,
    }
    do(session, "destroy", known)
    with pytest.raises(HypervisorError, match=r"direct migration is not supported"):
        do(session, "migrate", "test", to=remote_uri, live=True)
    watched.wait_for("c started (booted)", "c suspended (paused)", "c stopped (destroyed)")


def test_many_calls_at_once_are_each_answered_once(daemon: Libvirtd, watch: Watch) -> None:
    """More than there are workers, and more than the daemon takes of one client at a time (max_client_requests, 5)."""
    session = watch(daemon.unix_uri).subscription
    answers = [ask(session, "info" if number % 2 else "list", "test" if number % 2 else None) for number in range(200)]
    for answer in answers:
        answer.get()
    assert {len(answer.ends) for answer in answers} == {1}
    assert session.workers.stats()["threads"] <= 8


def test_a_frozen_daemon_never_blocks_the_loop_that_asks_it(bridge: Bridge, daemon: Libvirtd, watch: Watch) -> None:
    """Every kind of call is begun on the loop's own thread, as it runs; then it goes round as before."""
    session = watch(daemon.unix_uri).subscription
    answers: list[Answer] = []
    rounds = 0
    daemon.freeze()

    def begin(timeout: int, opaque: object) -> None:
        nonlocal rounds
        rounds += 1
        if not answers:
            answers.extend(ask(session, operation, "test", **GIVEN) for operation in OF_ANY_KIND)

    timeout = bridge.add_timeout(1, begin)
    assert bridge.run(until=lambda: rounds >= 100, timeout=PATIENCE)
    bridge.remove_timeout(timeout)
    assert not any(answer.done for answer in answers)
    daemon.thaw()
    for answer in answers:
        _ended(answer)
    assert {len(answer.ends) for answer in answers} == {1}


def test_calls_that_nobody_waits_for_any_more_make_room_for_others(
    bridge: Bridge, daemon: Libvirtd, watch: Watch
) -> None:
    session = watch(daemon.unix_uri).subscription
    daemon.freeze()
    given_up = [ask(session, "info", "test", deadline=time.monotonic()) for _ in range(8)]
    waiting = ask(session, "info", "test")
    for answer in given_up:
        session.given_up(answer.request)
    assert soon(lambda: session.workers.stats()["waiting"] == 0), "the ninth has a thread of its own"
    assert session.workers.stats()["hung"] == 8
    daemon.thaw()
    assert waiting.get().state is State.RUNNING
    for answer in given_up:
        answer.get()
    assert soon(lambda: session.workers.stats()["threads"] <= 8)


def test_a_frozen_daemon_is_lost_by_the_keepalive_and_so_is_all_that_was_asked(daemon: Libvirtd, watch: Watch) -> None:
    watched = watch(daemon.unix_uri, keepalive=QUICKLY)
    session = watched.subscription
    daemon.freeze()
    answers = [ask(session, operation, "test", **GIVEN) for operation in OF_ANY_KIND]
    watched.wait_for("- connection_lost (keepalive)")
    for answer in answers:
        with pytest.raises(ConnectionLost, match=answer.request.operation):
            answer.get()
    with pytest.raises(ConnectionLost):
        do(session, "info", "test")
    watched.wait_for("- connection_lost (keepalive)")


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_killed_daemon_ends_all_that_was_asked_of_it_with_connection_lost(
    transport: str, daemon: Libvirtd, watch: Watch
) -> None:
    watched = watch(daemon.unix_uri if transport == "unix" else daemon.tcp_uri)
    session = watched.subscription
    daemon.freeze()
    answers = [ask(session, operation, "test", **GIVEN) for operation in OF_ANY_KIND]
    assert soon(lambda: len(session._under_way) == len(answers))
    daemon.kill()
    for answer in answers:
        with pytest.raises(ConnectionLost, match=f"{answer.request.operation}.*the connection was lost"):
            answer.get()
    with pytest.raises(ConnectionLost):
        do(session, "list")
    watched.wait_for(f"- connection_lost ({'eof' if transport == 'unix' else 'error'})")


# -- closing


def test_closing_ends_the_threads_and_refuses_what_comes_after(bridge: Bridge, daemon: Libvirtd, watch: Watch) -> None:
    watched = watch(daemon.unix_uri)
    session = watched.subscription
    for answer in [ask(session, "info", "test") for _ in range(20)]:
        answer.get()
    assert len(threads_of(session.uri)) > 0
    watched.close()
    watched.close()
    for operation in ("info", "save"):
        with pytest.raises(ConnectionLost, match=operation):
            do(session, operation, "test")
    assert soon(lambda: threads_of(session.uri) == [])
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert watched.events == []


def test_closing_over_a_frozen_daemon_refuses_at_once_what_is_inside(
    bridge: Bridge, daemon: Libvirtd, watch: Watch
) -> None:
    """The threads end, and the connection is closed, when libvirt lets go: here because the daemon wakes."""
    watched = watch(daemon.unix_uri)
    session = watched.subscription
    daemon.freeze()
    answers = [ask(session, operation, "test", **GIVEN) for operation in OF_ANY_KIND + ["info"] * 10]
    assert soon(lambda: len(session._under_way) > len(OF_ANY_KIND))
    watched.close()
    for answer in answers:
        assert answer.done
        with pytest.raises(ConnectionLost, match=answer.request.operation):
            answer.get()
    assert threads_of(session.uri) != []
    assert not bridge.is_empty(), "libvirt has it still"
    daemon.thaw()
    assert soon(lambda: threads_of(session.uri) == [])
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert {len(answer.ends) for answer in answers} == {1}


def test_closing_over_a_frozen_daemon_ends_with_the_keepalive(bridge: Bridge, daemon: Libvirtd, watch: Watch) -> None:
    watched = watch(daemon.unix_uri, keepalive=QUICKLY)
    session = watched.subscription
    daemon.freeze()
    inside = ask(session, "info", "test")
    assert soon(lambda: len(session._under_way) == 1)
    watched.close()
    assert inside.done
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert soon(lambda: threads_of(session.uri) == [])
    assert watched.events == [], "it was closed before it was lost"


def test_closing_on_the_thread_of_a_running_loop_does_not_hold_it_up(
    bridge: Bridge, daemon: Libvirtd, watch: Watch
) -> None:
    watched = watch(daemon.unix_uri)
    rounds = 0
    daemon.freeze()

    def close(timeout: int, opaque: object) -> None:
        nonlocal rounds
        rounds += 1
        watched.close()

    timeout = bridge.add_timeout(1, close)
    assert bridge.run(until=lambda: rounds >= 50, timeout=PATIENCE)
    bridge.remove_timeout(timeout)
    assert watched.subscription._leaving.is_alive(), "it waits for the daemon, and nobody for it"
    daemon.thaw()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert soon(lambda: threads_of(watched.subscription.uri) == [])


@pytest.mark.parametrize("uri", ["test:///default", "daemon"])
def test_closing_beneath_threads_that_ask_without_a_pause_is_safe(
    uri: str, bridge: Bridge, request: pytest.FixtureRequest, watch: Watch
) -> None:
    """libvirt frees a connection beneath a call for its list: so it is not closed before the last has come out."""
    where = request.getfixturevalue("daemon").unix_uri if uri == "daemon" else uri
    for _ in range(20):
        watched = watch(where)
        answers: list[Answer] = []

        def hammer(session: LibvirtSession, answers: list[Answer]) -> None:
            with contextlib.suppress(ConnectionLost):
                while True:
                    answers.append(ask(session, "list"))
                    answers[-1].get()

        threads = [threading.Thread(target=hammer, args=(watched.subscription, answers)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert soon(lambda: len(answers) > 20)  # noqa: B023  # called at once
        watched.close()
        for thread in threads:
            thread.join()
        assert {len(answer.ends) for answer in answers} == {1}
        assert {type(error) for answer in answers for _, error in answer.ends} <= {type(None), ConnectionLost}
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


# -- again and again


def test_many_daemons_later_nothing_is_left_of_those_before(bridge: Bridge, daemon: Libvirtd) -> None:
    """Killed, told, closed, started again, subscribed again; with calls inside as it dies.  Twenty, and five on the
    hosts after the first, where a daemon takes its second all the same.
    """
    kept: list[tuple[int, ...]] = []
    daemons = 20 if bridge.host.name == "asyncio" else 5
    for _ in range(daemons):
        watched = Watched(daemon.unix_uri, bridge)
        session = watched.subscription
        known = do(session, "create", definition=DOMAIN.format("c"))
        watched.wait_for("c started (booted)")
        answers = [ask(session, "info", known) for _ in range(5)]
        daemon.kill()
        watched.wait_for("c started (booted)", "- connection_lost (eof)")
        for answer in answers:
            _ended(answer)
        watched.close()
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
        uri = session.uri
        assert soon(lambda: threads_of(uri) == [])  # noqa: B023  # called at once
        del watched, session, answers, answer
        kept.append(_left())
        daemon.restart()
    assert kept[1:] == kept[1:2] * (daemons - 1), "the first may have made what is made once"


def _left() -> tuple[int, ...]:
    """How many files are open, threads run, and objects of libvirt's and sessions there are."""
    gc.collect()
    alive = [type(each) for each in gc.get_objects()]
    kinds: tuple[type[Any], ...] = (libvirt.virConnect, libvirt.virDomain, LibvirtSession)
    return (len(open_fds()), threading.active_count(), *(alive.count(kind) for kind in kinds))


def _ended(answer: Answer) -> None:
    """However it ended."""
    with contextlib.suppress(HypervisorError, ConnectionLost):
        answer.get()
