"""The model, in full for small programs; and it finds mistakes that are planted in it."""

from __future__ import annotations

from itertools import islice
from unittest import mock

import pytest

from tests.model_checking import catalogue, model
from tests.model_checking.checking import Figures, check_model
from tests.model_checking.graph import Graph
from tests.model_checking.model import STEPS, Draft, Taken
from tests.model_checking.programs import Program, program


def of_size(size: int, nth: int) -> list[Program]:
    every = (*catalogue.programs(size), *catalogue.with_timeout(size), *catalogue.alone(size))
    return list(islice(every, 0, None, nth))


@pytest.mark.parametrize(("size", "nth"), [(1, 1), (2, 6), (3, 300), (4, 4000)])
def test_every_state_of_the_model_keeps_the_guarantees(size: int, nth: int) -> None:
    """H5, H6, H7, D1, D4, D6, of some programs of each size (`python -m tests.model_checking`)."""
    figures = Figures()
    for each in of_size(size, nth):
        check_model(each, figures)
    assert not figures.wrong
    assert figures.states > 100 * figures.programs


def _wake_looks_first(d: Draft, t: int) -> Taken | None:
    then = (("wake: awake",),) if d.dispatching else (("wake: awake",), ("Poller.wake",))
    return None if d.awake else Taken(then)


def _frees_at_once(d: Draft, t: int, item: str) -> Taken:
    return Taken((("free", item),))


def _does_not_ask(d: Draft, t: int, handle: str) -> Taken:
    return Taken((("call", handle),))


def _does_not_wait(d: Draft, t: int, kept: tuple[str, ...]) -> Taken | None:
    if not d.frees:
        return None
    item, d.frees = d.frees[0], d.frees[1:]
    return Taken((("free", item), ("run_frees", ())))


def _is_not_over(d: Draft, t: int, handle: str) -> Taken:
    return Taken((("call", handle), ("_dispatch",)))


MISTAKES = {
    "wake looks at the pass before it says that there is work": (
        "Registry.wake",
        _wake_looks_first,
        "- | remove one",
        "D6",
    ),
    "a pass that ends does not look for work": ("run_pass: looks", lambda d, t: None, "- | remove one", "D6"),
    "a removal frees at once": ("_removed", _frees_at_once, "- | remove one", "H7"),
    "whether a handle is still interested is not asked": ("_dispatch: mask", _does_not_ask, "off two | -", "H5"),
    "a round is not over with its lone event": ("_call_lone: touched?", _is_not_over, "- | remove two; alone", "twice"),
    "a handle's own callback is not waited for": ("run_frees", _does_not_wait, "remove one, nest | remove two", "H7"),
    "an exception is not reported": ("_contain", lambda d, t, item: None, "raise | -", "D4"),
    "a closed bridge is finished by whoever closes it": (
        "Berth.close",
        lambda d, t: Taken((("finish",),)),
        "- | close",
        "H7",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_model_is_found_and_its_schedule_told(mistake: str) -> None:
    """The search is not blind."""
    step, rule, text, breaks = MISTAKES[mistake]
    assert not Graph(program(text)).broken
    with mock.patch.dict(STEPS, {step: rule}):
        broken = Graph(program(text)).broken
    *schedule, last = broken.splitlines()
    assert f"breaks {breaks}" in last
    assert schedule and all(line.split(":")[0].strip() in model.THREADS for line in schedule)
