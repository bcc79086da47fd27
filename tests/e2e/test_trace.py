"""``eventbridge trace``: of hypervisors that are watched, of somebody's program, of a daemon that runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import environment, eventbridge, interruptible, running
from tests.support.patience import PATIENCE
from tests.support.trace_format import read

SIM = "sim:///default?domains=3&seed=1&rate=200"

DAEMON = """
import sys, eventbridge
import beside  # a module of its own, in its own directory
bridge = eventbridge.Bridge("select")
connection = eventbridge.open("sim:///default?domains=3&seed=1&rate=200", bridge)
bridge.run(until=lambda: connection.opened.done, timeout=30)
print("runs", __name__, *sys.argv[1:], flush=True)
{then}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("")
    return tmp_path / "daemon.py"


def write(program: Path, then: str) -> str:
    program.write_text(DAEMON.format(then=then))
    return str(program)


def test_hypervisors_that_are_watched_are_traced_for_as_long_as_was_asked_for(file: Path) -> None:
    done = eventbridge("trace", SIM, "--for", "4", "-o", str(file))
    assert done.returncode == 0, done.stderr
    seen = read(file)
    assert seen.spans("pass") and seen.spans("sim") and seen.spans("host")
    assert [mark["args"]["state"] for mark in seen.marks("connection")] == ["opening", "open", "closed"]
    events = len([event for event in seen.events if event["ph"] != "M"])
    assert re.search(rf"{file}: {events} events of (?:[4-9]|\d\d)\.\d s; see https://ui.perfetto.dev\n", done.stderr)
    assert re.search(r"simulated-\d +\w+", done.stdout), "it is shown as watch shows it"


@pytest.mark.parametrize(("number", "loop"), [(signal.SIGINT, "asyncio"), (signal.SIGTERM, "select")])
def test_the_file_is_whole_also_when_it_is_interrupted(file: Path, number: signal.Signals, loop: str) -> None:
    with running("trace", SIM, "--loop", loop, "-o", str(file)) as trace:
        trace.shows(5)
        trace.send(number)
        code, _, err = trace.ends()
    assert (code, "Traceback" in err) == (0, False)
    assert read(file).spans("callback", "sim: ")


def test_a_program_runs_as_if_by_itself_and_every_bridge_in_it_is_traced(file: Path, program: Path) -> None:
    script = write(program, "bridge.run(timeout=0.2)\nother = eventbridge.Bridge('asyncio')\nother.run(timeout=0.01)")
    done = eventbridge("trace", "-o", str(file), "--", script, "--for", "you")
    assert (done.returncode, done.stdout) == (0, "runs __main__ --for you\n"), done.stderr
    seen = read(file)
    assert seen.spans("sim")
    names = [event["args"]["name"] for event in seen.events if event["name"] == "process_name"]
    assert [re.sub(r"\d+", "N", name) for name in names] == [
        "bridge on select (process N)",
        "bridge on asyncio (process N)",
    ]


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("sys.exit('it is over')", 1, "it is over\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM); bridge.run(timeout=30)", 143, ""),
    ],
)
def test_its_end_is_the_program_s_own_and_the_file_is_whole(
    file: Path, program: Path, then: str, code: int, said: str
) -> None:
    done = eventbridge("trace", "-o", str(file), "--", write(program, then))
    assert done.returncode == code
    assert said in done.stderr
    assert read(file).spans("pass")


def test_a_program_that_is_interrupted_ends_as_it_would_and_the_file_is_whole(file: Path, program: Path) -> None:
    with running("trace", "-o", str(file), "--", write(program, "bridge.run(timeout=60)")) as trace:
        trace.shows(1)
        trace.send(signal.SIGINT)
        code, _, err = trace.ends()
    assert (code, "Traceback" in err) == (130, False)
    assert read(file).spans("callback")


def test_a_forked_child_of_the_program_does_not_write_over_the_file(file: Path, program: Path) -> None:
    """D7."""
    script = write(
        program, "import os\nif os.fork():\n    os.wait()\n    bridge.run(timeout=0.05)\nelse:\n    sys.exit(0)"
    )
    done = eventbridge("trace", "-o", str(file), "--", script)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(str(file)) == 1
    assert read(file).spans("callback")


# -- a daemon that runs


@pytest.fixture
def daemon(program: Path, tmp_path: Path) -> Iterator[str]:
    """Its diagnosis socket."""
    path = str(tmp_path / "daemon.sock")
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, write(program, "bridge.run(timeout=120)")],
            env=environment(EVENTBRIDGE_DIAGNOSIS=path),
            stdout=subprocess.PIPE,
            text=True,
        )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "runs __main__\n"
        yield path
        assert process.poll() is None, "asking has ended it"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) != 0
    assert not os.path.exists(path)


def test_a_daemon_that_runs_tells_its_figures_its_stacks_and_a_trace(daemon: str, file: Path) -> None:
    stats = eventbridge("trace", daemon, "--stats")
    assert (stats.returncode, stats.stderr) == (0, "")
    assert stats.stdout.startswith("process ") and "on select\n" in stats.stdout
    assert re.search(r"handles \+ timeouts  \d+ \+ \d+: eventbridge 0 \+ 5, sim \d+ \+ \d+\n", stats.stdout)
    stacks = eventbridge("trace", daemon, "--stacks")
    assert (stacks.returncode, stacks.stderr) == (0, "")
    assert "thread MainThread" in stacks.stdout and "bridge.run(timeout=120)" in stacks.stdout
    traced = eventbridge("trace", daemon, "--for", "0.3", "-o", str(file))
    assert (traced.returncode, traced.stdout) == (0, ""), traced.stderr
    assert read(file).spans("callback", "sim: ")
    with running("trace", daemon, "--for", "3000", "-o", str(file)) as trace:
        trace.until("Ctrl-C ends it")
        trace.send(signal.SIGINT)
        code, _, err = trace.ends()
    assert (code, "Traceback" in err) == (0, False), err
    read(file)


# -- called wrongly


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "'nosuch' is neither a URI, nor a socket, nor a program that is there"),
        (["nosuch:///default"], "no driver knows this scheme; there are: "),
        ([SIM, "--stats"], "is no socket of a daemon's: EVENTBRIDGE_DIAGNOSIS=PATH has a daemon make one"),
        ([SIM, "--limit", "0"], "a whole number of records"),
        ([], "the following arguments are required: TARGET"),
    ],
)
def test_what_is_asked_wrongly_is_said(arguments: list[str], said: str, file: Path) -> None:
    done = eventbridge("trace", *arguments, "-o", str(file))
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_said_in_one_line(program: Path, tmp_path: Path) -> None:
    done = eventbridge("trace", "-o", str(tmp_path / "no" / "trace.json"), "--", write(program, ""))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "No such file or directory" in done.stderr


def test_a_socket_where_nobody_serves_any_more_is_said(tmp_path: Path) -> None:
    import socket

    path = str(tmp_path / "left.sock")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(path)
    done = eventbridge("trace", path, "--stats")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"eventbridge: {path}: nobody serves there any more\n"
