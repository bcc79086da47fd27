"""Rigs: one way to run a measurement, a coroutine, on every kind of loop.

The coroutine awaits only what its rig gives it: `Rig.sleep` and the signals of `Rig.signal`.  On asyncio these are
asyncio's own.  On a loop that is turned by hand (`TurnRig`) they tell the rig how long to go on turning.  All of it
runs on the main thread of a worker's process."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias

from eventbridge.bridge import Bridge

Figures: TypeAlias = dict[str, float | None]
"""What a measurement found, by the key of its metric; None: it never came about."""


class Signal(Protocol):
    """As much of `asyncio.Event` as a measurement needs.  The loop's thread only."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    async def wait(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Api:
    """A contender's six functions, in the order and with the arguments of libvirt-python's ``virEvent...``."""

    add_handle: Callable[[int, int, Callable[..., object], object], int]
    update_handle: Callable[[int, int], object]
    remove_handle: Callable[[int], object]
    add_timeout: Callable[[int, Callable[..., object], object], int]
    update_timeout: Callable[[int, int], object]
    remove_timeout: Callable[[int], object]


def of_a_bridge(bridge: Bridge) -> Api:
    """A bridge's own."""
    return Api(
        bridge.add_handle,
        bridge.update_handle,
        bridge.remove_handle,
        bridge.add_timeout,
        bridge.update_timeout,
        bridge.remove_timeout,
    )


def handles_only(add_handle: Callable[[int, int, Callable[..., object], object], int]) -> Api:
    """Of what has handles, and nothing else."""

    def refuse(*_: object) -> int:
        raise NotImplementedError("this contender adds handles, and can do nothing else")

    return Api(add_handle, refuse, refuse, refuse, refuse, refuse)


class Rig(Protocol):
    """A loop with an event implementation on it."""

    api: Api

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Figures]]) -> Figures:
        """Run ``work(self)`` to its end on the loop."""

    async def sleep(self, seconds: float) -> None:
        """Let the loop do its work for so long."""

    def signal(self) -> Signal:
        """Something to wait for while the loop does its work, and sleeps when it has none."""


class AsyncioRig:
    """asyncio, or a loop that is compatible with it.  ``install`` is called with the loop running."""

    api: Api

    def __init__(self, runner: Callable[[Coroutine[Any, Any, Figures]], Figures], install: Callable[[], Api]) -> None:
        self._runner = runner
        self._install = install
        self.sleep = asyncio.sleep
        self.signal = asyncio.Event

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Figures]]) -> Figures:
        async def main() -> Figures:
            self.api = self._install()
            return await work(self)

        return self._runner(main())


@types.coroutine
def _turns(done: Callable[[], bool]) -> Generator[Callable[[], bool], None, None]:
    yield done


class _Flag:
    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> None:
        await _turns(lambda: self._set)


class TurnRig:
    """A loop that is turned by hand: ``turn()`` waits until something is ready, and calls what is."""

    signal = _Flag

    def __init__(self, api: Api, turn: Callable[[], object]) -> None:
        self.api = api
        self._turn = turn

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Figures]]) -> Figures:
        running, turn = work(self), self._turn
        while True:
            try:
                done = running.send(None)
            except StopIteration as finished:
                figures: Figures = finished.value
                return figures
            while not done():
                turn()

    async def sleep(self, seconds: float) -> None:
        until = perf_counter() + seconds
        await _turns(lambda: perf_counter() >= until)
