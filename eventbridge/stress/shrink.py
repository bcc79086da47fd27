"""A script that fails, made as small as it gets: delta debugging, over the steps and then over the numbers in them.

The algorithm is Zeller's and Hildebrandt's ddmin ("Simplifying and Isolating Failure-Inducing Input", 2002): drop
ever smaller chunks, keep what still fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .script import Step

Fails = Callable[[list[Step]], bool]


def shrink(steps: list[Step], fails: Fails, *, seconds: float = 60.0) -> list[Step]:
    """The smallest list found in so much time of which ``fails`` is still true, as it must be of ``steps``."""
    give_up = time.monotonic() + seconds

    def tried(candidate: list[Step]) -> bool:
        return time.monotonic() < give_up and fails(candidate)

    before: list[Step] = []
    while steps != before:
        before = steps
        steps = _fewer(steps, tried)
        steps = _simpler(steps, tried)
    return steps


def _fewer(steps: list[Step], tried: Fails) -> list[Step]:
    chunk = max(1, len(steps) // 2)
    while True:
        at = 0
        while at < len(steps):
            rest = steps[:at] + steps[at + chunk :]
            if tried(rest):
                steps = rest
            else:
                at += chunk
        if chunk == 1:
            return steps
        chunk //= 2


def _simpler(steps: list[Step], tried: Fails) -> list[Step]:
    """Without what a step has beside its ``do``, where it does without; else with smaller numbers."""
    for at in range(len(steps)):
        for needless in [key for key in ("thread", "in") if key in steps[at]]:
            steps = _if_fails(steps, at, {key: value for key, value in steps[at].items() if key != needless}, tried)
        for key, value in list(steps[at].items()):
            for smaller in _smaller(value):
                changed = _if_fails(steps, at, {**steps[at], key: smaller}, tried)
                if changed is not steps:
                    steps = changed
                    break
    return steps


def _smaller(value: object) -> list[int]:
    if type(value) is not int or value <= 0:
        return []
    return sorted({0, 1, value // 2, value - 1} - {value})


def _if_fails(steps: list[Step], at: int, step: Step, tried: Fails) -> list[Step]:
    changed = [*steps[:at], step, *steps[at + 1 :]]
    return changed if tried(changed) else steps
