"""The real registry, table, timers and dispatcher through every interleaving of small programs; and the search is not
blind.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from eventbridge import Bridge
from eventbridge.core.dispatcher import Dispatcher
from tests.model_checking import catalogue
from tests.model_checking.__main__ import is_against_one
from tests.model_checking.checking import Figures, check_code
from tests.model_checking.explore import Bounded, Search, States, Traces
from tests.model_checking.graph import Graph
from tests.model_checking.mutations import MUTATIONS, planted
from tests.model_checking.programs import Program, explore, program, told
from tests.model_checking.scheduler import Pool
from tests.model_checking.unlisted import touches
from tests.model_checking.watched import instrumented


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


def some(size: int, first: int, nth: int, against_one: bool = True) -> list[Program]:
    """Of those where one operation of another thread's meets what the loop does, or where more do."""
    every = (*catalogue.programs(size), *catalogue.with_timeout(size), *catalogue.alone(size))
    return list(islice((it for it in every if is_against_one(it) == against_one), first, None, nth))


@pytest.mark.parametrize(("size", "first", "nth"), [(1, 0, 1), (2, 0, 12), (2, 4, 27), (2, 22, 27), (3, 30, 150)])
def test_every_execution_keeps_the_guarantees_and_is_one_of_the_models(
    pool: Pool, size: int, first: int, nth: int
) -> None:
    """H5, H6, H7, D1, D4, D6: every trace of the real code (`python -m tests.model_checking` for all)."""
    figures = Figures()
    with instrumented():
        for each in some(size, first, nth):
            check_code(each, Traces(), pool, figures, Graph(each))
    assert not figures.wrong, figures.wrong
    assert figures.executions > 2 * figures.programs


@pytest.mark.parametrize(("size", "first", "nth"), [(2, 3, 40), (3, 5, 800)])
def test_two_foreign_operations_and_a_preemption_keep_the_guarantees(
    pool: Pool, size: int, first: int, nth: int
) -> None:
    """As above, where the other thread makes several, or two others do: each place for one preemption."""
    figures = Figures()
    with instrumented():
        for each in some(size, first, nth, against_one=False):
            check_code(each, Bounded(1), pool, figures, Graph(each))
    assert not figures.wrong, figures.wrong
    assert figures.programs > 1


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_a_mistake_planted_in_the_core_is_found_and_its_schedule_told(pool: Pool, mistake: str) -> None:
    """The search is not blind."""
    mutation = MUTATIONS[mistake]
    with planted(mutation), instrumented():
        broken = next((run for run in explore(mutation.shown_by, Traces(), pool) if run.violations), None)
    assert broken is not None
    assert any(it.startswith(mutation.breaks) or mutation.breaks in it.split(":")[0] for it in broken.violations)
    assert "loop" in told(broken)


IN_THE_WINDOW = ("- | remove one, reopen A, add A; alone", "- | remove two, reopen B, add B")


SHOW_MISTAKES = {it.shown_by for it in MUTATIONS.values() if str(it.shown_by) not in IN_THE_WINDOW}


@pytest.mark.parametrize("each", sorted(SHOW_MISTAKES), ids=str)
def test_without_the_mistake_the_same_program_keeps_the_guarantees(pool: Pool, each: Program) -> None:
    """Else it would show nothing: up to a preemption."""
    assert not broken_by(pool, each)


# What the model leaves out, or has no clock for.
AROUND_A_LONE_EVENT = (
    *("- | add T | tick", "add T, tick, nest | remove one", "- | off one, reopen A, on one", "- | reopen A"),
    *("- | haunt A", "tick | add T"),
)


@pytest.mark.parametrize("text", AROUND_A_LONE_EVENT)
def test_what_comes_between_a_lone_event_and_its_call_keeps_the_guarantees(pool: Pool, text: str) -> None:
    """D6, H5, H6, H11: a timeout that falls due, a number that is another file's; up to a preemption."""
    assert not broken_by(pool, program(f"{text}; alone"))


@pytest.mark.parametrize("text", IN_THE_WINDOW)
def test_a_number_that_is_another_files_meanwhile_gets_no_event_of_the_one_before(pool: Pool, text: str) -> None:
    """H5: removed, closed, opened and added again by another thread, between what the pass asks."""
    assert not broken_by(pool, program(text))


@pytest.mark.parametrize("text", ["- | add A", "- | add A; alone"])
def test_what_stands_for_several_handles_is_never_called(pool: Pool, text: str) -> None:
    """H4: nor does the loop spin until the thread that adds one more goes on."""
    assert not broken_by(pool, program(text))


def broken_by(pool: Pool, each: Program) -> str:
    """The schedule, of those with one preemption at most; nothing where all is well."""
    with instrumented():
        return next((told(run) for run in explore(each, Bounded(1), pool) if run.violations), "")


@pytest.mark.parametrize(
    "text", ["remove two | off one", "off two, on two | remove one", "- | close", "off one | remove one; alone"]
)
def test_the_two_searches_end_in_the_same_states(pool: Pool, text: str) -> None:
    """Each reduces in a way of its own: what one of them left out wrongly the other would reach."""

    def ends(search: Search) -> set[Any]:
        return {run.rest for run in explore(program(text), search, pool)}

    with instrumented():
        by_states, by_traces = ends(States()), ends(Traces())
    assert by_states == by_traces
    assert by_traces


# Only ever read for what a bridge calls itself in a report.
ONLY_COUNTED = {"Registry.handles", "Registry.timeouts"}
# The reference is taken before the lock, and looked into under it.
ONLY_NAMED = {"Timers.heap"}


@pytest.mark.parametrize(
    ("text", "timer"),
    [
        ("remove two | remove one", False),
        ("add C | close", False),
        ("raise | off one, on one", False),
        ("off timer | remove timer", True),
        ("nest | close", False),
        ("- | later timer | tick", True),
        ("- | remove two, reopen B, add B", False),
        ("- | add C | remove one", False),
        ("nest | remove one; alone", False),
        ("- | off one | add C; alone", False),
    ],
)
def test_nothing_that_two_threads_share_is_unlisted(pool: Pool, text: str, timer: bool) -> None:
    """What is no resource of the scheduler's is touched with the lock held, or by one thread: both searches rest on
    it.
    """
    with instrumented(), touches(Dispatcher, Bridge) as told:
        for run in islice(explore(program(text, timer), Traces(), pool), 40):
            assert not run.violations
    assert told.names
    assert told.unlisted() <= ONLY_COUNTED | ONLY_NAMED


class Turning:
    """A stand-in for a host loop that can be turned from within a callback."""

    name = "turning"

    def __init__(self) -> None:
        self.watched: dict[int, Any] = {}

    def watch(self, fd: int, callback: Any) -> None:
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def call_soon_threadsafe(self, callback: Any) -> None:
        callback()

    def is_loop_thread(self) -> bool:
        return True

    def report(self, exception: BaseException, context: str) -> None:
        raise exception

    def turn(self) -> bool:
        ready, _, _ = select.select(list(self.watched), [], [], 0)
        for fd in ready:
            self.watched[fd]()
        return bool(ready)


def test_a_nested_loop_does_not_spin_over_a_free_that_waits_for_its_callback() -> None:
    """D5, H7: what waits for a callback further out to return does not keep the poller readable; it is freed then."""
    host = Turning()
    seen: list[object] = []
    pipes = [os.pipe(), os.pipe()]
    (one, write_one), (two, write_two) = pipes

    def removes_itself(id: int, fd: int, events: int, opaque: object) -> None:
        bridge.remove_handle(id)
        os.write(write_two, b"x")
        seen.append(sum(host.turn() for _ in range(50)))

    try:
        with Bridge(host) as bridge:
            bridge.add_handle(one, 1, removes_itself, None, lambda _: seen.append("freed"))
            bridge.add_handle(two, 1, lambda *_: os.read(two, 1))
            os.write(write_one, b"x")
            while host.turn():
                pass
            assert seen[1:] == ["freed"]
            assert isinstance(seen[0], int) and seen[0] < 5
    finally:
        for fd in (*pipes[0], *pipes[1]):
            os.close(fd)
