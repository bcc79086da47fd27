"""One program, checked: the model's states, the real code's executions, and that the second are among the first."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model_checking.explore import Search
from tests.model_checking.graph import Graph
from tests.model_checking.programs import Program, explore, told
from tests.model_checking.scheduler import Pool


@dataclass
class Figures:
    """What was gone through, and what was wrong with it, readable: '' for nothing."""

    programs: int = 0
    states: int = 0
    executions: int = 0
    wrong: str = ""

    def __iadd__(self, other: Figures) -> Figures:
        self.programs += other.programs
        self.states += other.states
        self.executions += other.executions
        self.wrong = self.wrong or other.wrong
        return self

    def __str__(self) -> str:
        return f"{self.programs} programs, {self.states} states of the model, {self.executions} executions of the code"


def check_model(program: Program, figures: Figures) -> Graph:
    """Every state of it."""
    graph = Graph(program)
    figures.programs += 1
    figures.states += len(graph.before)
    if graph.broken and not figures.wrong:
        figures.wrong = f"the model of [{program}]:\n  {graph.broken}"
    return graph


def check_code(program: Program, search: Search, pool: Pool, figures: Figures, graph: Graph | None = None) -> None:
    """Every execution that the search runs; with ``graph`` each must be one of the model's.  Within
    `watched.instrumented`.
    """
    figures.programs += 1
    for run in explore(program, search, pool):
        figures.executions += 1
        if run.violations:
            figures.wrong = figures.wrong or f"[{program}]:\n{told(run)}"
        elif graph is not None and not graph.can_show(run.seen):
            figures.wrong = figures.wrong or f"[{program}]: the model cannot show {run.seen}, after\n{told(run)}"
        if figures.wrong:
            return
