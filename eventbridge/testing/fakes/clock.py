"""Time under the test's hand: it stands still until it is advanced, and the core believes it.

Two things make the core's time: the clock functions that its modules have imported, and the poller's timerfd.  While
a `FakeClock` is installed, each module of the core has this one's `monotonic` and `monotonic_ns` in place of the
system's, and every bridge that is made gets a poller whose timer is this clock (`ClockPoller`).  Nothing is asked at
run time, so the core is as it is without it.  Threads that wait for one another still do so in real time, and what was
given a clock as an argument keeps it.

The timeouts' rules (T1-T6) and the pass's two milliseconds (D2) can so be shown exactly, and without waiting.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from eventbridge.core.poll_poller import best_poller
from eventbridge.core.poller import EpollPoller
from eventbridge.core.timers import NEVER

NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}

_APART = tuple(f"eventbridge.{part}" for part in ("testing", "stress", "cli", "benchmark", "adapters.hosts"))


class ClockPoller(EpollPoller):
    """`PollerProtocol` over epoll(7), with an eventfd in the timerfd's place, which the clock writes to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        for fd in self.inner:
            self._epoll.unregister(fd)
        os.close(self._timer)
        self._timer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.inner = (self._event, self._timer)
        self._arm_inner(self._epoll)
        self._clock = clock
        self.deadline = NEVER
        """What the timer is armed for, in ns; NEVER (timers.py) while it is not."""

    def arm(self, deadline: int) -> None:
        with self._clock.lock:
            self.deadline = deadline
            self.tell()

    def tell(self) -> None:
        """Under the clock's lock: readable, once, if the deadline is reached; as a timerfd is."""
        if self.deadline <= self._clock.now:
            self.deadline = NEVER
            os.eventfd_write(self._timer, 1)

    def close(self) -> None:
        self._clock.forget(self)
        super().close()


class FakeClock:
    """CLOCK_MONOTONIC, as far as the core can tell.  Any thread."""

    def __init__(self, now: int = 1_000 * NS["s"]) -> None:
        self.now = now
        """In nanoseconds."""
        self.lock = threading.Lock()
        self._pollers: list[ClockPoller] = []

    def monotonic(self) -> float:
        return self.now / NS["s"]

    def monotonic_ns(self) -> int:
        return self.now

    def poller(self) -> ClockPoller:
        """A poller whose timer this clock is, for a bridge that is made while the clock is not installed."""
        poller = ClockPoller(self)
        with self.lock:
            self._pollers.append(poller)
        return poller

    def forget(self, poller: ClockPoller) -> None:
        with self.lock, contextlib.suppress(ValueError):
            self._pollers.remove(poller)

    @property
    def deadline(self) -> int | None:
        """The earliest that a poller's timer is armed for, in nanoseconds; None where none is."""
        with self.lock:
            earliest = min((poller.deadline for poller in self._pollers), default=NEVER)
        return None if earliest == NEVER else earliest

    def advance(self, *, s: int = 0, ms: int = 0, us: int = 0, ns: int = 0) -> None:
        """Let so much time pass, all at once, as for a loop that was held up.  A bridge whose timer is due is ready
        then; the calls come in its host's next pass.
        """
        passed = s * NS["s"] + ms * NS["ms"] + us * NS["us"] + ns
        if passed < 0:
            raise ValueError(f"CLOCK_MONOTONIC does not go back: asked for {passed} ns")
        with self.lock:
            self.now += passed
            for poller in self._pollers:
                poller.tell()

    def run(self, step: Callable[[], object], *, s: int = 0, ms: int = 0, us: int = 0, ns: int = 0) -> None:
        """Let so much time pass from deadline to deadline, as for a loop that is never late: ``step()`` is called at
        each, and at the end, and is to make the passes that there are (`SteppingHost.step_until_idle`).
        """
        step()
        end = self.now + s * NS["s"] + ms * NS["ms"] + us * NS["us"] + ns
        while (deadline := self.deadline) is not None and deadline <= end:
            self.advance(ns=max(0, deadline - self.now))
            step()
        self.advance(ns=max(0, end - self.now))
        step()

    @contextlib.contextmanager
    def installed(self) -> Iterator[FakeClock]:
        """The core's clock for this block: of every core module and hypervisor adapter that is loaded, and of every
        bridge that is made in it.
        """
        undo: list[tuple[Any, str, Any]] = []
        given: list[tuple[Any, str, Any]] = []
        for module in _core():
            given.extend((module, name, new) for name, old in vars(module).items() if (new := self._instead(old)))
        try:
            for module, name, new in given:
                undo.append((module, name, getattr(module, name)))
                setattr(module, name, new)
            yield self
        finally:
            for module, name, old in reversed(undo):
                setattr(module, name, old)

    def _instead(self, old: object) -> object:
        """What a module's global is replaced by; None: it stays."""
        if old is time.monotonic:
            return self.monotonic
        if old is time.monotonic_ns:
            return self.monotonic_ns
        if old is best_poller:
            return self.poller
        if old is time:
            return SimpleNamespace(**{**vars(time), "monotonic": self.monotonic, "monotonic_ns": self.monotonic_ns})
        return None


def _core() -> list[ModuleType]:
    """The loaded modules that are the core, or a hypervisor's: not the hosts, whose own timers are real."""
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("eventbridge.") and not name.startswith(_APART) and isinstance(module, ModuleType)
    ]
