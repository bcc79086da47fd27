"""One request under way: what is done for it on threads that may block, in one step or in several.

What blocks returns its answer, and that was it.  What a library does by itself is written as a generator: it begins
the library's operation and yields it, and is called on when that has ended, with its error raised where it failed.
Each of its steps is taken on a worker's thread, for even to begin something costs a round trip to xenstored; between
them it holds none.  Steps of one request follow one another; any thread may see the end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import GeneratorType
from typing import Any, Protocol, TypeAlias

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.request import Request
from eventbridge.hypervisor.worker_pool import Work, Workers
from eventbridge.jobs import JobAborted, Progress

from .errors import of


class Awaited(Protocol):
    """What a library is at."""

    @property
    def error(self) -> HypervisorError | None:
        """Why it failed, once it has ended."""

    def on_done(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback(self)`` called when it has ended; soon, if it has."""


class Wait:
    """What is awaited is time: ``seconds`` of it."""

    error = None

    def __init__(self, bridge: BridgeCore, seconds: float) -> None:
        self._bridge = bridge
        self._ms = max(1, round(seconds * 1000))

    def on_done(self, callback: Callable[[Any], object]) -> None:
        self._bridge.add_timeout(self._ms, self._over, callback)

    def _over(self, id: int, callback: Any) -> None:
        self._bridge.remove_timeout(id)
        callback(self)


Steps: TypeAlias = Generator[Awaited, None, Any]

_GOES_ON = object()


class Owner(Protocol):
    """A session."""

    workers: Workers

    def understood(self, request: Request, error: HypervisorError | ConnectionLost) -> Exception:
        """What a library's refusal means to whoever asked.  Blocks: a worker's thread."""

    def over(self, call: Call, error: BaseException | None) -> None:
        """It is done; whoever asked is still to be told of ``error``.  Any thread."""


class Call:
    """See above.  It is the `eventbridge.hypervisor.request.Reply` of its own steps."""

    def __init__(self, owner: Owner, request: Request, work: Work) -> None:
        self.request = request
        self._owner = owner
        self._work = work
        self._steps: Steps | None = None

    def begin(self) -> None:
        """Never blocks."""
        self._submit(self._first)

    # -- a step's end: any thread

    def ended(self, step: Request, value: Any, error: BaseException | None) -> None:
        if error is None and value is _GOES_ON:
            return
        if self._steps is not None:
            self._steps.close()  # the next step was refused: what it holds is given back
        self._owner.over(self, error)
        if error is None:
            self.request.answer(value)

    def progressed(self, step: Request, progress: Progress) -> None:
        self.request.tell(progress)

    # -- the worker's thread

    def _submit(self, step: Work) -> None:
        asked = self.request
        self._owner.workers.submit(
            Request(asked.operation, asked.domain, asked.arguments, self, asked.deadline),
            step,
        )

    def _first(self, step: Request) -> Any:
        if self.request.aborted:
            raise JobAborted(f"{self.request.operation}{of(self.request.domain)}: aborted before it had begun")
        return self._understandably(self._begin)

    def _begin(self) -> Any:
        made = self._work(self.request)
        if not isinstance(made, GeneratorType):
            return made
        self._steps = made
        return self._move(lambda: next(made))

    def _move(self, move: Callable[[], Awaited]) -> Any:
        try:
            awaited = move()
        except StopIteration as end:
            return end.value
        awaited.on_done(self._go_on)
        return _GOES_ON

    def _understandably(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (HypervisorError, ConnectionLost) as error:
            raise self._owner.understood(self.request, error) from error

    # -- what the library is at has ended: the loop's thread

    def _go_on(self, awaited: Awaited) -> None:
        steps = self._steps
        assert steps is not None

        def move() -> Awaited:
            return next(steps) if awaited.error is None else steps.throw(awaited.error)

        self._submit(lambda step: self._understandably(lambda: self._move(move)))
