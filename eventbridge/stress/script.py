"""A script: the steps of one scripted round, drawn from a seed; and the file that one is kept in.

A step is a dict of plain values, ``do`` and what that needs (`scripted_round` has the vocabulary).  ``in`` names the
callback that takes the step when it is next called ("file 2", "timeout 0", "free"); without it the step is taken before
the next pass.  ``thread`` is who takes it: 0, or nothing, is the loop's.  Steps are whole in themselves: one that finds
nothing to act on does nothing, so that every part of a script is a script.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

Step: TypeAlias = dict[str, Any]

FILES = 6
TIMEOUTS = 4
PASSES = 6
LONGEST = 120
"""Steps."""
STAY = 0.6
"""Of the steps on files are on the same as the one before."""
INSIDE = 0.35
"""Of the steps are taken inside a callback."""
MS = (-1, 0, 1, 2, 5, 10, 50)


class Dice(Random):
    """Stays with a file for a while: what fails is mostly several steps on the same."""

    slot = 0

    def file(self) -> int:
        if self.random() >= STAY:
            self.slot = self.randrange(FILES)
        return self.slot


@dataclass(slots=True)
class Script:
    """What to do, on which host, and what came of it when it was kept."""

    host: str
    seed: int
    steps: list[Step]
    complaints: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """A line a step, so that it can be read, and cut by hand."""
        steps = ",\n  ".join(json.dumps(step) for step in self.steps)
        complaints = ",\n  ".join(json.dumps(complaint) for complaint in self.complaints)
        path.write_text(
            f'{{"host": {json.dumps(self.host)}, "seed": {self.seed},\n'
            f' "complaints": [\n  {complaints}],\n "steps": [\n  {steps}]}}\n'
        )


def load(path: Path) -> Script:
    """ValueError where it is no script's file; OSError where there is none."""
    found = json.loads(path.read_text())
    try:
        steps = list(found["steps"])
        if not all(isinstance(step, dict) and isinstance(step.get("do"), str) for step in steps):
            raise ValueError("each of its steps must be an object with a 'do'")
        return Script(str(found["host"]), int(found["seed"]), steps, list(found.get("complaints", ())))
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has no {error}: a script is an object with host, seed and steps") from error


def draw(host: str, seed: int, *, threads: int, faults: frozenset[str]) -> Script:
    """The same for the same arguments, on any machine."""
    random = Dice(f"script/{seed}")
    steps: list[Step] = [{"do": "open", "slot": slot, "kind": random.choice(KINDS)} for slot in range(FILES)]
    drawers, weights = zip(
        *((make, weight) for make, weight, needs in DRAWERS if not needs or needs in faults), strict=True
    )
    for _ in range(random.randint(20, LONGEST)):
        step: Step = random.choices(drawers, weights)[0](random)
        if step["do"] in ("turn", "advance"):
            steps.append(step)
            continue
        if step["do"] in ONLY_INSIDE or random.random() < INSIDE:
            step["in"] = _callback(random)
        if step["do"] not in LOOPS_OWN and threads and random.random() < 0.4:
            step["thread"] = random.randint(1, threads)
        steps.append(step)
    return Script(host, seed, steps)


KINDS = ("pipe", "socket")
BOTH = 2
"""A mask: of an fd that is to be readable or writable, as a socket may be."""
ONLY_INSIDE = ("nest", "stop", "exit", "starve", "raise", "slow")
LOOPS_OWN = ("nest", "exit", "raise", "signal", "slow", "starve", "fork")
"""Not for other threads."""


def _callback(random: Dice) -> str:
    return random.choice(
        [f"file {random.file()}"] * 6
        + [f"timeout {random.randrange(TIMEOUTS)}"] * 2
        + ["free"]  # as often as they come
    )


def _timeout(random: Dice) -> int:
    return random.randrange(TIMEOUTS)


def _add(random: Dice) -> Step:
    end = "r" if random.random() < 0.75 else "w"
    step: Step = {"do": "add", "slot": random.file(), "end": end, "mask": int(random.random() < 0.85)}
    if end == "r" and random.random() < 0.75:
        step["takes"] = random.randint(1, 4)
    else:
        step["after"] = random.choice(("off", "remove", "keep"))
        if end == "r" and step["after"] != "keep" and random.random() < 0.4:
            step["mask"] = BOTH
    return step


def _signal(random: Dice) -> Step:
    then = random.choice((_add, _update, _remove, _close, _set_timeout))(random)
    return {"do": "signal", "then": then}


def _update(random: Dice) -> Step:
    return {"do": "update", "slot": random.file(), "nth": random.randrange(3), "mask": int(random.random() < 0.6)}


def _remove(random: Dice) -> Step:
    return {"do": "remove", "slot": random.file(), "nth": random.randrange(3)}


def _close(random: Dice) -> Step:
    return {"do": "close", "slot": random.file(), "keep": int(random.random() < 0.4)}


def _set_timeout(random: Dice) -> Step:
    return {"do": "timeout", "slot": _timeout(random), "ms": random.choice(MS)}


Drawer: TypeAlias = Callable[[Dice], Step]

# How to draw a step, how often, and which fault it is part of.
DRAWERS: tuple[tuple[Drawer, int, str], ...] = (
    (lambda random: {"do": "turn", "passes": random.randint(1, PASSES)}, 30, ""),
    (lambda random: {"do": "open", "slot": random.file(), "kind": random.choice(KINDS)}, 14, ""),
    (_add, 26, ""),
    (_update, 14, ""),
    (_remove, 8, ""),
    (lambda random: {"do": "write", "slot": random.file(), "records": random.randint(1, 5)}, 24, ""),
    (lambda random: {"do": "hang up", "slot": random.file()}, 4, ""),
    (_close, 12, ""),
    (lambda random: {"do": "let go"}, 2, ""),
    (_set_timeout, 12, ""),
    (lambda random: {"do": "remove timeout", "slot": _timeout(random)}, 4, ""),
    (lambda random: {"do": "advance", "ms": random.choice((0, 1, 2, 3, 10, 60))}, 10, ""),
    (lambda random: {"do": "advance", "ms": 2000}, 1, "clock"),
    (lambda random: {"do": "slow", "ms": random.choice((1, 3, 20))}, 3, ""),
    (lambda random: {"do": "raise"}, 5, ""),
    (lambda random: {"do": "nest", "passes": random.randint(1, 3)}, 5, ""),
    (_signal, 5, ""),
    (lambda random: {"do": "fork", "keep": int(random.random() < 0.5)}, 1, ""),
    (lambda random: {"do": "stop"}, 3, "restart"),
    (lambda random: {"do": "exit"}, 2, "restart"),
    (lambda random: {"do": "starve"}, 3, "emfile"),
)
