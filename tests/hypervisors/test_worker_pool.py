"""Calls that block: a bounded number of threads, and one that hangs costs only itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.hypervisor.worker_pool import BlockingSession, Workers
from eventbridge.jobs import JobAborted
from tests.support.patience import PATIENCE


class Asked:
    """A `Reply` that can be waited for."""

    def __init__(self, operation: str = "info", deadline: float | None = None) -> None:
        self.answers: list[tuple[Any, BaseException | None]] = []
        self.progress: list[object] = []
        self._done = threading.Event()
        self.request = Request(operation, DomainRef("web"), {}, self, deadline)

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self.answers.append((value, error))
        self._done.set()

    def progressed(self, request: Request, progress: object) -> None:
        self.progress.append(progress)

    def answer(self) -> Any:
        assert self._done.wait(PATIENCE)
        ((value, error),) = self.answers
        if error is not None:
            raise error
        return value


class Gate:
    """A library that hangs until it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, request: Request) -> str:
        self.inside.release()
        assert self.open.wait(PATIENCE)
        return request.operation

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.inside.acquire(timeout=PATIENCE)


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers("test", limit=2, hung=3)
    yield workers
    workers.close()


def test_a_call_is_answered_with_what_it_returns(workers: Workers) -> None:
    asked = Asked()
    workers.submit(asked.request, lambda request: request.domain)
    assert asked.answer() == DomainRef("web")


def test_a_call_is_refused_with_what_it_raises(workers: Workers) -> None:
    def refuse(request: Request) -> None:
        raise HypervisorError("no", code=7)

    asked = Asked()
    workers.submit(asked.request, refuse)
    with pytest.raises(HypervisorError, match="no"):
        asked.answer()


def test_a_defect_is_told_as_an_error_and_logged(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked()
    workers.submit(asked.request, lambda request: 1 / 0)
    with pytest.raises(HypervisorError, match="info: ZeroDivisionError"):
        asked.answer()
    assert "ZeroDivisionError" in caplog.text


def test_no_more_are_inside_than_the_bound_and_the_rest_waits(workers: Workers) -> None:
    gate = Gate()
    calls = [Asked() for _ in range(5)]
    for call in calls:
        workers.submit(call.request, gate)
    gate.wait_for(2)
    assert not gate.inside.acquire(blocking=False)
    assert (workers.stats()["threads"], workers.stats()["waiting"]) == (2, 3)
    gate.open.set()
    assert [call.answer() for call in calls] == ["info"] * 5


def test_calls_that_nobody_waits_for_any_more_make_room(workers: Workers) -> None:
    stuck, quick = Gate(), Gate()
    quick.open.set()
    hung = [Asked(deadline=monotonic()) for _ in range(2)]
    for call in hung:
        workers.submit(call.request, stuck)
    stuck.wait_for(2)
    other = Asked()
    workers.submit(other.request, quick)
    workers.make_room()
    assert other.answer() == "info"
    assert workers.stats()["hung"] == 2
    stuck.open.set()
    assert [call.answer() for call in hung] == ["info"] * 2


def test_a_thread_that_has_just_taken_a_call_counts_as_idle_no_more() -> None:
    """Or the next call would wait for it; and for ever, where that hangs."""
    for _ in range(300):
        workers, stuck, quick = Workers("test", limit=2), Gate(), Gate()
        quick.open.set()
        first, hanging, last = Asked(), Asked(), Asked()
        workers.submit(first.request, quick)
        first.answer()  # its thread is idle, or about to be
        workers.submit(hanging.request, stuck)
        workers.submit(last.request, quick)
        assert last.answer() == "info"
        stuck.open.set()
        hanging.answer()
        workers.close()


def test_room_is_bounded_too(workers: Workers) -> None:
    stuck = Gate()
    calls = [Asked(deadline=monotonic()) for _ in range(7)]
    for call in calls:
        workers.submit(call.request, stuck)
        workers.make_room()
    stuck.wait_for(5)
    assert not stuck.inside.acquire(blocking=False)
    assert workers.stats()["threads"] == 5
    stuck.open.set()
    for call in calls:
        call.answer()


def test_one_that_was_aborted_before_it_began_is_never_called(workers: Workers) -> None:
    gate = Gate()
    first = [Asked(), Asked()]
    for call in first:
        workers.submit(call.request, gate)
    gate.wait_for(2)
    called: list[Request] = []
    last = Asked("save")
    workers.submit(last.request, called.append)
    last.request.abort()
    gate.open.set()
    with pytest.raises(JobAborted, match="before it had begun"):
        last.answer()
    assert called == []


def test_closing_refuses_what_waits_and_never_waits_for_what_hangs() -> None:
    workers, gate = Workers("test", limit=1), Gate()
    inside, waiting, late = Asked(), Asked(), Asked()
    workers.submit(inside.request, gate)
    gate.wait_for(1)
    workers.submit(waiting.request, gate)
    workers.close()
    workers.submit(late.request, gate)
    for call in (waiting, late):
        with pytest.raises(ConnectionLost, match="cannot info"):
            call.answer()
    assert inside.answers == []
    gate.open.set()
    assert inside.answer() == "info"


def test_a_session_can_do_what_its_table_says() -> None:
    session = BlockingSession("test")
    session.calls = {"info": lambda request: 1, "list": lambda request: []}
    assert session.operations == {"info", "list"}
    asked = Asked()
    session.begin(asked.request)
    assert asked.answer() == 1
    session.close_calls()


# -- requests


def test_a_request_is_answered_once() -> None:
    asked = Asked()
    assert asked.request.answer(1)
    assert not asked.request.answer(2)
    assert not asked.request.refuse(HypervisorError("no"))
    asked.request.tell(None)  # type: ignore[arg-type]  # whatever it is
    assert asked.answers == [(1, None)] and asked.progress == []


@pytest.mark.parametrize("first", ["abort", "abortable"])
def test_an_abort_gets_through_whichever_comes_first_and_once(first: str) -> None:
    asked = Asked("save")
    aborted: list[int] = []
    steps = [asked.request.abort, lambda: asked.request.abortable(lambda: aborted.append(1))]
    for step in steps if first == "abort" else steps[::-1]:
        step()
    asked.request.abort()
    assert aborted == [1] and asked.request.aborted


def test_nothing_is_aborted_that_is_done() -> None:
    asked = Asked("save")
    aborted: list[int] = []
    asked.request.abortable(lambda: aborted.append(1))
    asked.request.answer()
    asked.request.abort()
    assert aborted == []
