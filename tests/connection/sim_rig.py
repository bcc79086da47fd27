"""Connections to simulated hypervisors on one bridge, for a test to work with: every fd and job is to be gone after."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from eventbridge import Backoff, Bridge, Connection, Domain
from eventbridge.adapters.hypervisors.sim import simulation
from eventbridge.adapters.hypervisors.sim.simulation import Simulation
from eventbridge.connection.call import Call
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from tests.support.patience import PATIENCE

HOSTS = ("asyncio", "libuv", "select")
AT_ONCE = Backoff(first=0.001, most=0.001)
S0, S1, S2, S3 = (f"simulated-{number}" for number in range(4))
SLOW = 100
"""Bytes/s: what is moved so slowly does not end by itself."""
FAST = 1 << 40

_numbers = itertools.count()


class World:
    """A simulated hypervisor of the test's own, and what a connection to it was told."""

    def __init__(self, rig: Rig, query: str) -> None:
        self.name = f"connection-{next(_numbers)}"
        self.uri = f"sim:///default?world={self.name}&events=0&{query}"
        self.simulation: Simulation = simulation.simulation_of(self.uri)
        self.events: list[DomainEvent] = []
        self._rig = rig
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """Opened by the first who asks."""
        if self._connection is None:
            self._connection = self._rig.connect(self.uri)
            self._connection.subscribe(self.events.append)
            self._rig.ok(self._connection.opened)
        return self._connection

    def domain(self, name: str) -> Domain:
        return self._rig.ok(self.connection.domain(name))

    def empty(self) -> World:
        """Nobody is defined there."""
        for info in self.simulation.domains():
            self.simulation.do("undefine", info.domain.name)
        return self

    def running(self, *names: str) -> World:
        for name in names:
            self.simulation.do("start", name)
        return self

    def state(self, name: str) -> State:
        return self.simulation.domain(name).state

    def told(self, *kinds: Kind, of: str | None = None) -> list[str]:
        """What was told, of those kinds only, as text."""
        return [
            str(event)
            for event in self.events
            if (not kinds or event.kind in kinds) and of in (None, event.domain and event.domain.name)
        ]

    def jobs(self) -> list[tuple[str, str | None, str | None]]:
        """Their events: what, of whom, and why."""
        kinds = (Kind.JOB_STARTED, Kind.JOB_ENDED)
        return [
            (str(event.kind), event.domain and event.domain.name, event.reason)
            for event in self.events
            if event.kind in kinds
        ]


class Rig:
    """One bridge."""

    def __init__(self, host: str) -> None:
        self.errors: list[tuple[BaseException, str]] = []
        self.bridge = Bridge(host, on_error=lambda error, context: self.errors.append((error, context)))
        self.connections: list[Connection] = []
        self.worlds: list[World] = []

    def world(self, query: str = "domains=4") -> World:
        self.worlds.append(World(self, query))
        return self.worlds[-1]

    def connect(self, uri: str, **options: Any) -> Connection:
        connection = Connection(uri, self.bridge, **{"reconnect": AT_ONCE, **options})
        self.connections.append(connection)
        return connection

    def until(self, happened: Callable[[], bool]) -> None:
        assert self.bridge.run(until=happened, timeout=PATIENCE), f"it did not happen: {self.connections}"

    def join(self, *threads: threading.Thread) -> None:
        """Their ends wake no loop."""
        give_up = monotonic() + PATIENCE
        while any(thread.is_alive() for thread in threads) and monotonic() < give_up:
            self.bridge.run(timeout=0.01)
        assert not any(thread.is_alive() for thread in threads)

    def ended(self, *calls: Call[Any]) -> None:
        self.until(lambda: all(call.done for call in calls))

    def ok(self, call: Call[Any]) -> Any:
        self.ended(call)
        return call.result()

    def error(self, call: Call[Any]) -> BaseException:
        self.ended(call)
        assert call.error is not None, f"{call} has not failed"
        return call.error

    def settle(self) -> None:
        """For what must not come: whoever is connected has been asked, and has told what was before."""
        for connection in self.connections:
            if connection.session is not None:
                self.ok(connection.domains())
        passes = self.bridge.stats().passes
        self.bridge.run(until=lambda: self.bridge.stats().passes > passes + 5, timeout=0.01)

    def close(self) -> None:
        for world in self.worlds:
            world.simulation.thaw()
        self.ended(*(connection.close() for connection in self.connections))
        self.until(self.bridge.is_empty)
        left = {key: connection.jobs.running(key) for connection in self.connections for key in connection.jobs}
        self.bridge.close()
        for world in self.worlds:
            simulation.forget(world.name)
        assert not left, left
        assert not self.errors, self.errors
