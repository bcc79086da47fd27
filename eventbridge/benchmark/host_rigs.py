"""Rigs for loops that run callbacks, and trio's: what `rigs.py` is for asyncio and for loops that are turned by hand.

Each runs its loop as that loop's own documentation does, for what is measured on it is one wake, and a turn made in
Python would be a good part of that.  The main thread of a worker's process.  Libraries of others come by name."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from importlib import import_module
from typing import Any

from .rigs import Api, Figures

Resume = Callable[[], None]
Arrange = Callable[[Resume], object]
"""Is given what resumes the measurement, and has the loop call it once, later."""


@types.coroutine
def _resumed_by(arrange: Arrange) -> Generator[Arrange, None, None]:
    yield arrange


class _Flag:
    """What `CallbackRig.signal` gives."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Resume] = []

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> None:
        if not self._set:
            await _resumed_by(self._waiting.append)


class CallbackRig:
    """``later(seconds, callback)`` is the loop's own timer; ``run()`` runs it until a callback calls ``stop()``."""

    signal = _Flag

    def __init__(
        self,
        api: Api,
        later: Callable[[float, Resume], object],
        run: Callable[[], object],
        stop: Callable[[], object],
    ) -> None:
        self.api = api
        self._later, self._run, self._stop = later, run, stop

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Figures]]) -> Figures:
        measuring = work(self)
        found: list[Figures] = []
        failed: list[BaseException] = []

        def resume() -> None:
            try:
                arrange = measuring.send(None)
            except StopIteration as finished:
                found.append(finished.value)
                self._stop()
            except BaseException as error:  # for whoever called run: these loops swallow it
                failed.append(error)
                self._stop()
            else:
                arrange(resume)

        self._later(0.0, resume)
        self._run()
        if failed:
            raise failed[0]
        return found[0]

    async def sleep(self, seconds: float) -> None:
        await _resumed_by(lambda resume: self._later(seconds, resume))


class TrioRig:
    """``install(nursery)`` is called with trio running; the nursery's tasks end with the measurement."""

    api: Api

    def __init__(self, install: Callable[[Any], Api]) -> None:
        self._install = install
        self._trio: Any = import_module("trio")
        self.sleep = self._trio.sleep
        self.signal: Any = self._trio.Event  # it cannot be cleared, and no workload of the hosts' does

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Figures]]) -> Figures:
        async def main() -> Figures:
            async with self._trio.open_nursery() as nursery:
                self.api = self._install(nursery)
                figures = await work(self)
                nursery.cancel_scope.cancel()
            return figures

        figures: Figures = self._trio.run(main)
        return figures
