"""One scripted round: a bridge on a host's own loop, under a fake clock, and the steps of a script taken on it.

Between the steps the loop is turned until it is at rest (the bridge's fd is not readable) or has made so many passes.
At rest, whatever was to come has come; that is checked each time.  At the end everything that is left must come, the
loop must come to rest, every ``free`` be called, and every fd be closed.

`perform` is called on the main thread, whose loop it runs; signals come there.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import gc
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from eventbridge.bridge import Bridge
from eventbridge.core.bridge import ErrorHandler
from eventbridge.core.host import RunnableHost
from eventbridge.errors import BridgeClosed, HostUnavailable, UnknownHandle
from eventbridge.testing.fakes.clock import FakeClock
from eventbridge.testing.patience import FACTOR

from . import forked
from .late_signals import put_back
from .lockstep import Lockstep
from .oracle import Ledger, Planted
from .script import FILES, ONLY_INSIDE, TIMEOUTS, Script, Step
from .slots import FIRST_FD, FileSlot, TimeoutSlot, lowest_free

BridgeOn: TypeAlias = Callable[[ErrorHandler], AbstractContextManager[Bridge]]

LOCK_SECONDS = 2.0 * FACTOR
"""Seconds of real time; only a lock that will never be free is waited for so long."""
SETTLE_PASSES = 500
DEEPEST = 3
"""Runs inside one another."""
SIGNAL = signal.SIGUSR1


@dataclass(slots=True)
class Outcome:
    """What came of a script."""

    complaints: list[str]
    trace: list[tuple[str, str, int]]
    """Every call: of what, which end, what it was told."""
    operations: int
    callbacks: int
    lost: int
    wrong: int
    frees_owed: int
    frees_called: int
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    """Of what else was done: forks, nested runs, signals, what was planted..."""


def perform(script: Script, bridge_on: BridgeOn, *, stuck_after: int = 10) -> Outcome:
    """Run one script, from start to end; ``stuck_after`` so many seconds of real time without a pass it is stopped."""
    before = set(os.listdir("/dev/fd"))
    _check_that_numbers_are_free(before)
    clock = FakeClock()
    ledger = Ledger(LOCK_SECONDS)
    with clock.installed(), Lockstep() as threads:
        world = World(clock, ledger, threads)
        try:
            with (
                _handling(SIGNAL, world.on_signal),
                bridge_on(ledger.on_error) as bridge,
                _minding(world, bridge, stuck_after),
            ):
                world.run(bridge, script.steps)
        finally:
            world.leave()
    world.judge_errors()
    del world.bridge, bridge  # with which a loop goes, and its fds (gbulb's)
    if leaked := _leaked(before):
        ledger.accuse(f"{leaked} fds are left")
    if ledger.added != ledger.freed:
        ledger.accuse(f"{ledger.added} frees were owed, {ledger.freed} called (H7)")
    return Outcome(
        ledger.complaints,
        world.trace,
        world.operations,
        ledger.callbacks,
        ledger.lost,
        ledger.wrong,
        ledger.added,
        ledger.freed,
        world.counts,
    )


def _check_that_numbers_are_free(open_here: set[str]) -> None:
    """A script's files would be put over somebody's."""
    wanted = range(FIRST_FD, FIRST_FD + 2 * FILES)
    taken = [number for number in wanted if str(number) in open_here]
    if taken:
        raise OSError(
            errno.EBUSY,
            f"a script's files are fds {wanted[0]} to {wanted[-1]}, of which {taken[0]} is open here, in a process "
            f"with {len(open_here)} open files: run scripts in one with fewer",
        )


@contextlib.contextmanager
def _handling(number: int, handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        put_back(number, before)


@contextlib.contextmanager
def _minding(world: World, bridge: Bridge, seconds: int) -> Iterator[None]:
    """Look at it every second: one whose loop sleeps for ever is to be an outcome, not a hang."""
    world.bridge = bridge
    with _handling(signal.SIGALRM, lambda *_: world.look(seconds)):
        others = signal.setitimer(signal.ITIMER_REAL, 1, 1)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *others)


def _leaked(before: set[str]) -> int:
    if set(os.listdir("/dev/fd")) == before:
        return 0
    gc.collect()  # a loop may keep its fds until it is collected
    return len(set(os.listdir("/dev/fd")) - before)


class World:
    """The state of one round."""

    bridge: Bridge

    def __init__(self, clock: FakeClock, ledger: Ledger, threads: Lockstep) -> None:
        self.ledger = ledger
        self.files = [FileSlot(self, number) for number in range(FILES)]
        self.timeouts = [TimeoutSlot(self, number) for number in range(TIMEOUTS)]
        self._slots: list[FileSlot | TimeoutSlot] = [*self.files, *self.timeouts]
        self.trace: list[tuple[str, str, int]] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.operations = 0
        self.depth = 0
        self._clock = clock
        self._threads = threads
        self._planned: dict[str, list[Step]] = {}
        self._for_signal: list[Step] = []
        self._kept: list[int] = []
        self.children: list[int] = []
        self._tag = 0
        self._most_fds = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._starved = False
        self._inside = 0  # callbacks that take steps
        self._stuck = False
        self._looks = 0  # without a pass between them
        self._passes_seen = -1

    # -- for the slots

    def now(self) -> int:
        return self._clock.now

    def passes(self) -> int:
        return self.bridge.stats().passes

    def next_tag(self) -> int:
        self._tag += 1
        return self._tag

    def note(self, slot: FileSlot | TimeoutSlot, what: str, told: int) -> None:
        self.trace.append((str(slot), what, told))

    def keep(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # starved
            self._kept.append(os.dup(fd))

    def planned_here(self, callback: str) -> None:
        """Take the steps that are planned for this callback; then raise, if that is one of them."""
        raising: list[type[BaseException]] = []
        self._inside += 1
        try:
            for step in self._planned.pop(callback, ()):
                if step["do"] in RAISES:
                    raising.append(RAISES[step["do"]])
                else:
                    self._take(step)
        finally:
            self._inside -= 1
        if raising:
            self.counts[RAISED[raising[0]]] += 1
            raise raising[0]("planted")

    def on_signal(self, number: int, frame: object) -> None:
        while self._for_signal:
            self._take(self._for_signal.pop())

    def look(self, seconds: int) -> None:
        """Once a second.  Is it stuck?  Then have every run there is end."""
        self._looks = self._looks + 1 if self.passes() == self._passes_seen else 0
        self._passes_seen = self.passes()
        if self._looks >= seconds and not self._stuck:
            self._stuck = True
            self.ledger.lose(f"a pass: there is work (or a loop was to end), and no pass for {seconds} s")
        host = self.bridge.host
        if self._stuck and isinstance(host, RunnableHost):
            with contextlib.suppress(HostUnavailable):
                host.call_soon_threadsafe(host.stop)

    def judge_errors(self) -> None:
        if self.ledger.told != self.counts["raised"]:
            self.ledger.accuse(f"{self.counts['raised']} exceptions were raised, {self.ledger.told} told (D4)")

    # -- the round

    def run(self, bridge: Bridge, steps: list[Step]) -> None:
        self.bridge = bridge
        self._look = select.poll()
        self._look.register(bridge._poller.fileno(), select.POLLIN)  # what its host watches
        for step in steps:
            if "in" in step:
                self._planned.setdefault(str(step["in"]), []).append(step)
            else:
                self._take(step)
        self._settle()

    def _settle(self) -> None:
        self._planned.clear()
        self.leave()
        self._each(lambda slot: slot.settle())
        self._clock.advance(ms=300)
        if not self._turn(SETTLE_PASSES):
            self.ledger.accuse(f"the loop does not come to rest in {SETTLE_PASSES} passes (H2, H11)")
        self._each(lambda slot: slot.finish())
        self._turn(SETTLE_PASSES)
        if not self.bridge.is_empty():
            self.ledger.accuse(f"not empty at the end: {self.bridge!r}")

    def _each(self, act: Callable[[FileSlot | TimeoutSlot], None]) -> None:
        for slot in self._slots:
            try:
                act(slot)
            except Exception as error:
                self.ledger.accuse(f"{slot} cannot be settled: {error!r}")

    def leave(self) -> None:
        """Undo what the bridge is to know nothing of."""
        self._feed()
        while self.children:
            forked.end(self.children.pop())
        while self._kept:
            os.close(self._kept.pop())

    def _take(self, step: Step) -> None:
        if step["do"] in ONLY_INSIDE and not self._inside:
            return  # a loop that is not running, and may need fds to, is not what that is for
        self.operations += 1
        try:
            self._threads.act(int(step.get("thread", 0)), lambda: DEEDS[step["do"]](self, step))
        except (KeyboardInterrupt, SystemExit):
            raise
        except OSError as error:
            if not self._starved:
                self.ledger.accuse(f"{step['do']} failed: {error!r}")
        except Exception as error:
            self.ledger.accuse(f"{step['do']} failed: {error!r}")

    def turn(self, step: Step) -> None:
        self._turn(int(step["passes"]))

    def _turn(self, passes: int) -> bool:
        """Run the loop for so many passes, or until it is at rest; is it?"""
        last = self.passes() + passes
        while self.passes() < last and not self._at_rest() and not self._stuck:
            self._run_once(lambda: self.passes() >= last or self._at_rest())
            self._feed()
        if not self._at_rest():
            return False
        for slot in self._slots:
            if missing := slot.missing():
                self.ledger.lose(missing)
        return True

    def _run_once(self, until: Callable[[], bool]) -> None:
        try:
            self.bridge.run(until)
        except SystemExit:
            self.counts["exits let out"] += 1
            if self.counts["exits let out"] > self.counts["exits"]:
                self.ledger.accuse("SystemExit came out of run twice (D4)")
        except Exception as error:
            self.ledger.accuse(f"{error!r} came out of run")

    def _at_rest(self) -> bool:
        return not self._look.poll(0)

    # -- steps of its own

    def advance(self, step: Step) -> None:
        self._clock.advance(ms=int(step["ms"]))

    def let_go(self, step: Step) -> None:
        self.leave()

    def send_signal(self, step: Step) -> None:
        self.counts["signals"] += 1
        self._for_signal.append(step["then"])
        signal.raise_signal(SIGNAL)

    def fork(self, step: Step) -> None:
        self.counts["forks"] += 1
        child = forked.fork(self.bridge, self.ledger.accuse, linger=bool(step.get("keep")))
        if child:
            self.children.append(child)

    def stop(self, step: Step) -> None:
        self.counts["stops"] += 1
        self.bridge.stop()

    def starve(self, step: Step) -> None:
        """No new fd from here on, until the loop has turned."""
        self.counts["emfile"] += 1
        self._starved = True
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), self._most_fds[1]))

    def _feed(self) -> None:
        if self._starved:
            self._starved = False
            resource.setrlimit(resource.RLIMIT_NOFILE, self._most_fds)

    def nest(self, step: Step) -> None:
        """Run the loop again inside this callback, where its host can."""
        if self.depth >= DEEPEST:
            return
        left = int(step["passes"])

        def count(id: int, opaque: Any) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                self.bridge.stop()

        counter = self.bridge.add_timeout(0, count)
        self.depth += 1
        try:
            self.bridge.run()
            self.counts["nested"] += 1
        except HostUnavailable:
            self.counts["cannot nest"] += 1
        finally:
            self.depth -= 1
            with contextlib.suppress(UnknownHandle, BridgeClosed):
                self.bridge.remove_timeout(counter)


RAISES: dict[str, type[BaseException]] = {"raise": Planted, "exit": SystemExit}
RAISED: dict[type[BaseException], str] = {Planted: "raised", SystemExit: "exits"}

Deed: TypeAlias = Callable[[World, Step], None]


def _of_file(deed: Callable[[FileSlot, Step], None]) -> Deed:
    return lambda world, step: deed(world.files[int(step["slot"]) % FILES], step)


def _of_timeout(deed: Callable[[TimeoutSlot, Step], None]) -> Deed:
    return lambda world, step: deed(world.timeouts[int(step["slot"]) % TIMEOUTS], step)


# The vocabulary of scripts.
DEEDS: dict[str, Deed] = {
    "open": _of_file(FileSlot.make),
    "add": _of_file(FileSlot.add),
    "update": _of_file(FileSlot.update),
    "remove": _of_file(FileSlot.remove),
    "write": _of_file(FileSlot.write),
    "hang up": _of_file(FileSlot.hang_up),
    "close": _of_file(FileSlot.close),
    "timeout": _of_timeout(TimeoutSlot.set),
    "remove timeout": _of_timeout(TimeoutSlot.remove),
    "turn": World.turn,
    "advance": World.advance,
    "slow": World.advance,
    "let go": World.let_go,
    "signal": World.send_signal,
    "fork": World.fork,
    "stop": World.stop,
    "starve": World.starve,
    "nest": World.nest,
    "raise": lambda world, step: None,  # outside of callbacks there is nobody to raise it to
    "exit": lambda world, step: None,
}
