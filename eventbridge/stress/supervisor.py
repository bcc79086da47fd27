"""The parent's side: a process for each host, so many at a time, minded until it ends, crashes or hangs.

A host's process that dies of a signal, outlives its deadline, or says anything on standard error has violated
something, and its seed is told.  Where it died in a scripted round, that script is run again in processes of its own
until it is small.  No process is left behind: each is the leader of a session, which is killed whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .plan import HostReport, Plan
from .script import Script, Step, draw
from .shrink import shrink
from .worker import SHRINK_SECONDS, keep_script

GRACE = 300.0
"""Seconds that a host's process may take beyond twice its time, to start, to shrink, to settle, to shut interpreters
down; the rounds have deadlines of their own, with a stack to show.
"""
END_GRACE = 20.0
"""Seconds in which it has to end after Ctrl-C; then it is killed."""
LOOK_EVERY = 0.2
MOST_STDERR = 4000
UNHEARD = re.compile(
    r"Exception ignored when trying to write to the signal wakeup fd:\nTraceback.*\n(?:  .*\n|\n)*"
    r"(?:BlockingIOError|BrokenPipeError|OSError: \[Errno 9\]).*\n"
)
"""What Python says where a storm of signals is quicker than a loop (gbulb's) that asked to be told of that; no harm in
it, as a wake-up that is waiting already is as good.  And where one comes while trio, at the end of a run, has closed
its pair of sockets and not yet told Python so (trio/_core/_wakeup_socketpair.py, close).
"""
WORKER = "eventbridge.stress.worker"

Progress = Callable[[list["Runner"]], None]


class Runner:
    """One host's process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = HostReport(plan.host, plan.seed)
        self.ended = False
        """Did it say that it is done?"""
        self.scripted: int | None = None
        """The seed of the scripted round that it was in when it last said something."""
        self._rest = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # until `finish`
        reader, writer = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the worker has a handler for it
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(writer)],
                stdin=subprocess.PIPE,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=[writer],
                start_new_session=True,  # so Ctrl-C is ours to pass on
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            os.close(writer)
        self.said = open(reader, "rb", buffering=0)  # noqa: SIM115  # until `finish`
        assert self.process.stdin is not None
        with self.process.stdin as stdin, contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        self.deadline = time.monotonic() + 2 * plan.seconds + GRACE

    def read(self) -> bool:
        """What it has said meanwhile; False at the end of that."""
        data = self.said.read(65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._heard(json.loads(line))
        return bool(data)

    def _heard(self, what: dict[str, Any]) -> None:
        self.scripted = what.get("begin")
        self.ended = bool(what.get("end"))
        if "report" in what:
            self.report = HostReport.from_json({key: value for key, value in what["report"].items() if key != "clean"})

    def interrupt(self) -> None:
        self.deadline = time.monotonic() + END_GRACE
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    def finish(self, *, interrupted: bool) -> None:
        """It has ended, or must: judge how."""
        late = time.monotonic() > self.deadline
        if not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with whatever it has left behind
        code = self.process.wait()
        self.said.close()
        said = self._said_wrongly()
        if code and not interrupted:
            self.report.accuse(f"{self._death(code, late)}{self._where()}{': ' if said else ''}{said}")
        elif said:
            self.report.accuse(f"on standard error: {said}")

    @property
    def crashed(self) -> bool:
        return self.process.returncode not in (0, None) and not self.ended

    def _said_wrongly(self) -> str:
        self._stderr.seek(0)
        said = UNHEARD.sub("", self._stderr.read().decode(errors="replace")).strip()
        self._stderr.close()
        return said if len(said) <= MOST_STDERR else f"{said[: MOST_STDERR // 2]} [...] {said[-MOST_STDERR // 2 :]}"

    def _death(self, code: int, late: bool) -> str:
        if late:
            return "it hangs"
        if code < 0:
            return f"it crashed with {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"

    def _where(self) -> str:
        return "" if self.scripted is None else f" in script {self.scripted}"


def run(plans: list[Plan], jobs: int, progress: Progress, interrupted: Callable[[], bool]) -> list[HostReport]:
    """Run them, at most ``jobs`` at a time; the reports in the order of the plans, without those not begun when
    ``interrupted()`` became true.  ``progress`` is called with those that run, several times a second.
    """
    waiting = list(plans)
    running: list[Runner] = []
    done: list[Runner] = []
    told = False
    try:
        while running or (waiting and not told):
            while waiting and len(running) < jobs and not told:
                running.append(Runner(waiting.pop(0)))
            for runner in _heard(running):
                running.remove(runner)
                runner.finish(interrupted=told)
                done.append(runner)
                if runner.crashed and runner.scripted is not None and not told:
                    _shrink_crash(runner)
            if interrupted() and not told:
                told = True
                for runner in running:
                    runner.interrupt()
            progress(running)
    finally:
        for runner in running:
            runner.deadline = 0.0
            runner.finish(interrupted=True)
    done.sort(key=lambda runner: plans.index(runner.plan))
    return [runner.report for runner in done]


def _heard(running: list[Runner]) -> list[Runner]:
    """Hear what they say for a moment; returns those that have ended, or should have."""
    over = []
    with selectors.DefaultSelector() as selector:
        for runner in running:
            selector.register(runner.said, selectors.EVENT_READ, runner)
        for key, _ in selector.select(LOOK_EVERY):
            if not key.data.read():
                over.append(key.data)
    return over + [runner for runner in running if runner not in over and time.monotonic() > runner.deadline]


def _shrink_crash(runner: Runner) -> None:
    """The script that it died in, each trial in a process of its own."""
    plan, seed = runner.plan, runner.scripted
    assert seed is not None
    script = draw(plan.host, seed, threads=min(plan.threads, 4), faults=frozenset(plan.faults))

    def fails(steps: list[Step]) -> bool:
        return not run_script(plan, Script(script.host, seed, steps)).clean

    steps = shrink(script.steps, fails, seconds=SHRINK_SECONDS) if fails(script.steps) else script.steps
    keep_script(Script(script.host, seed, steps, runner.report.complaints), plan, runner.report)


def run_script(plan: Plan, script: Script) -> HostReport:
    """Run one script in a process of its own, as ``plan`` would."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "script.json"
        script.save(path)
        [report] = run([replace(plan, script=str(path), seconds=0.0)], 1, lambda _: None, lambda: False)
    return report
