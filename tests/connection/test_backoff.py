"""Waits between tries: they grow, are bounded, and differ from one manager to the next."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbridge import Backoff


def test_without_jitter_each_is_twice_the_last_up_to_the_bound() -> None:
    waits = Backoff(first=0.1, factor=2, most=1, jitter=0).waits()
    assert [round(wait, 3) for wait in itertools.islice(waits, 6)] == [0.1, 0.2, 0.4, 0.8, 1, 1]


@given(st.floats(0, 1), st.integers(0, 1000))
def test_jitter_takes_away_at_most_its_part_and_adds_nothing(jitter: float, seed: int) -> None:
    plain = Backoff(jitter=0).waits()
    drawn = Backoff(jitter=jitter).waits(random.Random(seed))
    for whole, wait in itertools.islice(zip(plain, drawn, strict=True), 12):
        assert whole * (1 - jitter) <= wait <= whole


def test_two_managers_do_not_come_back_in_step() -> None:
    assert list(itertools.islice(Backoff().waits(), 5)) != list(itertools.islice(Backoff().waits(), 5))


def test_so_many_tries() -> None:
    assert len(list(Backoff(tries=3).waits())) == 3
    assert list(Backoff(tries=0).waits()) == []


@pytest.mark.parametrize("wrong", [{"first": 0.0}, {"factor": 0.5}, {"most": 0.01}, {"jitter": 1.5}, {"jitter": -0.1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="first must be above 0"):
        Backoff(**wrong)  # type: ignore[arg-type]
