"""A connection's life, a thousand times over, and a long one: nothing is left, and nothing grows."""

from __future__ import annotations

import gc
import itertools
import resource
import threading
import weakref

import pytest

from eventbridge import Connection, Domain
from eventbridge.connection.call import Call
from eventbridge.errors import BridgeClosed, ConnectionLost
from tests.connection.sim_rig import HOSTS, S0, S1, Rig, World
from tests.support.descriptors import open_fds

pytestmark = pytest.mark.slow

ROUNDS, AT_ONCE = 50, 20


def one_life(rig: Rig, world: World) -> list[weakref.ref[object]]:
    """Twenty are opened, used, broken, opened again, and closed."""
    connections = [rig.connect(world.uri) for _ in range(AT_ONCE)]
    rig.ended(*(connection.opened for connection in connections))
    rig.ended(*(call for connection in connections for call in used(connection)))
    world.simulation.freeze(S0)
    hanging: list[Call[object]] = [_domain(connection, S0).suspend() for connection in connections]
    rig.until(lambda: len(world.simulation.hung) == AT_ONCE)
    world.simulation.break_connections()
    rig.ended(*hanging)
    assert all(isinstance(call.error, ConnectionLost) for call in hanging)
    world.simulation.thaw()
    rig.until(lambda: all(connection.state == "open" for connection in connections))
    rig.ended(*(call for connection in connections for call in used(connection)))
    left: list[object] = [*connections, *hanging, *(connection.session for connection in connections)]
    rig.ended(*(connection.close() for connection in connections))
    rig.connections.clear()
    return [weakref.ref(thing) for thing in left]


def used(connection: Connection) -> list[Call[object]]:
    connection.events()
    connection.subscribe(lambda event: None)
    domain = _domain(connection, S1)
    save: Call[object] = domain.save(f"/{id(connection)}")
    save.cancel()
    return [connection.domains(), domain.info(), domain.info(), save]


def _domain(connection: Connection, name: str) -> Domain:
    return connection.domain(name).result(0)


@pytest.mark.timeout(180)
def test_a_thousand_lives_leave_nothing(rig: Rig) -> None:
    world = rig.world("domains=2").running(S0, S1)
    one_life(rig, world)
    rig.until(rig.bridge.is_empty)
    gc.collect()
    threads, fds = threading.active_count(), open_fds()
    left: list[weakref.ref[object]] = []
    for _ in range(ROUNDS):
        left += one_life(rig, world)
        rig.until(rig.bridge.is_empty)
    rig.join(*(thread for thread in threading.enumerate() if world.uri in thread.name))
    gc.collect()
    for _ in range(200):  # the last few timeouts that were removed are still referred to, until they are swept
        rig.bridge.remove_timeout(rig.bridge.add_timeout(1000, one_life))
    found = [found for reference in left if (found := reference()) is not None]
    assert found == []
    assert threading.active_count() == threads and open_fds() == fds
    faults = world.simulation.world.faults
    assert (faults.hung, world.simulation.connections, world.simulation.world.transfers) == ([], 0, {})


def a_year(rig: Rig, domain: Domain, count: int) -> None:
    """So many calls, nearly each with its event; of a hundred, one is a save that is aborted."""
    for _ in range(count // 100):
        for _ in range(49):
            rig.ended(domain.suspend(), domain.resume())
        save = domain.save("/a")
        save.abort()
        rig.ended(save, domain.info())


@pytest.mark.timeout(300)
def test_a_daemons_year_leaves_no_trace(rig: Rig) -> None:
    """Forty thousand calls and as many events through one connection (twelve on the hosts after the first); the first
    quarter is for warming up.
    """
    calls = 40_000 if rig.bridge.host.name == "asyncio" else 12_000
    world = rig.world("domains=2").running(S0)
    connection = rig.connect(world.uri)
    rig.ok(connection.opened)
    domain, stream, told = _domain(connection, S0), connection.events(), itertools.count()
    connection.subscribe(lambda event: (stream.take(), next(told)))
    a_year(rig, domain, calls // 4)
    timeouts = rig.bridge.stats().timeouts
    gc.collect()
    resident = rss()
    a_year(rig, domain, calls // 4 * 3)
    gc.collect()
    assert rss() - resident < 4 << 20
    assert next(told) > calls * 0.97 and stream.missed == 0 and stream.waiting < 10
    assert len(connection.jobs) == 0 and connection.under_way == {}
    assert rig.bridge.stats().timeouts == timeouts


def rss() -> int:
    """Bytes that are resident now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("host", HOSTS)
def test_a_bridge_that_is_closed_ends_its_connections_calls(host: str) -> None:
    rig = Rig(host)
    connection = rig.connect("sim:///default?events=0")
    rig.ok(connection.opened)
    domain = _domain(connection, S0)
    rig.ok(domain.start())
    save = domain.save("/a")
    stream = connection.events()
    rig.bridge.close()
    assert isinstance(domain.info().error, BridgeClosed)
    assert connection.close().done and save.done
    assert isinstance(save.error, ConnectionLost)
    assert stream.take() is None
