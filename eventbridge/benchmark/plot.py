"""The picture: how many times as good as the reference every contender is, as an SVG, with the standard library alone.

One row a metric, one dot a contender, a logarithmic axis; better is to the right also where less is better.  The
reference is libvirt's own loop in C, or whatever is there in its place."""

from __future__ import annotations

import math
from html import escape

from .results import Results
from .workloads import Metric, label

REFERENCES = ("libvirt-c", "epoll")
# Hue says what it is, shade on which host.
COLOURS = {
    "ours@asyncio": "#08519c",
    "ours@uvloop": "#3182bd",
    "ours@libuv": "#6baed6",
    "ours@select": "#9ecae1",
    "ours": "#08519c",
    "libvirtaio@asyncio": "#a63603",
    "libvirtaio@uvloop": "#fd8d3c",
    "direct@asyncio": "#525252",
    "direct@uvloop": "#7a7a7a",
    "direct@libuv": "#a0a0a0",
    "direct@select": "#c4c4c4",
    "libvirt-c": "#238b45",
    "epoll": "#238b45",
}
LABELS, AXIS, ROW, TOP, MARGIN = 230, 760, 22, 92, 20
LEAST, MOST = 1 / 8, 128


def _x(times: float) -> float:
    part = math.log(min(max(times, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LABELS + part * AXIS


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'


def _dot(contender: str, times: float, y: float) -> str:
    colour = COLOURS.get(contender, "#000")
    title = f"<title>{escape(contender)}: {times:.3g}x</title>"
    if not contender.startswith("ours"):
        return f'<circle cx="{_x(times):.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity="0.8">{title}</circle>'
    x = _x(times)
    return f'<path d="M{x - 5.5:.1f} {y}l5.5 -5.5l5.5 5.5l-5.5 5.5z" fill="{colour}" fill-opacity="0.9">{title}</path>'


def _row(results: Results, workload: str, metric: Metric, y: float) -> list[str]:
    """Empty where there is nothing to compare."""
    there = results.contenders(workload, metric.key)
    reference = next((one for one in REFERENCES if one in there), None)
    if reference is None:
        return []
    dots = []
    for contender in results.contenders(workload, metric.key):
        times = results.ratio(workload, metric.key, contender, reference)
        if times is not None and contender != reference:
            dots.append(_dot(contender, 1 / times if metric.less else times, y))
    words = f"{label(workload, metric)} / {reference}"
    line = f'<line x1="{LABELS}" x2="{LABELS + AXIS}" y1="{y}" y2="{y}" stroke="#eee"/>'
    return [line, _text(LABELS - 10, y + 4, words, 'text-anchor="end"'), *dots] if dots else []


def _axis(height: float) -> list[str]:
    marks = []
    for power in range(round(math.log2(LEAST)), round(math.log2(MOST)) + 1):
        x, colour = _x(2.0**power), "#000" if power == 0 else "#ddd"
        words = f"{2**power}x" if power >= 0 else f"1/{2**-power}"
        marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 12}" y2="{height - MARGIN}" stroke="{colour}"/>')
        marks.append(_text(x, TOP - 18, words, 'text-anchor="middle"'))
    return marks


def _legend(contenders: list[str]) -> list[str]:
    found, across = [], 5
    for index, contender in enumerate(contenders):
        x, y = MARGIN + (index % across) * 190, 30 + index // across * 18
        square = f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{COLOURS.get(contender, "#000")}"/>'
        found += [square, _text(x + 16, y, contender)]
    return found


def svg(results: Results) -> str:
    """The picture's text."""
    rows: list[str] = []
    y = float(TOP)
    for workload, _, metric in results.measured():
        drawn = _row(results, workload, metric, y) if metric.shown else []
        rows += drawn
        y += ROW if drawn else 0
    width, height = LABELS + AXIS + 2 * MARGIN, y + MARGIN
    seen = [one for one in COLOURS if any(one == contender for _, _, contender in results.series)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{width}" height="{height:.0f}" fill="#fff"/>'
    title = _text(MARGIN, 14, "times as good as the reference (right is better)", 'font-weight="bold"')
    return "\n".join([head, background, title, *_legend(seen), *_axis(height), *rows, "</svg>\n"])
