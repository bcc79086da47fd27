"""What was measured, and what follows from it: medians, spreads, ratios, and which targets are met.

Pure: no process, clock or terminal in it.  A ratio is the median of the rounds' ratios: within a round the two were
measured next to each other, so what the machine was doing meanwhile cancels out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .contenders import CONTENDERS
from .targets import TARGETS, Target
from .workloads import WORKLOADS, Metric, Workload

Series = dict[int, float]
"""By round; infinite where it never came about."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target, and what was measured: ``found`` is None where nothing was."""

    target: Target
    metric: Metric
    found: float | None

    @property
    def met(self) -> bool | None:
        if self.found is None:
            return None
        return self.found <= self.target.bound if self.metric.less else self.found >= self.target.bound


@dataclass(slots=True)
class Results:
    """Everything a run found so far."""

    series: dict[tuple[str, str, str], Series] = field(default_factory=dict)  # by workload, metric, contender
    left_out: dict[str, str] = field(default_factory=dict)  # the cell, contender or workload, and why
    rounds: int = 0
    interrupted: bool = False

    def add(self, workload: str, contender: str, round: int, figures: dict[str, float | None]) -> None:
        """One measurement of one cell."""
        for metric, value in figures.items():
            one = self.series.setdefault((workload, metric, contender), {})
            one[round] = math.inf if value is None else value

    def contenders(self, workload: str, metric: str) -> list[str]:
        """Those of the workload's that have a figure, in the table's order."""
        return [one for one in WORKLOADS[workload].contenders if (workload, metric, one) in self.series]

    def samples(self, workload: str, metric: str, contender: str) -> list[float]:
        """In the order of the rounds; empty where there are none."""
        return list(self.series.get((workload, metric, contender), {}).values())

    def median(self, workload: str, metric: str, contender: str) -> float | None:
        samples = self.samples(workload, metric, contender)
        return median(samples) if samples else None

    def ratio(self, workload: str, metric: str, contender: str, rival: str) -> float | None:
        """The median over the rounds of ``contender``'s figure divided by ``rival``'s; None where either is missing,
        or never came about."""
        ours = self.series.get((workload, metric, contender), {})
        theirs = self.series.get((workload, metric, rival), {})
        quotients = [value / theirs[round] for round, value in ours.items() if theirs.get(round)]
        found = median(quotients) if quotients else math.nan
        return found if 0 < found < math.inf else None

    def more(self, workload: str, metric: str, contender: str, rival: str) -> float | None:
        """By how much ``contender``'s figure is above ``rival``'s, in the metric's unit: as `ratio`, of differences."""
        ours = self.series.get((workload, metric, contender), {})
        theirs = self.series.get((workload, metric, rival), {})
        differences = [value - theirs[round] for round, value in ours.items() if round in theirs]
        found = median(differences) if differences else math.nan
        return found if math.isfinite(found) else None

    def rivals(self, workload: str, metric: str) -> list[str]:
        """What the contenders of a workload can be compared with here: a rival's name, without its host."""
        found = (
            rival.partition("@")[0]
            for contender in self.contenders(workload, metric)
            for rival in CONTENDERS[contender].rivals
            if self.ratio(workload, metric, contender, rival) is not None
        )
        return list(dict.fromkeys(found))

    def measured(self) -> Iterator[tuple[str, Workload, Metric]]:
        """Every metric that has a figure."""
        for name, workload in WORKLOADS.items():
            for metric in workload.metrics:
                if self.contenders(name, metric.key):
                    yield name, workload, metric

    def verdicts(self) -> list[Verdict]:
        """The targets of the workloads that were measured."""
        names = {workload for workload, _, _ in self.series}
        return [self._judge(target) for target in TARGETS if target.workload in names]

    def _judge(self, target: Target) -> Verdict:
        key = (target.workload, target.metric, target.contender)
        if target.rival is None:
            found = self.median(*key)
        else:
            found = (self.more if target.more else self.ratio)(*key, target.rival)
        return Verdict(target, WORKLOADS[target.workload].metric(target.metric), found)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with every sample; what never came about is null."""
        return {
            "rounds": self.rounds,
            "interrupted": self.interrupted,
            "left_out": self.left_out,
            "results": [
                self._line(name, metric, contender)
                for name, _, metric in self.measured()
                for contender in self.contenders(name, metric.key)
            ],
            "targets": [
                {
                    "workload": verdict.target.workload,
                    "metric": verdict.target.metric,
                    "contender": verdict.target.contender,
                    "rival": verdict.target.rival,
                    "more_than_rival": verdict.target.more,
                    "at_most" if verdict.metric.less else "at_least": verdict.target.bound,
                    "found": verdict.found if verdict.found != math.inf else None,
                    "met": verdict.met,
                }
                for verdict in self.verdicts()
            ],
        }

    def _line(self, workload: str, metric: Metric, contender: str) -> dict[str, Any]:
        samples = [None if one == math.inf else one for one in self.samples(workload, metric.key, contender)]
        finite = [one for one in samples if one is not None]
        middle = self.median(workload, metric.key, contender)
        ratios = {rival: self.ratio(workload, metric.key, contender, rival) for rival in CONTENDERS[contender].rivals}
        return {
            "workload": workload,
            "metric": metric.key,
            "title": metric.title,
            "unit": metric.unit,
            "less_is_better": metric.less,
            "contender": contender,
            "median": None if middle == math.inf else middle,
            "min": min(finite, default=None),
            "max": max(finite, default=None),
            "samples": samples,
            "ratios": {rival: ratio for rival, ratio in ratios.items() if ratio is not None},
        }
