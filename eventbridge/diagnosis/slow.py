"""A callback that is slow holds up the loop, and with it every hypervisor on it: which one is it, and what is it at?

A callback that has returned is told of on the loop's thread.  One that blocks still is told of at once, by a thread
that watches from aside and, where that is asked for, takes the stack of the loop's thread in the act.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import TypeAlias

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.dispatcher import Dispatcher
from eventbridge.core.observed import ObservedDispatcher
from eventbridge.core.observer import Observer
from eventbridge.core.origin import FREES, Origin

_CALLERS = {
    function.__code__ for function in (Dispatcher._fire, Dispatcher._dispatch, inspect.unwrap(Dispatcher.run_frees))
}
LOOKS = 4  # of the watching thread in the time that is slow
log = logging.getLogger("eventbridge")


@dataclass(frozen=True, slots=True)
class SlowCallback:
    """``origin`` says which handle or timeout, and whose; ``seconds`` how long it took, or has taken so far."""

    origin: Origin
    seconds: float
    blocks: bool
    """It goes on: the loop's thread is in it."""
    stack: str | None = None
    """What it was at, from the callback on, as a traceback has it, the innermost call last; None where it was not asked
    for, or not seen.
    """

    def __str__(self) -> str:
        how = "has blocked the loop for" if self.blocks else "took"
        stack = f", in\n{self.stack.rstrip()}" if self.stack and self.blocks else ""
        return f"{self.origin} {how} {self.seconds:.3f} s{stack}"


Handler: TypeAlias = Callable[[SlowCallback], object]


class SlowReport(Observer):
    """Has ``handler`` told of each callback of ``bridge`` that takes ``seconds`` or more, until `close`; a context
    manager.
    """

    def __init__(
        self, bridge: BridgeCore, seconds: float, handler: Handler | None = None, *, stack: bool = False
    ) -> None:
        if not seconds > 0:
            raise ValueError(f"what is slow must be more than 0 seconds; found {seconds!r}")
        bridge.check()
        self._bridge = weakref.ref(bridge)
        self._dispatcher = bridge._dispatcher
        self._ns = int(seconds * 1e9)
        self._handler = handler or _warn
        self._stack = stack
        self._over = threading.Event()
        self._blocked: dict[int, str | None] = {}  # what was told of while it blocked: since when, its stack
        bridge.observe(self)
        watch = threading.Thread(
            target=_watch, args=(weakref.ref(self), self._over, seconds / LOOKS), name="slow callbacks", daemon=True
        )
        watch.start()

    def close(self) -> None:
        """Tell no more.  Any thread; idempotent."""
        self._over.set()
        bridge = self._bridge()
        if bridge is not None:
            bridge.unobserve(self)

    def __enter__(self) -> SlowReport:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the loop's thread

    def called(self, whose: Origin, began: int, ended: int, events: int, deadline: int) -> None:
        if ended - began >= self._ns:
            self._ended(whose, began, ended)

    def freed(self, began: int, ended: int, count: int) -> None:
        if ended - began >= self._ns:
            self._ended(FREES, began, ended)

    def _ended(self, whose: Origin, began: int, ended: int) -> None:
        stack = self._blocked.pop(began, None)
        self._blocked.clear()
        self._tell(SlowCallback(whose, (ended - began) / 1e9, False, stack))

    # -- the watching thread

    def look(self) -> None:
        """Is the loop's thread in one that is slow already, and not told of yet?"""
        dispatcher = self._dispatcher
        if not isinstance(dispatcher, ObservedDispatcher):
            return
        since, whose = dispatcher.running, dispatcher.calling
        took = monotonic_ns() - since
        if not since or took < self._ns or since in self._blocked:
            return
        stack = _stack_of(dispatcher.thread) if self._stack else None
        if dispatcher.running == since:  # it is still that one which was seen
            self._blocked[since] = stack
            self._tell(SlowCallback(whose, took / 1e9, True, stack))

    def _tell(self, slow: SlowCallback) -> None:
        try:
            self._handler(slow)
        except Exception as error:
            bridge = self._bridge()
            if bridge is not None and not slow.blocks:
                bridge._report(error, f"in {self._handler!r}, told of {slow.origin}")
            else:  # not on the loop's thread, where alone the error handler is called
                log.exception("in %r, told of %s", self._handler, slow.origin)

    @property
    def is_over(self) -> bool:
        bridge = self._bridge()
        return bridge is None or bridge.closed


def _watch(report: weakref.ref[SlowReport], over: threading.Event, seconds: float) -> None:
    while not over.wait(seconds):
        watched = report()
        if watched is None or watched.is_over:
            return
        watched.look()
        del watched


def _stack_of(thread: int) -> str | None:
    """What is above the dispatcher there."""
    top = sys._current_frames().get(thread)
    if top is None:
        return None
    frames = itertools.takewhile(lambda frame: frame[0].f_code not in _CALLERS, traceback.walk_stack(top))
    return "".join(reversed(traceback.StackSummary.extract(frames).format()))


def _warn(slow: SlowCallback) -> None:
    with contextlib.suppress(Exception):
        log.warning("%s", slow)
