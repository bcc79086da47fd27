"""``python -m tests.interleavings``: the whole of it, about ten minutes on one core; exit status 1, and the schedule,
where something is wrong.

``--all`` leaves nothing out, and takes hours: every program of four operations in the model, and on the real code no
bound on preemptions.  Each stage's first column is how many operations its programs have.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import catalogue
from .checking import Figures, check_code, check_model
from .explore import Bounded, Search, States, Traces
from .graph import Graph
from .programs import Program
from .scheduler import Pool
from .watched import instrumented


class Stage(NamedTuple):
    """Some programs, and how they are gone through; every ``nth`` of them unless all are asked for."""

    title: str
    size: int
    search: Callable[[], Search] | None  # None: the model
    against_one: bool  # does the other thread make one operation?  (with the model: any)
    nth: int = 1


STAGES = (
    Stage("the model, every state", 1, None, False),
    Stage("the model, every state", 2, None, False),
    Stage("the model, every state", 3, None, False),
    Stage("the model, every state", 4, None, False, 60),
    Stage("the code, every trace", 1, Traces, True),
    Stage("the code, every trace", 2, Traces, True),
    Stage("the code, every trace", 3, Traces, True),
    Stage("the code, every trace", 4, Traces, True, 20),
    Stage("the code, at most two preemptions", 2, lambda: Bounded(2), False, 3),
    Stage("the code, at most one preemption", 3, lambda: Bounded(1), False, 10),
    Stage("the code, at most one preemption", 4, lambda: Bounded(1), False, 100),
)


def programs(stage: Stage, everything: bool) -> Iterator[Program]:
    found = [*catalogue.programs(stage.size), *catalogue.with_timeout(stage.size), *catalogue.alone(stage.size)]
    if stage.search is not None:
        found = [it for it in found if is_against_one(it) == stage.against_one]
    yield from found[:: 1 if everything else stage.nth]


def is_against_one(program: Program) -> bool:
    """Is it the loop's thread against one operation of another's?"""
    return [len(ops) for ops in program.others] == [1]


def go_through(stage: Stage, everything: bool, pool: Pool) -> Figures:
    figures = Figures()
    for program in programs(stage, everything):
        if stage.search is None:
            check_model(program, figures)
        else:
            bounded = not stage.against_one
            search = States() if everything and bounded else stage.search()
            check_code(program, search, pool, figures, Graph(program))
        if figures.wrong:
            break
        if figures.programs % 20 == 0 and sys.stdout.isatty():
            print(f"\r  {figures}", end="", flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interleavings", description=__doc__)
    parser.add_argument("--all", action="store_true", help="leave nothing out: hours")
    parser.add_argument("--operations", type=int, choices=(1, 2, 3, 4), help="only programs of so many operations")
    given = parser.parse_args()
    pool = Pool()
    with instrumented():
        for stage in STAGES:
            if given.operations not in (None, stage.size):
                continue
            began = time.process_time()
            figures = go_through(stage, given.all, pool)
            part = "" if stage.nth == 1 or given.all else f", one program of {stage.nth}"
            print(f"\r{stage.size}  {stage.title}{part}: {figures}, {time.process_time() - began:.0f} s", flush=True)
            if figures.wrong:
                print(figures.wrong)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
