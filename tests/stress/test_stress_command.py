"""``eventbridge stress``, the command and the processes that it starts."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventbridge.cli import main
from eventbridge.stress import loops, shutdown, supervisor
from eventbridge.stress.faults import ALL
from eventbridge.stress.plan import NEW_BRIDGE, HostReport, Plan
from eventbridge.stress.script import Script, load
from tests.support.command import Running

QUICK = "--handles 60 --threads 2 --seed 7"


def run(plan: Plan) -> HostReport:
    [report] = supervisor.run([plan], 1, lambda running: None, lambda: False)
    return report


def plan(tmp_path: Path, **wanted: Any) -> Plan:
    return Plan(
        **{
            "host": "asyncio",
            "seconds": 0.5,
            "handles": 40,
            "threads": 1,
            "seed": 3,
            "faults": [],
            "scripts": str(tmp_path),
            **wanted,
        }
    )


def test_it_tells_what_came_of_each_host_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, two processes at a time; --for and --fds are older spellings."""
    arguments = "stress --for 0.5 --fds 60 --threads 2 --seed 7 --faults none --json --jobs 2 --loop asyncio gevent"
    assert main(arguments.split()) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(report["host"], report["seed"], report["clean"]) for report in told] == [
        ("asyncio", 7, True),
        ("gevent", 7, True),
    ]
    for report in told:
        assert report["rounds"] > 1
        assert report["callbacks"] > 100
        assert report["counts"]["forks"] > 0
        assert not set(report["counts"]) & set(ALL)


def test_each_fault_is_injected_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and a row: what was injected, and that nothing came of it."""
    assert main(f"stress --seconds 2.5 {QUICK} --faults eintr,emfile,restart,clock --loop asyncio".split()) == 0
    heading, row = capsys.readouterr().out.splitlines()[1:]
    assert row.split()[0] == "asyncio"
    counts = dict(zip(heading.replace("frees called / owed", "frees").split(), row.split(), strict=False))
    assert int(counts["emfile"]) > 0
    assert [counts[name] for name in ("shutdown", "lost", "wrong", "fds")] == ["0", "0", "0", "0"]


@pytest.mark.parametrize("way", shutdown.WAYS)
def test_an_interpreter_may_end_with_live_registrations(way: str) -> None:
    """With the exit code that it should, and nothing said."""
    assert shutdown.end(NEW_BRIDGE, "select", way) == ""


def test_an_interpreter_that_ends_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said, and its exit code."""
    said = shutdown.end("tests.stress.plants:nosuch", "select", "the end of main")
    assert "exit code 1 instead of 0" in said
    assert "nosuch" in said


def test_a_defect_in_a_hosts_process_is_shrunk_and_its_script_reproduces_it(tmp_path: Path) -> None:
    """By --script too, with exit code 1; and on the core as it is, 0."""
    planted = plan(tmp_path, plant="tests.stress.plants:free_twice_each_time", seconds=0.2, racing=False)
    report = run(planted)
    assert not report.clean
    assert any("freed twice (H7)" in complaint for complaint in report.complaints)
    kept = load(Path(report.scripts[0]))
    assert Path(report.scripts[0]).name == f"stress-asyncio-{kept.seed}.json"
    assert len(kept.steps) <= 4
    assert not supervisor.run_script(planted, kept).clean
    assert main(["stress", "--script", report.scripts[0]]) == 0


def test_a_crash_is_told_and_shrunk_in_processes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its signal and the script that it died in; the others go on."""
    monkeypatch.setattr(supervisor, "SHRINK_SECONDS", 2.0)
    crashing = plan(tmp_path, plant="tests.stress.plants:abort_in_an_update")
    reports = supervisor.run([crashing, plan(tmp_path, faults=[])], 2, lambda running: None, lambda: False)
    assert "it crashed with SIGABRT in script " in reports[0].complaints[0]
    kept = load(Path(reports[0].scripts[0]))
    assert "SIGABRT" in supervisor.run_script(crashing, kept).complaints[0]
    assert reports[1].clean


def test_a_process_that_hangs_or_speaks_is_a_violation(tmp_path: Path) -> None:
    """And is not there any more afterwards."""
    runner = supervisor.Runner(plan(tmp_path, plant="tests.stress.plants:hang_and_say_so"))
    while not runner._stderr.tell():
        runner._stderr.seek(0, os.SEEK_END)
    runner.deadline = 0.0
    runner.finish(interrupted=False)
    assert "it hangs: here I am" in runner.report.complaints[0]
    assert runner.process.poll() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--seconds 0", "must be a number of seconds, more than 0"),
        ("--for soon", "must be a number of seconds, more than 0"),
        ("--handles 1", "must be a whole number from 2 to 1000000"),
        ("--threads -1", "must be a whole number from 1 to 256"),
        ("--seed x", "must be a whole number from 0 to"),
        ("--jobs 0", "must be a whole number from 1 to 64"),
        ("--faults eintr,nosuch", "no fault is called 'nosuch'"),
        ("--loop nosuch", "no host loop is called 'nosuch'"),
    ],
)
def test_a_wrong_call_is_refused(arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what was wrong."""
    with pytest.raises(SystemExit) as exit:
        main(["stress", *arguments.split()])
    assert exit.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_script_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, whether there is none, it is none, or its host is not known."""
    (tmp_path / "none.json").write_text("{}")
    Script("nosuch", 1, []).save(tmp_path / "nosuch.json")
    for name, complaint in (("missing", "No such file"), ("none", "it has no 'steps'"), ("nosuch", "'nosuch'")):
        assert main(["stress", "--script", str(tmp_path / f"{name}.json")]) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("host", ["asyncio", "select"])
def test_ctrl_c_ends_it_with_what_was_seen_so_far(host: str) -> None:
    """The row is there, clean; the hosts that were to come are left out, and no process is left."""
    command = [sys.executable, "-m", "eventbridge", "stress", "--for", "50", "--faults", "restart"]
    command += ["--handles", "60", "--threads", "2", "--seed", "4", "--loop", host, "libuv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            running = Running(process)
            assert running.shows(1)[0].startswith("seed ")
            child = wait_for(lambda: children(process.pid))
            running.send(signal.SIGINT)
            code, told, complaints = running.ends()
        finally:
            process.kill()
    assert [line.split()[0] for line in told.splitlines()] == ["host", host]
    assert code == 0, complaints
    assert complaints == ""
    assert not any(Path(f"/proc/{pid}").exists() for pid in child)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(ask: Callable[[], list[int]]) -> list[int]:
    while not (found := ask()):
        pass
    return found


def test_a_wakeup_fd_that_is_full_or_gone_is_no_violation_and_what_stands_beside_it_is() -> None:
    """Python's own words, of a loop that wants to be told so, and of trio's at the end of a run."""
    full = (
        "Exception ignored when trying to write to the signal wakeup fd:\nTraceback (most recent call last):\n"
        '  File "random.py", line 367, in choice\n    def choice(self, seq):\n\n'
        "BlockingIOError: [Errno 11] Resource temporarily unavailable\n"
    )
    gone = full.replace("BlockingIOError: [Errno 11]", "BrokenPipeError: [Errno 32]")
    closed = full.replace("BlockingIOError: [Errno 11]", "OSError: [Errno 9]")
    broken = full.replace("BlockingIOError: [Errno 11]", "OSError: [Errno 5]")
    assert supervisor.UNHEARD.sub("", full * 3 + gone + closed) == ""
    assert supervisor.UNHEARD.sub("", f"{full}something else\n{full}") == "something else\n"
    assert supervisor.UNHEARD.sub("", broken) == broken


def test_hosts_that_cannot_be_raced_say_why() -> None:
    """Each of those is a host that there is."""
    assert set(loops.NOT_RACED) <= set(loops.names())
    assert functools.reduce(lambda shortest, why: min(shortest, len(why)), loops.NOT_RACED.values(), 99) > 20
