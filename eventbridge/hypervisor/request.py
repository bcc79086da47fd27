"""One thing asked of a hypervisor, as its driver sees it: what is wanted of whom, and where the answer goes.

A driver answers each request once, when it likes and on whichever thread; what it tells after that is dropped.  Whoever
asked may have gone by then (its deadline has passed), which the driver need not know: the domain's job is held until
the answer comes, since that is when the hypervisor is done with the domain.  All of it is hook side: any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from eventbridge.core.affinity import hook_side

from .model import DomainRef

if TYPE_CHECKING:
    from eventbridge.jobs import Progress

Abort = Callable[[], object]


class Reply(Protocol):
    """Who asked.  Each is called on whichever thread the driver is on, with no lock held."""

    def ended(self, request: Request, value: Any, error: BaseException | None) -> object:
        """Once."""

    def progressed(self, request: Request, progress: Progress) -> object:
        """Of what takes long; before `ended`, as often as the driver likes."""


class Request:
    """``operation`` is one of `operations.OPERATIONS`, ``domain`` whom it is about (None: the whole hypervisor),
    ``arguments`` its keyword arguments; ``deadline``, in seconds of time.monotonic, is when whoever asked stops waiting
    (None: never).
    """

    __slots__ = ("_abort", "_aborted", "_lock", "_reply", "arguments", "deadline", "domain", "operation")

    def __init__(
        self,
        operation: str,
        domain: DomainRef | None,
        arguments: Mapping[str, Any],
        reply: Reply,
        deadline: float | None = None,
    ) -> None:
        self.operation = operation
        self.domain = domain
        self.arguments = arguments
        self.deadline = deadline
        self._reply: Reply | None = reply
        self._lock = threading.Lock()
        self._abort: Abort | None = None
        self._aborted = False

    @property
    def done(self) -> bool:
        """Has it been answered?"""
        return self._reply is None

    @property
    def aborted(self) -> bool:
        """Has somebody asked to cut it short?"""
        return self._aborted

    # -- the driver's

    @hook_side
    def answer(self, value: Any = None) -> bool:
        """It is done; False where it was answered already."""
        return self._end(value, None)

    @hook_side
    def refuse(self, error: BaseException) -> bool:
        """It failed: an `EventBridgeError`, whose words say what was tried on whom."""
        return self._end(None, error)

    @hook_side
    def tell(self, progress: Progress) -> None:
        """How far it is."""
        reply = self._reply
        if reply is not None:
            reply.progressed(self, progress)

    @hook_side
    def abortable(self, abort: Abort) -> None:
        """From now on ``abort()`` cuts it short: any thread, at most once, never blocking, and at once where that was
        asked for already.  The request is still to be answered, with `JobAborted` where it was cut short.
        """
        with self._lock:
            self._abort = abort
            now = self._aborted
        if now:
            self._run_abort()

    # -- whoever asked

    @hook_side
    def abort(self) -> None:
        """Ask the driver to cut it short, now or as soon as it can be."""
        with self._lock:
            self._aborted = True
        self._run_abort()

    def _run_abort(self) -> None:
        with self._lock:
            abort, self._abort = self._abort, None
        if abort is not None and not self.done:
            abort()

    def _end(self, value: Any, error: BaseException | None) -> bool:
        with self._lock:
            reply, self._reply = self._reply, None
        if reply is None:
            return False
        reply.ended(self, value, error)
        return True

    def __repr__(self) -> str:
        of = "" if self.domain is None else f" of {self.domain.name or self.domain.uuid or self.domain.id}"
        return f"<Request {self.operation}{of}: {'answered' if self.done else 'under way'}>"
