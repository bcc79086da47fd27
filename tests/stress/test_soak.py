"""The soak, for a moment on each host; and that it is not blind."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from eventbridge.cli import loops, main
from eventbridge.dispatcher import Dispatcher
from eventbridge.fdtable import FdTable
from eventbridge.registry import Registry
from eventbridge.testing.soak import Report, Soak
from eventbridge.timers import Timers


def soak(host: str, seconds: float, **wanted: Any) -> Report:
    return Soak(host, functools.partial(loops.bridge_on, host), seconds=seconds, **wanted).run()


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select", "uvloop"])
def test_nothing_is_lost_or_left(host: str) -> None:
    """Random adds, updates, removes and closes, from 4 threads, with 1000 fds: no lost event, no leaked fd, memory
    flat, every free exactly once."""
    report = soak(host, 2.0, seed=1)
    assert report.clean, report
    assert (report.lost, report.wrong, report.leaked_fds) == (0, 0, 0)
    assert report.frees_called == report.frees_owed > 100
    assert report.operations > 1000
    assert report.callbacks > 1000


# Faults to plant: each replaces a method by one that goes wrong, now and then, in the way of its name.
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def now_and_then(every: int, fault: Callable[..., Any]) -> Wrap:
    """``fault(original, *args)`` in place of each ``every``-th call."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        calls = count(1)

        def method(*args: Any, **named: Any) -> Any:
            return fault(original, *args, **named) if next(calls) % every == 0 else original(*args, **named)

        return method

    return wrap


def free_twice(removed: Callable[..., Any], registry: Registry, item: Any, free: bool) -> None:
    removed(registry, item, free)
    registry.frees.append((item.free, item.opaque, item))


def free_inside_remove(removed: Callable[..., Any], registry: Registry, item: Any, free: bool) -> None:
    item.free(item.opaque)


def stay_asleep(rearm: Callable[..., Any], table: FdTable, entry: Any) -> None:
    if entry.armed >= 0:
        entry.armed = entry.mask
    else:
        rearm(table, entry)


def fire_early(schedule: Callable[..., Any], timers: Timers, timer: Any, deadline: int) -> None:
    schedule(timers, timer, deadline - 500_000)


FAULTS: dict[str, tuple[type, str, Wrap, str]] = {
    "a free that is forgotten": (
        Registry,
        "_removed",
        now_and_then(100, lambda removed, registry, item, free: removed(registry, item, False)),
        "",
    ),
    "a free that is called twice": (Registry, "_removed", now_and_then(100, free_twice), "was freed twice (H7)"),
    "a free on the wrong thread": (Registry, "_removed", now_and_then(100, free_inside_remove), "(H7)"),
    "an update that does not count": (
        FdTable,
        "turn",
        now_and_then(10, lambda turn, table, handle, mask: None),
        "having asked for 0 (H2, H5)",
    ),
    "an fd that is not armed again": (FdTable, "_rearm", now_and_then(5, stay_asleep), "lost: "),
    "ghosts that are not left behind": (
        FdTable,
        "haunt",
        lambda haunt: lambda table, fd: None,
        "another file's event (H11)",
    ),
    "a timeout that is early": (Timers, "schedule", now_and_then(2, fire_early), "too early (T3, T4)"),
    "a timeout that is forgotten": (
        Registry,
        "next_period",
        now_and_then(5, lambda next_period, registry, timer: None),
        "lost: a timeout of",
    ),
    "a callback that is called twice": (
        Dispatcher,
        "_prepare",
        lambda prepare: lambda dispatcher, events: prepare(dispatcher, events) * 2,
        "nothing to read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is not blind: what it is there for, it sees."""
    owner, name, wrap, complaint = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    report = soak("select", 1.5, seed=1, fds=300, patience=1.0)
    assert not report.clean
    assert any(complaint in said for said in report.complaints) or not complaint
    if not complaint:
        assert report.frees_called < report.frees_owed


def test_the_command_tells_what_came_of_it_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line for each host loop; exit code 0 where it is clean."""
    arguments = "stress --for 0.3 --fds 100 --threads 2 --seed 7 --json --loop select --loop asyncio".split()
    assert main(arguments) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(report["host"], report["seed"], report["clean"]) for report in told] == [
        ("select", 7, True),
        ("asyncio", 7, True),
    ]


def test_the_command_fails_where_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, a row in the table all the same, and the complaints in words."""
    monkeypatch.setattr(Registry, "_removed", now_and_then(100, free_twice)(Registry._removed))
    assert main("stress --for 0.5 --loop select --seed 3".split()) == 1
    told = capsys.readouterr()
    assert told.out.startswith("seed 3: 1000 fds, 4 threads, 0.5 s on each host loop\n")
    assert told.out.splitlines()[-1].startswith("select ")
    assert "eventbridge: select: wrong: " in told.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--for 0", "must be a number of seconds, more than 0"),
        ("--for soon", "must be a number of seconds, more than 0"),
        ("--fds 1", "must be a whole number from 2 to 1000000"),
        ("--threads -1", "must be a whole number from 1 to 256"),
        ("--seed x", "must be a whole number from 0 to"),
        ("--loop nosuch", "no host loop is called 'nosuch'"),
    ],
)
def test_a_wrong_call_is_refused(arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what was wrong."""
    with pytest.raises(SystemExit) as exit:
        main(["stress", *arguments.split()])
    assert exit.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select"])
def test_ctrl_c_ends_it_with_what_was_seen_so_far(host: str) -> None:
    """The row is there, clean, and the hosts that were to come are left out."""
    command = [sys.executable, "-m", "eventbridge", "stress", "--for", "50", "--loop", host, "--loop", "select"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline().startswith("seed ")
            running.send_signal(signal.SIGINT)
            told, complaints = running.communicate(timeout=50)
        finally:
            running.kill()
    assert running.returncode == 0, complaints
    assert [line.split()[0] for line in told.splitlines()] == ["host", host]
    assert complaints == ""
