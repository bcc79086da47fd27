"""The table: one block a metric, contenders below each other, ratios to their rivals; then targets, and what was left
out.  Pure: text out of `Results`."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable

from .contenders import CONTENDERS
from .results import Results, Verdict
from .workloads import Metric, label


def number(value: float | None) -> str:
    """Three digits that count, and thousands as k or M."""
    if value is None:
        return "-"
    if value == math.inf:
        return "never"
    for above, divisor, suffix in ((999_500, 1e6, " M"), (9_995, 1e3, " k")):
        if abs(value) >= above:
            return _three(value / divisor) + suffix
    return _three(value)


def _three(value: float) -> str:
    if 0 < abs(value) < 0.0995:
        return f"{value:.1g}"
    decimals = 0 if abs(value) >= 99.95 or value == int(value) else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f}"


def ratio(value: float | None) -> str:
    """How many times as much."""
    return "-" if value is None else f"{_three(value)}x"


def align(rows: list[list[str]], left: int = 1) -> Iterable[str]:
    """Columns of equal width, the first ``left`` of them flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def block(results: Results, workload: str, metric: Metric) -> list[str]:
    """One metric."""
    rivals = results.rivals(workload, metric.key)
    rows = [["", "median", "least", "most", *(f"/ {rival}" for rival in rivals)]]
    for contender in results.contenders(workload, metric.key):
        samples = results.samples(workload, metric.key, contender)
        by_what = {rival.partition("@")[0]: rival for rival in CONTENDERS[contender].rivals}
        ratios = (by_what.get(rival) for rival in rivals)
        rows.append(
            [
                contender,
                number(results.median(workload, metric.key, contender)),
                number(min(samples)),
                number(max(samples)),
                *(ratio(results.ratio(workload, metric.key, contender, rival) if rival else None) for rival in ratios),
            ]
        )
    what = f"{workload}: {metric.title}, {metric.unit}" + (" (less is better)" if metric.less else "")
    return [what, *(f"  {line}" for line in align(rows))]


def targets(verdicts: list[Verdict]) -> list[str]:
    """What is wanted, beside what was found."""
    rows = [["target", "of", "wanted", "found", ""]]
    words = {True: "met", False: "MISSED", None: "not measured"}
    for verdict in verdicts:
        target, metric = verdict.target, verdict.metric
        sign, show = "<=" if metric.less else ">=", number if target.rival is None else ratio
        unit = f" {metric.unit}" if target.rival is None else f" {target.rival}"
        what = label(target.workload, metric)
        wanted = f"{sign} {show(target.bound)}{unit}"
        rows.append([what, target.contender, wanted, show(verdict.found), words[verdict.met]])
    return list(align(rows, left=2))


def render(results: Results) -> str:
    """The whole."""
    lines = [
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}"
    ]
    lines[0] += f", {os.cpu_count()} processors; medians of {results.rounds} rounds"
    if results.interrupted:
        lines[0] += ", interrupted"
    for workload, _, metric in results.measured():
        if metric.shown:
            lines += ["", *block(results, workload, metric)]
    verdicts = results.verdicts()
    if verdicts:
        met = sum(verdict.met is True for verdict in verdicts)
        lines += ["", *targets(verdicts), f"{met} of {len(verdicts)} targets met"]
    if results.left_out:
        lines += ["", "left out:", *(f"  {what}: {why}" for what, why in results.left_out.items())]
    return "\n".join(lines)
