"""A real daemon behind a socket: its events, its death, its silence, its streams, and connections of other threads."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.hypervisor.events import DomainEvent, Kind
from tests.support.libvirtd import Libvirtd
from tests.support.patience import PATIENCE
from tests.support.watched import Connect, Watch

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_daemons_events_arrive_in_order_over_each_transport(
    remote_uri: str, watch: Watch, transient: Connect
) -> None:
    watched = watch(remote_uri)
    assert watched.subscription.refused == {}
    domain = transient(remote_uri)
    domain.suspend()
    domain.resume()
    domain.destroy()
    watched.wait_for("t started (booted)", "t suspended (paused)", "t resumed (unpaused)", "t stopped (destroyed)")
    assert watched.threads == {threading.get_ident()}


@pytest.mark.parametrize(("transport", "reason"), [("unix", "eof"), ("tcp", "error")])
def test_a_killed_daemon_is_told_at_once(transport: str, reason: str, daemon: Libvirtd, watch: Watch) -> None:
    """H2: without HANGUP libvirt would say "error" on a unix socket too.  (TCP has no hangup here: libvirt's own event
    loop has it called the same.)"""
    at: list[float] = []
    uri = daemon.unix_uri if transport == "unix" else daemon.tcp_uri
    watched = watch(uri, consumer=lambda event: at.append(time.monotonic()))
    killed = time.monotonic()
    daemon.kill()
    watched.wait_for(f"- connection_lost ({reason})")
    assert watched.events[0].domain is None
    assert watched.events[0].raw == {"event": "CLOSE", "reason": reason.upper()}
    assert at[0] - killed < 2, "it takes a few ms, and 100 are allowed on a machine that is not busy"


def test_a_frozen_daemon_is_told_as_keepalive(daemon: Libvirtd, watch: Watch) -> None:
    """T1, T2: libvirt's keepalive timer, re-armed at every packet."""
    watched = watch(daemon.unix_uri, keepalive=(1, 1))
    frozen = time.monotonic()
    daemon.freeze()
    watched.wait_for("- connection_lost (keepalive)")
    assert time.monotonic() - frozen > 1, "it was asked once, and had a second to answer"


def test_a_lost_connection_noticed_by_another_threads_call_is_told_on_the_loops(
    bridge: Bridge, daemon: Libvirtd, watch: Watch
) -> None:
    """D1: libvirt calls the close callback on whichever thread meets the end first."""
    watched = watch(daemon.unix_uri)
    daemon.kill()

    def call() -> None:
        with contextlib.suppress(libvirt.libvirtError):
            watched.subscription._connection.getInfo()

    caller = threading.Thread(target=call)
    caller.start()
    caller.join()
    watched.wait_for("- connection_lost (eof)")
    assert watched.threads == {threading.get_ident()}


def test_closing_a_subscription_is_no_loss(daemon: Libvirtd, bridge: Bridge, watch: Watch) -> None:
    """libvirt has a close reason for that, too: "client"."""
    watched = watch(daemon.unix_uri)
    watched.close()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert watched.events == []


def test_closing_on_another_thread_ends_the_telling_there_and_then(
    bridge: Bridge, daemon: Libvirtd, watch: Watch, transient: Connect
) -> None:
    """D1, and the driver's promise: none is emitted after close() has returned, though the loop is full of them."""
    domain = transient(daemon.unix_uri)
    watched = watch(daemon.unix_uri)
    told_at_close = 0

    def close() -> None:
        nonlocal told_at_close
        while not watched.events:
            domain.suspend()
            domain.resume()
        watched.close()
        told_at_close = len(watched.events)
        for _ in range(100):
            domain.suspend()
            domain.resume()
        bridge.stop()

    closer = threading.Thread(target=close)
    closer.start()
    assert bridge.run(timeout=PATIENCE)
    closer.join()
    assert len(watched.events) == told_at_close > 0


@pytest.mark.parametrize("where", ["test:///default", "daemon"])
def test_a_stream_is_read_by_its_event_callback(
    where: str, request: pytest.FixtureRequest, bridge: Bridge, transient: Connect
) -> None:
    """H1: ids start at 1.  libvirt's fd streams (here test:///default's) take 0 for "no callback registered"."""
    daemon: Libvirtd | None = request.getfixturevalue("daemon") if where == "daemon" else None
    domain = transient(daemon.unix_uri if daemon else where)
    stream = domain.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
    picture: list[bytes] = []
    kind = domain.screenshot(stream, 0)

    def readable(stream: Any, events: int, opaque: object) -> None:
        assert events & libvirt.VIR_STREAM_EVENT_READABLE
        got = stream.recv(4096)
        if got == -2:  # would block
            return
        picture.append(got)
        if not got:
            stream.eventRemoveCallback()
            bridge.stop()

    stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, readable, None)
    stream.eventUpdateCallback(libvirt.VIR_STREAM_EVENT_READABLE)
    assert bridge.run(timeout=PATIENCE)
    stream.finish()
    del stream.cb  # or libvirt-python removes it once more
    assert kind == "image/png"
    assert b"".join(picture).startswith(PNG)
    assert len(b"".join(picture)) > 4096


def test_a_connection_of_another_threads_lives_and_dies_while_the_loop_sleeps(bridge: Bridge, daemon: Libvirtd) -> None:
    """D6: opened, told events, used and closed there; its events arrive here."""
    told: list[tuple[str, int]] = []
    told_one = threading.Event()
    failed: list[BaseException] = []

    def on_event(connection: Any, domain: Any, event: int, detail: int, opaque: object) -> None:
        told.append((domain.name(), threading.get_ident()))
        told_one.set()

    def live() -> None:
        try:
            connection = libvirt.open(daemon.unix_uri)
            registered = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_event, None)
            domain = connection.lookupByName("test")
            domain.suspend()
            assert told_one.wait(PATIENCE)
            connection.domainEventDeregisterAny(registered)
            domain.resume()
            connection.close()
        except BaseException as error:
            failed.append(error)
        finally:
            bridge.stop()

    other = threading.Thread(target=live)
    other.start()
    assert bridge.run(timeout=PATIENCE * 2)
    other.join()
    assert failed == []
    assert told == [("test", threading.get_ident())]


def test_many_connections_of_many_threads_leave_nothing(bridge: Bridge, daemon: Libvirtd) -> None:
    """D6, and the leak check of the fixture: each opens, calls and closes while the loop serves the rest."""
    done: list[int] = []

    def live(number: int) -> None:
        for _ in range(10):
            connection = libvirt.open(daemon.tcp_uri if number % 2 else daemon.unix_uri)
            done.append(connection.numOfDomains())
            connection.close()

    threads = [threading.Thread(target=live, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert bridge.run(until=lambda: bridge.is_empty() and len(done) == 40, timeout=PATIENCE)
    for thread in threads:
        thread.join()
    assert done == [1] * 40


def test_a_callback_may_call_the_daemon_and_deregister_there(
    bridge: Bridge, daemon: Libvirtd, transient: Connect
) -> None:
    """D5's neighbour: within a callback libvirt turns a poll of its own over the very fd that it has handles on."""
    domain = transient(daemon.unix_uri)
    connection = domain.connect()
    states: list[bool] = []

    def on_event(connection: Any, domain: Any, event: int, detail: int, opaque: object) -> None:
        states.append(bool(domain.isActive()))
        connection.domainEventDeregisterAny(registered)

    registered = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_event, None)
    domain.suspend()
    domain.resume()
    assert bridge.run(until=lambda: bool(states), timeout=PATIENCE)
    bridge.run(timeout=0.02)
    assert states == [True]


def test_a_thousand_events_are_told_without_a_gap(daemon: Libvirtd, watch: Watch, transient: Connect) -> None:
    domain = transient(daemon.unix_uri)
    watched = watch(daemon.unix_uri)

    def act() -> None:
        for _ in range(500):
            domain.suspend()
            domain.resume()

    actor = threading.Thread(target=act)
    actor.start()
    watched.wait_for(*["t suspended (paused)", "t resumed (unpaused)"] * 500)
    actor.join()


def test_an_event_emitted_while_the_loop_sleeps_wakes_it(bridge: Bridge, daemon: Libvirtd, watch: Watch) -> None:
    """The whole way: daemon, socket, epoll, host, trampoline, table."""
    first: list[DomainEvent] = []
    watch(daemon.unix_uri, consumer=lambda event: (first.append(event), bridge.stop()))
    outside = threading.Timer(0.05, _suspend_on_a_connection_of_its_own, [daemon.tcp_uri])
    outside.start()
    assert bridge.run(timeout=PATIENCE)
    outside.join()
    assert [event.kind for event in first] == [Kind.SUSPENDED]


def _suspend_on_a_connection_of_its_own(uri: str) -> None:
    with libvirt.open(uri) as connection:
        connection.lookupByName("test").suspend()
