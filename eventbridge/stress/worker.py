"""The process of one host: scripted and racing rounds in turn until the time is over, and what came of them.

``python -m eventbridge.stress.worker FD`` reads a `Plan`, one line of JSON, from standard input, and writes to
FD a line after every round: ``{"report": ...}`` as it stands, and before a scripted one ``{"begin": seed}``, so that
whoever started it knows what a crash came of.  SIGINT ends it with what was seen so far.  Standard error is for what
must not be there, and for the stacks of a hang.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import json
import os
import re
import signal
import sys
import time
import warnings
from itertools import count
from pathlib import Path
from typing import Any

from eventbridge.testing.patience import PATIENCE

from . import shutdown
from .hazards import Hazards
from .plan import HostReport, Plan, named
from .racing import Soak, make_room, resident
from .script import Script, Step, draw, load
from .scripted_round import BridgeOn, Outcome, perform
from .shrink import shrink

SCRIPTED_SHARE = 0.35
"""Of the time; shutdowns have what they take, the racing rounds the rest."""
SCRIPTED_SECONDS = 2.0
"""Most of one batch of scripted rounds."""
RACING_SECONDS = 20.0
"""Most of one racing round."""
ROUND_PATIENCE = 60.0
"""Seconds that a round may hang beyond its time, until the process ends with the stacks of its threads."""
SHRINK_SECONDS = 30.0
MOST_SCRIPTS = 3
"""Failing scripts that are shrunk and kept; what fails more often fails in the same way, mostly."""


WARM: list[Step] = [
    {"do": "open", "slot": 0, "kind": "pipe"},
    {"do": "add", "slot": 0, "end": "r", "mask": 1, "takes": 1},
    {"do": "write", "slot": 0, "records": 1, "thread": 1},
    {"do": "timeout", "slot": 0, "ms": 0},
    {"do": "fork"},
    {"do": "turn", "passes": 3},
]


class Worker:
    """One run of a plan."""

    def __init__(self, plan: Plan, tell: Any) -> None:
        self.plan = plan
        self.report = HostReport(plan.host, plan.seed)
        self._tell = tell
        self._faults = frozenset(plan.faults)
        self._bridge_on: BridgeOn = functools.partial(named(plan.bridge_on), plan.host)
        self._interrupted = False
        self._started = time.monotonic()
        self._scripted = 0.0  # s spent on
        self._seeds = count(plan.seed)
        self._warm = 0  # bytes

    def run(self) -> HostReport:
        signal.signal(signal.SIGINT, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # `supervisor` has blocked it until now
        self._warm_up()
        self._started = time.monotonic()
        for turn in count():
            self._scripted_rounds()
            if self._left() > 0 and self.plan.racing:
                self._racing_round(turn)
            if "shutdown" in self._faults and not self._interrupted and (turn == 0 or self._left() > 0):
                self._shut_down(turn)
            if self._left() <= 0:
                break
            self._warm = self._warm or resident()
        if self._warm:
            self.report.growth = max(self.report.growth, resident() - self._warm)
        self._say()
        return self.report

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    def _left(self) -> float:
        return 0.0 if self._interrupted else self.plan.seconds - (time.monotonic() - self._started)

    def _say(self, **more: Any) -> None:
        self.report.seconds = round(time.monotonic() - self._started, 3)
        self._tell({"report": self.report.to_json(), **more})

    def _warm_up(self) -> None:
        """What a host's library opens once in a process's life is not to count as left."""
        with _no_longer_than(ROUND_PATIENCE):
            self._perform(Script(self.plan.host, 0, WARM))

    # -- scripted rounds

    def _scripted_rounds(self) -> None:
        begun = time.monotonic()
        share = SCRIPTED_SHARE if self.plan.racing else 1.0
        end = begun + min(SCRIPTED_SECONDS, max(0.1, self.plan.seconds * share - self._scripted))
        while time.monotonic() < end and not self._interrupted:
            seed = next(self._seeds)
            self._tell({"begin": seed})
            with _no_longer_than(ROUND_PATIENCE):
                script = draw(self.plan.host, seed, threads=min(self.plan.threads, 4), faults=self._faults)
                outcome = self._perform(script)
            self.report.add(outcome, called=f"script {seed}")
            if outcome.complaints and len(self.report.scripts) < MOST_SCRIPTS:
                self._shrink(script, outcome)
        self._scripted += time.monotonic() - begun
        self._say()

    def _perform(self, script: Script, **how: Any) -> Outcome:
        return perform(script, self._bridge_on, **how)

    def _shrink(self, script: Script, outcome: Outcome) -> None:
        kinds = _kinds(outcome)

        def fails(steps: list[Step]) -> bool:
            tried = Script(script.host, script.seed, steps)
            return not self._interrupted and not kinds.isdisjoint(_kinds(self._perform(tried, stuck_after=1)))

        with _no_longer_than(SHRINK_SECONDS + ROUND_PATIENCE):
            steps = shrink(script.steps, fails, seconds=SHRINK_SECONDS)
            again = self._perform(Script(script.host, script.seed, steps))
        if not again.complaints:  # a loop on a busy machine was taken for a stuck one
            steps, again = script.steps, outcome
        keep_script(Script(script.host, script.seed, steps, again.complaints), self.plan, self.report)

    # -- racing rounds

    def _racing_round(self, turn: int) -> None:
        seconds = min(RACING_SECONDS, max(1.0, self._left() / 2 if turn == 0 and self._left() > 6 else self._left()))
        seed = self.plan.seed + turn
        hazards = Hazards(str(seed), self._faults if self.plan.storms else self._faults - {"eintr"})
        soak = Soak(
            self.plan.host,
            self._bridge_on,
            seconds=seconds,
            fds=self.plan.handles,
            threads=self.plan.threads,
            seed=seed,
            stopping=lambda: self._interrupted,
            hazards=hazards,
        )
        before = self.report.operations

        def progress(soak: Soak, elapsed: float) -> None:
            report = self.report.to_json() | {"operations": before + soak.operations}
            self._tell({"report": report | {"seconds": round(time.monotonic() - self._started, 3)}})

        with _no_longer_than(seconds + 3 * PATIENCE + ROUND_PATIENCE):
            outcome = soak.run(progress)
        self.report.add(outcome, called=f"racing {seed}")
        self.report.growth = max(self.report.growth, outcome.growth)
        self._say()

    # -- shutdowns

    def _shut_down(self, turn: int) -> None:
        ways = shutdown.ways(self.plan.host)
        for way in ways if turn == 0 else [ways[turn % len(ways)]]:
            if self._interrupted:
                break
            self.report.counts["shutdown"] += 1
            self.report.rounds += 1
            if complaint := shutdown.end(self.plan.new_bridge, self.plan.host, way):
                self.report.accuse(f"shutdown: {complaint}")
            self._say()


def _kinds(outcome: Outcome) -> set[str]:
    """Its complaints, but for the numbers in them: a script is not to be shrunk to one that fails otherwise."""
    return {re.sub(r"\d+", "#", complaint) for complaint in outcome.complaints}


def keep_script(script: Script, plan: Plan, report: HostReport) -> None:
    path = Path(plan.scripts) / f"stress-{script.host}-{script.seed}.json"
    with contextlib.suppress(OSError):  # the complaints are told all the same
        script.save(path)
        report.scripts.append(str(path))


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Any:
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_script(plan: Plan) -> HostReport:
    """The one script of the plan."""
    script = load(Path(plan.script))
    report = HostReport(plan.host, script.seed)
    with _no_longer_than(ROUND_PATIENCE):
        bridge_on = functools.partial(named(plan.bridge_on), plan.host)
        started = time.monotonic()
        perform(Script(plan.host, 0, WARM), bridge_on)
        report.add(perform(script, bridge_on), called=f"script {script.seed}")
        report.seconds = round(time.monotonic() - started, 3)
    return report


def main(fd: int) -> None:
    plan = Plan(**json.loads(sys.stdin.readline()))
    warnings.simplefilter("ignore", DeprecationWarning)  # a host's own, and forks among threads
    faulthandler.enable()

    def tell(what: dict[str, Any]) -> None:
        try:
            os.write(fd, json.dumps(what).encode() + b"\n")
        except BrokenPipeError:
            os._exit(1)  # whoever started it has gone

    make_room(plan.handles)
    if plan.plant:
        named(plan.plant)()
    report = run_script(plan) if plan.script else Worker(plan, tell).run()
    tell({"report": report.to_json(), "end": True})


if __name__ == "__main__":
    main(int(sys.argv[1]))
