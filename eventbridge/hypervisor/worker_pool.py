"""A session whose library blocks: each operation is a function, called on one of a bounded number of threads.

A call that hangs costs its thread and nothing else: once whoever asked has given it up (its deadline has passed) its
thread no longer counts, and another takes its place, up to a bound of its own.  Threads are made when they are needed,
end when they have been idle for a while, and never keep the process.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.jobs import JobAborted

from .request import Request

WORKERS = 8
"""Threads of one session that may be inside its library at once, and be waited for."""
HUNG = 248
"""Threads besides, whose calls nobody waits for any more."""
IDLE_SECONDS = 10.0

log = logging.getLogger(__name__)

Work = Callable[[Request], Any]


class Workers:
    """``limit`` threads at most that are waited for.  Any thread; the lock is held for a count alone."""

    def __init__(self, name: str, limit: int = WORKERS, hung: int = HUNG) -> None:
        self._name = name
        self._limit = limit
        self._most = limit + hung
        self._changed = threading.Condition(threading.Lock())
        # Under its lock, all of them: who waits and who is idle must be known together.
        self._waiting: collections.deque[tuple[Request, Work]] = collections.deque()
        self._busy: dict[int, Request] = {}  # by thread
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, request: Request, work: Work) -> None:
        """Answer ``request`` with what ``work(request)`` returns or raises, on a thread; never blocks."""
        with self._changed:
            closed = self._closed
            if not closed:
                self._waiting.append((request, work))
                self._changed.notify()
                spawn = self._wants_a_thread()
        if closed:
            request.refuse(self._is_closed(request))
        elif spawn:
            self._spawn()

    def make_room(self) -> None:
        """Somebody has given up a call: where it has a thread of its own, another may take that one's place."""
        with self._changed:
            spawn = not self._closed and self._wants_a_thread()
        if spawn:
            self._spawn()

    def close(self) -> None:
        """What waits for a thread is refused; what is inside the library is left to itself.  Idempotent."""
        with self._changed:
            self._closed = True
            waiting = [request for request, _ in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        for request in waiting:
            request.refuse(self._is_closed(request))

    def stats(self) -> dict[str, int]:
        """How many threads there are, are idle, and hang in a call that nobody waits for; and how many calls wait."""
        with self._changed:
            return {
                "threads": self._threads,
                "idle": self._idle,
                "hung": self._hung(),
                "waiting": len(self._waiting),
            }

    def _is_closed(self, request: Request) -> ConnectionLost:
        return ConnectionLost(f"{self._name}: cannot {request.operation}: the connection is closed")

    # -- under the lock

    def _hung(self) -> int:
        now = monotonic()
        return sum(request.deadline is not None and request.deadline <= now for request in self._busy.values())

    def _wants_a_thread(self) -> bool:
        """Counts it in where it says so."""
        wanted = (
            len(self._waiting) > self._idle
            and self._threads < self._most
            and (self._threads < self._limit or self._threads - self._hung() < self._limit)
        )
        self._threads += wanted
        return wanted

    def _next(self) -> tuple[Request, Work] | None:
        """What this thread is to do; None: end."""
        while not self._waiting:
            given_up_once = self._threads - self._hung() > self._limit  # and another has its place
            if self._closed or given_up_once:
                return None
            self._idle += 1
            in_time = self._changed.wait(IDLE_SECONDS)
            self._idle -= 1
            if not in_time and not self._waiting:
                return None
        return self._waiting.popleft()

    # -- the threads

    def _spawn(self) -> None:
        # A daemon: one that hangs in a library must not keep the process.
        try:
            threading.Thread(target=self._run, name=f"worker of {self._name}", daemon=True).start()
        except RuntimeError:  # the system has no thread to give: those that there are go on
            with self._changed:
                self._threads -= 1
            log.warning("%s: no further thread can be started", self._name)

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            with self._changed:
                item = self._next()
                if item is None:
                    self._threads -= 1
                    return
                self._busy[me] = item[0]
            try:
                answer(*item)
            finally:
                del item
                with self._changed:
                    del self._busy[me]


def answer(request: Request, work: Work) -> None:
    """Answer ``request`` with what ``work(request)`` returns or raises; what is no error of eventbridge's is logged as
    the defect that it is, and told all the same.
    """
    if request.aborted:
        request.refuse(JobAborted(f"{request.operation}: aborted before it had begun"))
        return
    try:
        value = work(request)
    except EventBridgeError as error:
        request.refuse(error)
    except BaseException as error:
        log.exception("%r", request)
        request.refuse(
            HypervisorError(
                f"{request.operation}: {type(error).__name__}: {error}",
                operation=request.operation,
                domain=None if request.domain is None else request.domain.name,
            )
        )
    else:
        request.answer(value)


class BlockingSession:
    """What a session of such a library is made from: `operations` says what it can do, `begin` has it done.

    A subclass sets ``operations`` before it is handed out, and calls `close_calls` in its ``close``.
    """

    def __init__(self, uri: str, workers: int = WORKERS) -> None:
        self.workers = Workers(uri, workers)
        self.calls: Mapping[str, Work] = {}

    @property
    def operations(self) -> frozenset[str]:
        return frozenset(self.calls)

    def begin(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.begin`."""
        self.workers.submit(request, self.calls[request.operation])

    def given_up(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.given_up`."""
        self.workers.make_room()

    def close_calls(self) -> None:
        self.workers.close()
