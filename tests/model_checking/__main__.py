"""``python -m tests.model_checking``: the whole of it, half an hour on two cores; exit status 1, and the schedule,
where something is wrong.

Every program of up to four operations is gone through in the model, and on the real code where the loop's thread is
against one operation of another's.  Of programs of more there it takes some, with a bound on preemptions; ``--all``
leaves nothing out, and takes days.  Each stage's first column is how many operations its programs have.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from tests.model_checking import catalogue
from tests.model_checking.checking import Figures, check_code, check_model
from tests.model_checking.explore import Bounded, Search, States, Traces
from tests.model_checking.graph import Graph
from tests.model_checking.programs import Program
from tests.model_checking.scheduler import Pool
from tests.model_checking.watched import instrumented

PARTS = 200
"""Of a stage: one takes seconds, mostly, so what it came to can be told on the way."""


class Stage(NamedTuple):
    """Some programs, and how they are gone through; every ``nth`` of them unless all are asked for."""

    title: str
    size: int
    search: Callable[[], Search] | None  # None: the model
    against_one: bool  # does the other thread make one operation?  (with the model: any)
    nth: int = 1


def at_most(preemptions: int) -> Callable[[], Search]:
    return lambda: Bounded(preemptions)


STAGES = (
    Stage("the model, every state", 1, None, False),
    Stage("the model, every state", 2, None, False),
    Stage("the model, every state", 3, None, False),
    Stage("the model, every state", 4, None, False),
    Stage("the code, every trace", 1, Traces, True),
    Stage("the code, every trace", 2, Traces, True),
    Stage("the code, every trace", 3, Traces, True),
    Stage("the code, every trace", 4, Traces, True),
    Stage("the code, at most two preemptions", 2, at_most(2), False, 3),
    Stage("the code, at most one preemption", 3, at_most(1), False, 10),
    Stage("the code, at most one preemption", 4, at_most(1), False, 100),
)


def programs(stage: Stage, everything: bool) -> Iterator[Program]:
    found = [*catalogue.programs(stage.size), *catalogue.with_timeout(stage.size), *catalogue.alone(stage.size)]
    if stage.search is not None:
        found = [it for it in found if is_against_one(it) == stage.against_one]
    yield from found[:: 1 if everything else stage.nth]


def is_against_one(program: Program) -> bool:
    """Is it the loop's thread against one operation of another's?"""
    return [len(ops) for ops in program.others] == [1]


def go_through(number: int, everything: bool, part: int) -> Figures:
    """One part of a stage, by the stage's number.  In a process of its own, whose `eventbridge` is a watched one."""
    stage, figures, pool = STAGES[number], Figures(), Pool()
    with instrumented():
        for program in [*programs(stage, everything)][part::PARTS]:
            if stage.search is None:
                check_model(program, figures)
            else:
                bounded = not stage.against_one
                search = States() if everything and bounded else stage.search()
                check_code(program, search, pool, figures, Graph(program))
            if figures.wrong:
                break
    pool.close()
    return figures


def added_up(parts: list[Future[Figures]], began: float) -> Figures:
    """Up to the first in which something is wrong; the others are not begun then."""
    figures = Figures()
    for done, part in enumerate(as_completed(parts), 1):
        figures += part.result()
        if figures.wrong:
            for left in parts:
                left.cancel()
            break
        if sys.stdout.isatty():
            print(f"\r  {100 * done // PARTS} %: {figures}, {time.monotonic() - began:.0f} s", end="", flush=True)
    return figures


def go_through_all(stages: list[int], everything: bool, jobs: int) -> int:
    # Ctrl-C goes to all of them: the others just end.
    with ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as workers:
        for number in stages:
            stage, began = STAGES[number], time.monotonic()
            parts = [workers.submit(go_through, number, everything, part) for part in range(PARTS)]
            figures = added_up(parts, began)
            left_out = "" if stage.nth == 1 or everything else f", one program of {stage.nth}"
            took = f"{time.monotonic() - began:.0f} s"
            print(f"\r{stage.size}  {stage.title}{left_out}: {figures}, {took}", flush=True)
            if figures.wrong:
                print(figures.wrong)
                return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model_checking", description=__doc__)
    parser.add_argument("--all", action="store_true", help="leave nothing out: days")
    parser.add_argument("--operations", type=int, choices=(1, 2, 3, 4), help="only programs of so many operations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (default: %(default)s)")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error("--jobs: at least one process")
    stages = [number for number, stage in enumerate(STAGES) if given.operations in (None, stage.size)]
    try:
        return go_through_all(stages, given.all, given.jobs)
    except KeyboardInterrupt:
        print("\nended before its time", file=sys.stderr)
        return 130
    except BrokenProcessPool:
        print("\none of its processes was killed, for want of memory perhaps: try fewer --jobs", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
