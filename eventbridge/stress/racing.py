"""The soak: random adds, updates, removes and closes, from several threads, on one bridge, for a while.

Some threads operate on a thousand fds and a hundred timeouts while the loop runs in the caller's; so do the callbacks
themselves.  The oracle (oracle.py, subjects.py) judges every call as it comes.  At the end what is left must
arrive, everything is removed, every ``free`` must have been called once, the process must have the fds it had before,
and must not have grown since the warm-up.

`Soak.run` is called on the thread that is to run the loop.  The same seed draws the same operations for each thread;
how the threads interleave is the machine's.
"""

from __future__ import annotations

import functools
import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from eventbridge.bridge import Bridge
from eventbridge.core.bridge import ErrorHandler
from eventbridge.core.masks import Events
from eventbridge.testing.patience import PATIENCE

from .oracle import Ledger
from .subjects import File, Ghosts, Subject, Tick

if TYPE_CHECKING:
    from .hazards import Hazards

BridgeOn: TypeAlias = Callable[[ErrorHandler], AbstractContextManager[Bridge]]
"""Makes a bridge on a loop that is ours to run, and closes both."""

GROWTH_BOUND = 8 * 2**20
"""Bytes of resident memory that the process may grow by after the warm-up."""
WARM_UP = 0.25
"""Of the time; what is allocated then stays, as arenas and free lists."""
CALM = 0.3
"""Of the time, at its end: nobody closes before removing, as what the poller does about that also mends what was lost
otherwise.
"""
SLICE = 0.25
"""Seconds between two looks at the progress."""
SWITCH = 0.0005
"""Seconds after which a thread gives way to another: a tenth of the interpreter's usual, for more interleavings."""
BREATH = 32
"""Operations after which a thread lets the loop have a turn."""
SPARE_FDS = 128
"""For dups, the loop's own fds, and everybody else's."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.  Times in seconds, memory in bytes."""

    host: str
    seed: int
    seconds: float
    operations: int
    callbacks: int
    lost: int
    wrong: int
    leaked_fds: int
    growth: int
    frees_owed: int
    frees_called: int
    complaints: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    """Of what else was done, and planted (`eventbridge.stress.hazards`)."""

    @property
    def clean(self) -> bool:
        return (
            not (self.lost or self.wrong or self.leaked_fds)
            and self.frees_owed == self.frees_called
            and self.growth <= GROWTH_BOUND
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "clean": self.clean}


class Soak:
    """One soak on one host."""

    def __init__(
        self,
        host: str,
        bridge_on: BridgeOn,
        *,
        seconds: float,
        fds: int = 1000,
        threads: int = 4,
        seed: int = 1,
        patience: float = PATIENCE,
        stopping: Callable[[], bool] = lambda: False,
        hazards: Hazards | None = None,
    ) -> None:
        """``patience``: seconds until what has not come counts as lost.  ``stopping``: asked often, on any thread;
        once it is true the soak ends early.  ``hazards``: what else is to happen.
        """
        self._hazards = hazards
        self.host = host
        self.seconds = seconds
        self.seed = seed
        self._stopping = stopping
        self._bridge_on = bridge_on
        self._files = max(2, fds // 2)
        self._threads = threads
        self._patience = patience
        self._ledger = Ledger(patience)
        self._loops_random = Random(f"{seed}/loop")
        self._subjects: list[Subject] = []
        self._ghosts = Ghosts()
        self._operations = [0] * (threads + 1)  # by thread; the last is the loop's
        self._over = False

    @property
    def operations(self) -> int:
        return sum(self._operations)

    def run(self, progress: Callable[[Soak, float], None] | None = None) -> Report:
        """Run it in this thread; ``progress(self, elapsed seconds)`` is called now and then."""
        with self._bridge_on(lambda error, context: None) as bridge:
            bridge.run(timeout=0.001)  # some loops open, once, what stays for the process's life
        _statm()
        before = _open_fds()
        switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        ledger = self._ledger = Ledger(self._patience)
        try:
            with self._bridge_on(ledger.on_error) as bridge:
                started = time.monotonic()
                growth = self._soak(bridge, ledger, progress)
                elapsed = time.monotonic() - started
        finally:
            sys.setswitchinterval(switch)
            self._ghosts.exorcise()
        self._subjects = []
        del bridge
        leaked = len(_open_fds() - before)
        counts = {} if self._hazards is None else self._hazards.counts
        if ledger.told != counts.get("raised", 0):
            ledger.accuse(f"{counts.get('raised', 0)} exceptions were raised, {ledger.told} told (D4)")
        return Report(
            host=self.host,
            seed=self.seed,
            seconds=round(elapsed, 3),
            operations=self.operations,
            callbacks=ledger.callbacks,
            lost=ledger.lost,
            wrong=ledger.wrong,
            leaked_fds=leaked,
            growth=growth,
            frees_owed=ledger.added,
            frees_called=ledger.freed,
            complaints=ledger.complaints,
            counts=dict(counts),
        )

    def _soak(self, bridge: Bridge, ledger: Ledger, progress: Callable[[Soak, float], None] | None) -> int:
        """Returns how much memory it has grown by."""
        random = self._loops_random
        files = [File(bridge, ledger, self._meanwhile, self._ghosts, random) for _ in range(self._files)]
        ticks = [Tick(bridge, ledger, self._meanwhile, random) for _ in range(max(1, self._files // 5))]
        self._subjects = [*files, *ticks]
        workers = [threading.Thread(target=self._work, args=(number,)) for number in range(self._threads)]
        for worker in workers:
            worker.start()
        try:
            if self._hazards is not None:
                self._hazards.begin(bridge, ledger, workers, self._from_a_signal)
            started = time.monotonic()
            self._turn(bridge, started, started + self.seconds * WARM_UP, progress)
            warm = resident()
            self._turn(bridge, started, started + self.seconds * (1 - CALM), progress)
            if self._hazards is not None:
                self._hazards.feed()
            self._calm(bridge)
            self._turn(bridge, started, started + self.seconds, progress)
            growth = resident() - warm
        finally:
            if self._hazards is not None:
                self._hazards.end()
            self._over = True
            for worker in workers:
                worker.join()
        self._settle(bridge, files, ticks)
        return growth

    def _turn(
        self, bridge: Bridge, started: float, until: float, progress: Callable[[Soak, float], None] | None
    ) -> None:
        while not self._stopping() and (now := time.monotonic()) < until:
            end = min(until, now + SLICE)
            if self._hazards is not None:
                self._hazards.feed()
            # Not by run's own timeout alone, which is the bridge's and may be what is lost.
            bridge.run(until=partial(self._ended, end), timeout=end - now)
            if progress is not None:
                progress(self, time.monotonic() - started)

    def _ended(self, end: float) -> bool:
        return self._stopping() or time.monotonic() >= end

    def _calm(self, bridge: Bridge) -> None:
        """From here on nobody closes before removing; and the last ghost there is has the poller start afresh."""
        for subject in self._subjects:
            subject.lock.acquire()
        self._ghosts.allowed = False
        for subject in self._subjects:
            subject.lock.release()
        reader, writer = os.pipe()
        id = bridge.add_handle(reader, Events.READABLE, lambda *_: None)
        self._ghosts.keep(os.dup(reader))
        os.close(reader)
        bridge.remove_handle(id)
        os.write(writer, b"!")
        os.close(writer)

    # -- operations

    def _work(self, number: int) -> None:
        random = Random(f"{self.seed}/{number}")
        while not (self._over or self._stopping()):
            for _ in range(BREATH):
                self._operate(number, random, by_loop=False)
            time.sleep(SWITCH)

    def _meanwhile(self) -> None:
        """Now and then a callback operates on others."""
        if not self._over and self._loops_random.random() < 0.1:
            self._operate(self._threads, self._loops_random, by_loop=True)
        if self._hazards is not None:
            self._hazards.in_callback()

    def _from_a_signal(self) -> None:
        """In a handler, which comes in anywhere on the loop's thread: perhaps where a call is decided on already, so
        that it counts as another thread's (H6).
        """
        if not self._over:
            self._operate(self._threads, self._loops_random, by_loop=False)

    def _operate(self, number: int, random: Random, by_loop: bool) -> None:
        subject = random.choice(self._subjects)
        if not subject.lock.acquire(blocking=False):
            return  # somebody else is at it
        try:
            if not subject.overdue():
                subject.operate(random, by_loop)
                self._operations[number] += 1
        except Exception as error:
            self._ledger.accuse(f"an operation failed: {error!r}")
        finally:
            subject.lock.release()

    # -- the end

    def _settle(self, bridge: Bridge, files: list[File], ticks: list[Tick]) -> None:
        """Let come what is left, then remove everything; the loop is not running between the two."""
        for subject in (*files, *ticks):
            subject.settle()
        bridge.run(until=lambda: not any(subject.overdue() for subject in self._subjects), timeout=self._patience * 1.5)
        for subject in (*files, *ticks):
            subject.overdue()
            try:
                subject.finish()
            except Exception as error:  # an operation on it has failed before, surely
                self._ledger.accuse(f"cannot be finished: {error!r}")
        if not bridge.run(until=bridge.is_empty, timeout=self._patience):
            self._ledger.accuse(f"not empty at the end: {bridge!r}")


def make_room(fds: int) -> bool:
    """Raise the soft limit of open files (ulimit -n) where so many do not fit; False where the hard one is too
    low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/dev/fd")) + fds + SPARE_FDS
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return True
    if hard != resource.RLIM_INFINITY and wanted > hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def _open_fds() -> set[str]:
    gc.collect()  # a loop may keep its fds until it is collected
    return set(os.listdir("/dev/fd"))


def resident() -> int:
    """Bytes that this process has in memory, but for garbage."""
    gc.collect()
    return int(os.pread(_statm(), 200, 0).split()[1]) * resource.getpagesize()


@functools.cache
def _statm() -> int:
    """Opened once, before the faults: there may be no fd to be had at the moment."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
