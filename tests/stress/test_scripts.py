"""Scripted rounds: determined by their seed, found guilty of what is planted, and shrunk."""

from __future__ import annotations

import functools
import json
import os
import threading
from pathlib import Path

import pytest

from eventbridge.core.fdtable import FdTable
from eventbridge.core.registry import Registry
from eventbridge.stress import loops, slots
from eventbridge.stress.lockstep import Lockstep
from eventbridge.stress.script import Script, Step, draw, load
from eventbridge.stress.scripted_round import Outcome, perform
from eventbridge.stress.shrink import shrink
from tests.stress.plants import Wrap, do_nothing, forget_a_free, free_twice, now_and_then

FAULTS = frozenset({"emfile", "restart", "clock"})


def drawn(host: str, seed: int) -> Script:
    return draw(host, seed, threads=3, faults=FAULTS)


def outcome(script: Script, **how: int) -> Outcome:
    warm_up(script.host)
    return perform(script, functools.partial(loops.bridge_on, script.host), **how)


@functools.cache
def warm_up(host: str) -> None:
    """What a host's library opens once in a process's life is not left by a script."""
    with loops.bridge_on(host) as bridge:
        bridge.run(timeout=0.001)


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select"])
def test_nothing_is_lost_in_scripted_rounds(host: str) -> None:
    """Every rule, over 40 scripts, with whatever else they plant."""
    counts: dict[str, int] = {}
    for seed in range(40):
        script = drawn(host, seed)
        found = outcome(script)
        assert not found.complaints, (seed, found.complaints)
        assert found.frees_called == found.frees_owed
        counts = {name: counts.get(name, 0) + found.counts[name] for name in {*counts, *found.counts}}
    assert counts["raised"] and counts["signals"] and counts["forks"] and counts["emfile"] and counts["exits"], counts
    assert counts["raised"] > counts["exits"]


def test_the_same_seed_draws_the_same_script_and_the_same_outcome() -> None:
    """Threads in lockstep, a fake clock, the same fd numbers: nothing of it is chance; and another seed is another."""
    first, again, other = drawn("select", 5), drawn("select", 5), drawn("select", 6)
    assert first.steps == again.steps != other.steps
    traces = [outcome(script).trace for script in (first, again, other)]
    assert traces[0] == traces[1] != traces[2]
    assert traces[0]


@pytest.mark.usefixtures("gevent_leaves")
def test_the_outcome_is_the_same_on_every_host_that_cannot_nest() -> None:
    """What is called, and in which order, is the contract's and not the host's."""
    assert outcome(drawn("asyncio", 9)).trace == outcome(drawn("gevent", 9)).trace


DEFECTS: dict[str, tuple[type, str, Wrap]] = {
    "a free that is forgotten": (Registry, "_removed", now_and_then(1, forget_a_free)),
    "a free that is called twice": (Registry, "_removed", now_and_then(1, free_twice)),
    "an update that does not count": (FdTable, "turn", now_and_then(1, do_nothing)),
    "ghosts that are not left behind": (FdTable, "haunt", now_and_then(1, do_nothing)),
    "a timeout that is forgotten": (Registry, "next_period", now_and_then(1, do_nothing)),
    "a fork that is not noticed": (Registry, "abandon", now_and_then(1, do_nothing)),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found_shrunk_and_run_again(
    defect: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A handful of steps is left, and the file that they are written to reproduces it."""
    warm_up("asyncio")
    owner, name, wrap = DEFECTS[defect]
    monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    script = next(script for seed in range(300) if outcome(script := drawn("asyncio", seed), stuck_after=1).complaints)
    steps = shrink(script.steps, lambda steps: fails(script, steps), seconds=20)
    assert len(steps) <= 8, steps
    small = Script("asyncio", script.seed, steps, outcome(Script("asyncio", script.seed, steps)).complaints)
    small.save(tmp_path / "small.json")
    assert load(tmp_path / "small.json") == small
    assert outcome(load(tmp_path / "small.json")).complaints == small.complaints != []
    monkeypatch.undo()
    assert not outcome(load(tmp_path / "small.json")).complaints, "it fails without the defect"


def fails(script: Script, steps: list[Step]) -> bool:
    return bool(outcome(Script(script.host, script.seed, steps), stuck_after=1).complaints)


def test_a_loop_that_sleeps_for_ever_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a hang: what makes a callback run the loop again, and nobody wakes it."""
    warm_up("select")
    monkeypatch.setattr(Registry, "set_timer", lambda *_: None)
    steps: list[Step] = [
        {"do": "open", "slot": 0, "kind": "pipe"},
        {"do": "nest", "passes": 1, "in": "file 0"},
        {"do": "add", "slot": 0, "end": "w", "mask": 1, "after": "remove"},
        {"do": "turn", "passes": 1},
    ]
    found = outcome(Script("select", 0, steps), stuck_after=1)
    assert any("no pass for 1 s" in complaint for complaint in found.complaints)


def test_shrinking_drops_what_is_not_needed_and_makes_numbers_small() -> None:
    """ddmin, over steps and then over numbers; what is left fails still."""
    steps: list[Step] = [{"do": str(number), "records": number, "thread": 2} for number in range(50)]

    def needs(found: list[Step]) -> bool:
        return {"7", "31"} <= {step["do"] for step in found} and sum(step["records"] for step in found) >= 3

    small = shrink(steps, needs)
    assert [step["do"] for step in small] == ["7", "31"]
    assert sum(step["records"] for step in small) == 3
    assert not any("thread" in step for step in small)


def test_threads_in_lockstep_act_one_after_the_other_each_in_its_own() -> None:
    """Whoever tells one to act waits for it, and gets what it raises."""
    acted: list[str] = []

    def refuse() -> None:
        raise OSError("refused")

    with Lockstep() as threads:
        for number in (2, 1, 2, 0):
            threads.act(number, lambda: acted.append(threading.current_thread().name))
        with pytest.raises(OSError, match="refused"):
            threads.act(1, refuse)
    assert acted[:3] == ["script 2", "script 1", "script 2"]
    assert not acted[3].startswith("script")


def test_a_kept_script_has_a_line_for_each_step(tmp_path: Path) -> None:
    """So that it can be read, and cut by hand."""
    script = drawn("select", 3)
    script.save(tmp_path / "kept.json")
    lines = (tmp_path / "kept.json").read_text().splitlines()
    for step in script.steps:
        assert sum(json.dumps(step) in line for line in lines) >= 1


@pytest.mark.parametrize("text", ["[]", "{}", '{"host": "select", "seed": 1, "steps": [7]}', "no JSON"])
def test_what_is_no_script_is_refused(text: str, tmp_path: Path) -> None:
    """ValueError, whatever is wrong with it."""
    (tmp_path / "no-script.json").write_text(text)
    with pytest.raises(ValueError):
        load(tmp_path / "no-script.json")


def test_a_script_does_not_put_its_files_over_somebodys() -> None:
    """As in a process with a thousand files open; it says which number, and does nothing."""
    strangers = os.eventfd(0)
    taken = slots.FIRST_FD + 3
    os.dup2(strangers, taken)
    os.close(strangers)
    try:
        with pytest.raises(OSError, match=f"of which {taken} is open here"):
            outcome(drawn("select", 1))
        assert os.eventfd_write(taken, 1) is None, "it is whose it was"
    finally:
        os.close(taken)
