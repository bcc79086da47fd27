"""The soak, for a moment on each host; and that it is not blind."""

from __future__ import annotations

import functools
import signal
from typing import Any

import pytest

from eventbridge.core.dispatcher import Dispatcher
from eventbridge.core.fdtable import FdTable
from eventbridge.core.registry import Registry
from eventbridge.core.timers import Timers
from eventbridge.stress import loops
from eventbridge.stress.hazards import Hazards
from eventbridge.stress.racing import Report, Soak
from tests.stress.plants import (
    Wrap,
    call_twice,
    do_nothing,
    fire_early,
    forget_a_free,
    free_inside_remove,
    free_twice,
    now_and_then,
    stay_asleep,
)


def soak(host: str, seconds: float, **wanted: Any) -> Report:
    return Soak(host, functools.partial(loops.bridge_on, host), seconds=seconds, **wanted).run()


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select", "uvloop"])
def test_nothing_is_lost_or_left(host: str) -> None:
    """Random adds, updates, removes and closes, from 4 threads, with 1000 fds: no lost event, no leaked fd, memory
    flat, every free exactly once."""
    report = soak(host, 1.0, seed=1)
    assert report.clean, report
    assert (report.lost, report.wrong, report.leaked_fds) == (0, 0, 0)
    assert report.frees_called == report.frees_owed > 100
    assert report.operations > 1000
    assert report.callbacks > 1000


FAULTS: dict[str, tuple[type, str, Wrap, str]] = {
    "a free that is forgotten": (
        Registry,
        "_removed",
        now_and_then(100, forget_a_free),
        "",
    ),
    "a free that is called twice": (Registry, "_removed", now_and_then(100, free_twice), "was freed twice (H7)"),
    "a free on the wrong thread": (Registry, "_removed", now_and_then(100, free_inside_remove), "(H7)"),
    "an update that does not count": (
        FdTable,
        "turn",
        now_and_then(10, do_nothing),
        "having asked for 0 (H2, H5)",
    ),
    "an fd that is not armed again": (FdTable, "_rearm", now_and_then(1, stay_asleep), "lost: "),
    "ghosts that are not left behind": (
        FdTable,
        "haunt",
        now_and_then(1, do_nothing),
        "another file's event (H11)",
    ),
    "a timeout that is early": (Timers, "schedule", now_and_then(2, fire_early), "too early (T3, T4)"),
    "a timeout that is forgotten": (
        Registry,
        "next_period",
        now_and_then(5, do_nothing),
        "lost: a timeout of",
    ),
    "a callback that is called twice": (
        Dispatcher,
        "_prepare",
        now_and_then(1, call_twice),
        "nothing to read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is not blind: what it is there for, it sees."""
    owner, name, wrap, complaint = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    reports = (soak("select", 0.5, seed=seed, fds=300, patience=1.0) for seed in range(20))
    assert any(has_found(report, complaint) for report in reports)


def has_found(report: Report, complaint: str) -> bool:
    """A forgotten free is seen by the count alone."""
    if not complaint:
        return report.frees_called < report.frees_owed
    return any(complaint in said for said in report.complaints)


@pytest.mark.parametrize("fault", ["eintr", "emfile", "restart"])
def test_a_fault_is_injected_and_nothing_is_lost(fault: str) -> None:
    """Each really happens, beside exceptions, slow callbacks and forks, and every rule is kept all the same."""
    hazards = Hazards("1", frozenset({fault}))
    report = soak("select", 1.0, seed=1, fds=100, threads=2, hazards=hazards)
    assert report.clean, report
    assert report.counts[fault] > 0
    assert report.counts["forks"] > 0
    assert not set(report.counts) & ({"eintr", "emfile", "restart", "clock"} - {fault})


def test_a_process_that_was_stopped_makes_up_for_nothing() -> None:
    """T4: the whole process is stopped for a second; a timeout that is late is called once, and none is lost."""
    report = soak("select", 1.0, seed=1, fds=50, threads=1, hazards=Hazards("1", frozenset({"clock"})))
    assert report.clean, report
    assert report.counts["clock"] > 0


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN], ids=["default", "ignored"])
def test_a_signal_of_a_storm_that_comes_late_finds_a_function(before: signal.Handlers) -> None:
    """CPython would end the process, or write of a race to standard error, where only the C handler has seen it."""
    storm = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
    for number in storm:
        signal.signal(number, before)
    assert soak("select", 0.3, seed=1, fds=20, threads=2, hazards=Hazards("1", frozenset({"eintr"}))).clean
    handlers = [signal.getsignal(number) for number in storm]
    assert all(callable(handler) for handler in handlers), handlers
