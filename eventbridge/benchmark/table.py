"""The table: one block a metric, contenders below each other, ratios to their rivals; then targets, and what was left
out.  Pure: text out of `Results`."""

from __future__ import annotations

import os
import platform

from . import hosts_table
from .cells import align, number, ratio
from .contenders import CONTENDERS
from .results import Results, Verdict
from .workloads import HOST_WORKLOADS, Metric, label


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
        sign, show = "<=" if metric.less else ">=", number if target.rival is None or target.more else ratio
        unit = f" {target.rival}" if show is ratio else f" {metric.unit}" + " more" * target.more
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
        if metric.shown and workload not in HOST_WORKLOADS:
            lines += ["", *block(results, workload, metric)]
    lines += hosts_table.block(results)
    verdicts = results.verdicts()
    if verdicts:
        met = sum(verdict.met is True for verdict in verdicts)
        lines += ["", *targets(verdicts), f"{met} of {len(verdicts)} targets met"]
    if results.left_out:
        lines += ["", "left out:", *(f"  {what}: {why}" for what, why in results.left_out.items())]
    return "\n".join(lines)
