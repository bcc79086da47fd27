"""What stands in a table: numbers, ratios, and columns of them.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable


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
