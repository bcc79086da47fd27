"""Where each span is drawn: on one row of the picture two spans are apart, or one is within the other.

The rule is the format's: slices of one thread nest.  What happens to one domain at a time overlaps as it likes, so a
track has as many *lanes* as it needs, and each span goes to the first that it fits.
"""

from __future__ import annotations

from collections.abc import Iterable

from .spans import Span


def lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans of one track by lane, each lane in the order of time, an outer span before what is within it."""
    found: list[list[Span]] = []
    open: list[list[int]] = []  # by lane: when what is open there ends, the innermost last
    for span in sorted(spans, key=lambda span: (span.began, -span.ended)):
        number = next((number for number, ends in enumerate(open) if _fits(span, ends)), len(open))
        if number == len(open):
            found.append([])
            open.append([])
        found[number].append(span)
        open[number].append(span.ended)
    return found


def _fits(span: Span, ends: list[int]) -> bool:
    """After, or within, what is open there; what is over by its beginning is open no more."""
    while ends and ends[-1] <= span.began:
        ends.pop()
    return not ends or span.ended <= ends[-1]
