"""Spans on rows: each row nests, and nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventbridge.diagnosis.span_lanes import lanes
from eventbridge.diagnosis.spans import CALLS, Span, Track

TRACK = Track(CALLS, "web", "web")
TIMES = st.tuples(st.integers(0, 20), st.integers(0, 8))


def span(began: int, lasted: int) -> Span:
    return Span(TRACK, began, began + lasted, "", "", {})


@given(st.lists(TIMES, max_size=12))
def test_two_spans_of_a_lane_are_apart_or_one_is_within_the_other(times: list[tuple[int, int]]) -> None:
    spans = [span(*each) for each in times]
    found = lanes(spans)
    assert sorted(each for lane in found for each in lane) == sorted(spans), "each is on one lane, once"
    for lane in found:
        for number, outer in enumerate(lane):
            for inner in lane[number + 1 :]:
                assert inner.began >= outer.began
                assert inner.began >= outer.ended or inner.ended <= outer.ended


def test_what_nests_needs_one_lane_and_what_overlaps_another() -> None:
    assert len(lanes([span(0, 10), span(2, 3), span(5, 5), span(10, 1)])) == 1
    assert len(lanes([span(0, 10), span(5, 10)])) == 2
    assert lanes([]) == []
