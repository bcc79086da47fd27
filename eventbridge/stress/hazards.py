"""What a racing round meets beside its operations: callbacks and frees that raise, that are slow, that run the loop
again (D5), that fork (D7); signal handlers that operate on the bridge; and the faults, one after the other, from a
thread of their own (`faults`).

What happens in which callback is the machine's doing, as all interleaving is here.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import resource
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from random import Random

from eventbridge.bridge import Bridge
from eventbridge.errors import HostUnavailable

from . import forked
from .faults import FAULTS, Inject
from .late_signals import put_back
from .oracle import Ledger, Planted
from .slots import lowest_free

RAISE, SLOW, NEST = 0.002, 0.0005, 0.0005
"""In how many of the callbacks."""
FORK_EVERY = 0.7
"""Seconds."""
NESTED_SECONDS = 0.003
DEEPEST = 2
FEWEST_FDS = 8
"""A limit on fds below what a poll(2) is about to look at would make that fail, which running out of them does not."""
CLOCK_EVERY = 4
"""Turns of all faults."""
PERIOD_MS = 50
BURST = 6
"""Calls of a timeout of `PERIOD_MS` that may not come within twice that (T4)."""
OPERATING, BARE = signal.SIGUSR1, signal.SIGUSR2
"""A signal whose handler operates on the bridge, and one whose handler does nothing."""


class Hazards:
    """Those of one racing round.  Its `Soak` calls it; but for what is said otherwise, on the loop's thread."""

    def __init__(self, seed: str, faults: frozenset[str]) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._random = Random(f"{seed}/hazards")
        self._faults: list[tuple[str, Inject]] = [(name, FAULTS[name]) for name in sorted(faults) if name in FAULTS]
        self._depth = 0
        self._next_fork = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._starve_for = 0.0  # s; asked for by the faults' thread
        self.starved_until = 0.0
        self._calls: collections.deque[float] = collections.deque(maxlen=BURST)
        self._undo = contextlib.ExitStack()

    def begin(
        self, bridge: Bridge, ledger: Ledger, workers: list[threading.Thread], operate: Callable[[], None]
    ) -> None:
        """``operate()``: one operation, as a signal's handler does it."""
        self.bridge, self.ledger, self.workers = bridge, ledger, workers
        self.loop_thread = threading.get_ident()
        ledger.in_free = self._in_free
        self._undo.callback(setattr, ledger, "in_free", None)
        for number, handler in (
            (OPERATING, lambda *_: operate()),
            (BARE, lambda *_: None),
            (signal.SIGALRM, lambda *_: None),
        ):
            self._undo.callback(put_back, number, signal.signal(number, handler))
            signal.siginterrupt(number, True)
        periodic = bridge.add_timeout(PERIOD_MS, self._on_period)
        self._undo.callback(bridge.remove_timeout, periodic)
        self._thread = threading.Thread(target=self._inject, name="faults")
        self._thread.start()

    def end(self) -> None:
        """No more of it.  The workers are still there."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self.feed()
        self._undo.close()

    # -- in callbacks

    def in_callback(self) -> None:
        if self._over.is_set():
            return
        if self._starve_for:
            self._starve()
        drawn = self._random.random()
        if drawn < RAISE:
            self.counts["raised"] += 1
            raise Planted("in a callback")
        if drawn < RAISE + SLOW:
            self.counts["slow"] += 1
            time.sleep(self._random.choice((0.001, 0.003, 0.01)))
        elif drawn < RAISE + SLOW + NEST:
            self._nest()
        elif time.monotonic() > self._next_fork:
            self._next_fork = time.monotonic() + FORK_EVERY
            self._fork()

    def _in_free(self) -> None:
        if not self._over.is_set() and self._random.random() < RAISE:
            self.counts["raised"] += 1
            raise Planted("in a free")

    def _nest(self) -> None:
        if self._depth >= DEEPEST:
            return
        self._depth += 1
        try:
            self.bridge.run(timeout=NESTED_SECONDS)
            self.counts["nested"] += 1
        except HostUnavailable:
            self.counts["cannot nest"] += 1
        except OSError as error:
            if not self.is_starved(error):
                raise
        finally:
            self._depth -= 1

    def _fork(self) -> None:
        try:
            forked.fork(self.bridge, self.ledger.accuse)
            self.counts["forks"] += 1
        except OSError as error:
            if not self.is_starved(error):
                raise

    def _on_period(self, id: int, opaque: object) -> None:
        self._calls.append(time.monotonic())
        if len(self._calls) == BURST and self._calls[-1] - self._calls[0] < 2 * PERIOD_MS / 1000:
            self.ledger.accuse(f"a timeout of {PERIOD_MS} ms was called {BURST} times at once (T4)")

    # -- faults, and what they need of the loop's thread

    def _inject(self) -> None:
        """All of them in turn, each time in another order; the one that takes a second, less often."""
        for turn in count():
            order = [fault for fault in self._faults if fault[0] != "clock" or turn % CLOCK_EVERY == 0]
            self._random.shuffle(order)
            for name, inject in order:
                if self._over.wait(self._random.uniform(0.05, 0.2)):
                    return
                inject(self)
                self.counts[name] += 1
            if self._over.wait(0.01):
                return

    def wait(self, seconds: float) -> bool:
        """For a fault, on its thread: False if the round is over sooner."""
        return not self._over.wait(seconds)

    def starve(self, seconds: float) -> None:
        """For a fault, on its thread: ask the loop to run out of fds, when it is in a callback; and wait."""
        self._starve_for = seconds
        while self._starve_for and self.wait(0.001):
            pass
        self.wait(seconds)
        self.feed()

    def _starve(self) -> None:
        self.starved_until = float("inf")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(FEWEST_FDS, lowest_free()), self._limits[1]))
        self._starve_for = 0.0

    def feed(self) -> None:
        """Any thread; and before the loop is run again: a host may need fds for that."""
        if self.starved_until == float("inf"):
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
            self.starved_until = time.monotonic() + self.ledger.patience  # who met it may come to say so only now

    def is_starved(self, error: OSError) -> bool:
        """Is it this that ``error`` is about?  Any thread."""
        return error.errno == errno.EMFILE and time.monotonic() < self.starved_until
