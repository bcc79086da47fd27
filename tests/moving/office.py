"""A loop with tasks in a thread of its own, whose bridge moves away to another loop."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import eventbridge
from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim import simulation
from tests.moving.loops import Loop, loops
from tests.support import wanted
from tests.support.patience import PATIENCE

NAME = "simulated-0"


class Office:
    """A loop with tasks, in a thread; a bridge that was on it, with a connection to a simulated hypervisor, is moved
    to a select loop in another by `leave`."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        stage = stack.enter_context(loops(name, "select"))
        self.home, self.away = stage[name].start(), stage["select"].start()
        self.errors: list[Any] = []
        self.bridge = Bridge(self.home.host, on_error=lambda error, context: self.errors.append((error, context)))
        world = f"elsewhere-{name}"
        stack.callback(simulation.forget, world)
        uri = f"sim:///default?world={world}&events=0&domains=3&memory=65536"
        self.simulation = simulation.simulation_of(uri)
        self.connection = eventbridge.open(uri, self.bridge, audit=None)
        self.connection.opened.result(PATIENCE)
        stack.callback(self._close)

    def _close(self) -> None:
        self.connection.close().result(PATIENCE)
        self.bridge.close()
        assert self.bridge._closed.wait(PATIENCE)
        assert not self.errors

    def leave(self) -> None:
        self.bridge.move(self.away.host)
        self.away.do(lambda: None)
        self.home.do(lambda: None)
        assert self.bridge._berth.serving is self.away.host

    def task(self, main: Callable[[], Awaitable[Any]]) -> Task:
        return Task(self.home, main)

    def domain(self) -> Any:
        return self.connection.domain(NAME).result(PATIENCE)


class Task:
    """One on an asyncio or trio loop: begun, and waiting, when this returns."""

    def __init__(self, loop: Loop, main: Callable[[], Awaitable[Any]]) -> None:
        self._ended = threading.Event()
        self._outcome: list[Any] = []
        self.threads: set[int] = set()

        async def run() -> None:
            try:
                self._outcome.append(await main())
            except BaseException as error:
                self._outcome.append(error)
            self.threads.add(threading.get_ident())
            self._ended.set()

        loop.do(lambda: self._spawn(loop, run))
        for _ in range(3):  # until it waits
            loop.do(lambda: None)
        self._loop = loop

    @staticmethod
    def _spawn(loop: Loop, run: Callable[[], Any]) -> object:
        if loop.name == "trio":
            return wanted.module("trio").lowlevel.spawn_system_task(run)
        return loop.host.loop.create_task(run())  # type: ignore[attr-defined]

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def result(self) -> Any:
        assert self._ended.wait(PATIENCE), "the task was never told"
        assert self.threads == {self._loop.thread}
        if isinstance(self._outcome[0], BaseException):
            raise self._outcome[0]
        return self._outcome[0]
