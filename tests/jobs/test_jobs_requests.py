"""`Jobs.request` and its end, on a clock that the test sets: tokens, refusals, who is told, finalizers."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator

import pytest

from eventbridge.errors import EventBridgeError, HypervisorError
from eventbridge.jobs import Job, JobBusy, Jobs, JobTimeout, State, Ticket
from tests.support.jobs import UNIX, Clock, granted, refused


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Iterator[Jobs]:
    jobs = Jobs(clock=clock, wall=clock.wall, limit=3)
    yield jobs
    assert len(jobs) == 0, "nothing is left behind"


# -- tokens


def test_a_job_on_one_domain_does_not_keep_anybody_from_another(jobs: Jobs) -> None:
    tokens = [granted(jobs.request(key, Job.MODIFY, "me")) for key in ("a", ("b", 1), 3)]
    assert len(jobs) == 3
    assert list(jobs) == ["a", ("b", 1), 3]
    for token in tokens:
        token.end()
    assert list(jobs) == []
    assert jobs, "empty, and yet not nothing"


def test_a_job_is_ended_once(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "me"))
    jobs.end(token)
    with pytest.raises(EventBridgeError, match="once"):
        jobs.end(token)


def test_a_job_that_was_ended_does_not_end_the_one_after_it(jobs: Jobs) -> None:
    old = granted(jobs.request("web1", Job.MODIFY, "old"))
    jobs.end(old)
    new = granted(jobs.request("web1", Job.MODIFY, "new"))
    waiting = jobs.request("web1", Job.QUERY, "third")
    for _ in range(2):
        with pytest.raises(EventBridgeError, match="old"):
            jobs.end(old)
    assert granted(new)
    assert not waiting.settled
    jobs.end(new)
    jobs.end(granted(waiting))


def test_a_job_is_not_ended_while_it_waits_nor_by_another_table(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "me"))
    waiting = jobs.request("web1", Job.MODIFY, "next")
    with pytest.raises(EventBridgeError, match="still waits"):
        jobs.end(waiting)
    with pytest.raises(EventBridgeError, match="another table"):
        Jobs().end(token)
    assert not waiting.settled
    assert waiting.cancel()
    jobs.end(token)


# -- refusals


def test_nowait_is_granted_at_once_or_says_who_holds_the_domain(jobs: Jobs, clock: Clock) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "worker-3", nowait=True))
    clock.now += 12.5
    error = refused(jobs.request("web1", Job.QUERY, "monitor", nowait=True), JobBusy)
    assert isinstance(error, JobBusy)
    assert (error.holder, error.job, error.since, error.held) == ("worker-3", Job.MODIFY, UNIX + 100.0, 12.5)
    assert "web1: query would have to wait: worker-3 holds it with modify for 12.5 s" in str(error)
    assert jobs.metrics().overall.count == 0, "it has not waited"
    jobs.end(token)
    assert len(jobs) == 0


def test_a_deadline_covers_the_whole_wait_and_names_the_last_in_its_way(jobs: Jobs, clock: Clock) -> None:
    first = granted(jobs.request("web1", Job.MODIFY, "first"))
    second = jobs.request("web1", Job.MODIFY, "second")
    third = jobs.request("web1", Job.QUERY, "third", timeout=30.0)
    clock.now += 20
    jobs.end(first)
    granted(second)
    clock.now += 9.9
    jobs.expire("web1")
    assert not third.settled
    clock.now += 0.1
    jobs.expire("web1")
    error = refused(third, JobTimeout)
    assert isinstance(error, TimeoutError)
    assert str(error).startswith("web1: query was not let in within 30.0 s: second holds it with modify for 10.0 s")
    jobs.end(second)


def test_a_deadline_of_ones_own_is_absolute_and_one_in_the_past_is_refused_at_once(jobs: Jobs, clock: Clock) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "me"))
    refused(jobs.request("web1", Job.QUERY, "late", deadline=clock.now), JobTimeout)
    waiting = jobs.request("web1", Job.QUERY, "patient", timeout=None)
    clock.now += 1e9
    jobs.expire("web1")
    assert not waiting.settled
    jobs.end(token)
    jobs.end(granted(waiting))


def test_too_many_are_refused_but_not_destroy_nor_async_nor_nested_jobs(jobs: Jobs) -> None:
    migration = granted(jobs.request("web1", Job.MIGRATION_OUT, "migration"))
    token = granted(jobs.request("web1", Job.QUERY, "me"))
    queue = [jobs.request("web1", Job.MODIFY, "many") for _ in range(3)]
    error = refused(jobs.request("web1", Job.QUERY, "one more"), JobBusy)
    assert "3 wait already, and me holds it with query" in str(error)
    queue += [
        jobs.request("web1", Job.DESTROY, "destroyer"),
        jobs.request("web1", Job.SAVE, "saver"),
        jobs.request("web1", Job.MODIFY, "migration", of=migration),
    ]
    assert not any(ticket.settled for ticket in queue)
    for ticket in queue:
        assert ticket.cancel()
    jobs.end(token)
    jobs.end(migration)


def test_a_domain_that_has_ended_fails_its_waiters_and_the_one_that_runs_ends_as_ever(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.DESTROY, "destroyer"))
    waiting = jobs.request("web1", Job.MODIFY, "modifier")
    start = jobs.request("web1", Job.START, "starter")
    jobs.gone("web1")
    error = refused(waiting, HypervisorError)
    assert isinstance(error, HypervisorError)
    assert (error.operation, error.domain) == ("modify", "web1")
    assert "has ended while modify waited for it: destroyer holds it with destroy" in str(error)
    assert not start.settled, "it brings the domain up"
    jobs.end(token)
    jobs.end(granted(start))


# -- who is told, and where


def test_each_ticket_is_told_once_and_with_no_lock_held(jobs: Jobs) -> None:
    told: list[tuple[object, bool]] = []

    def on_settled(ticket: Ticket) -> None:
        told.append((ticket.owner, ticket.token is not None))
        assert jobs.running("web1") is not None  # takes the lock

    first = jobs.request("web1", Job.MODIFY, "first", on_settled=on_settled)
    second = jobs.request("web1", Job.MODIFY, "second", on_settled=on_settled)
    jobs.request("web1", Job.MODIFY, "refused", on_settled=on_settled, nowait=True)
    cancelled = jobs.request("web1", Job.MODIFY, "cancelled", on_settled=on_settled)
    assert cancelled.cancel()
    assert told == [("first", True), ("refused", False)]
    jobs.end(first)
    assert told[2:] == [("second", True)]
    jobs.end(second)
    assert len(told) == 3


def test_a_chain_of_jobs_each_ended_when_it_is_granted_does_not_nest(clock: Clock) -> None:
    jobs = Jobs(clock=clock, limit=5000)
    order: list[object] = []

    def at_once(ticket: Ticket) -> None:
        order.append(ticket.owner)
        ticket.end()

    token = jobs.request("web1", Job.MODIFY, "first")
    for number in range(5000):
        jobs.request("web1", Job.MODIFY, number, on_settled=at_once)
    jobs.end(token)
    assert order == list(range(5000))
    assert len(jobs) == 0


def test_what_a_callback_raises_is_reported_and_keeps_nobody_from_being_told(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(ticket: Ticket) -> None:
        raise ZeroDivisionError(str(ticket.owner))

    def interrupted(ticket: Ticket) -> None:
        raise KeyboardInterrupt

    told: list[Ticket] = []
    reported: list[BaseException] = []
    jobs = Jobs(clock=clock, on_error=lambda error, context: reported.append(error))
    token = jobs.request("web1", Job.MODIFY, "me")
    waiting = [jobs.request("web1", Job.QUERY, "q", on_settled=call) for call in (broken, interrupted, told.append)]
    clock.now += 31
    with pytest.raises(KeyboardInterrupt):
        jobs.expire("web1")
    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert told == waiting[2:]
    jobs.end(token)
    with caplog.at_level(logging.ERROR):
        Jobs().request("web1", Job.QUERY, "q", on_settled=broken)
    assert "ZeroDivisionError" in caplog.text


# -- a finalizer inside a step


def inside_a_step(jobs: Jobs, act: Callable[[], object]) -> None:
    """As a garbage collection would: in this thread, the lock held, a step half done."""
    with jobs._lock:
        act()


def test_a_job_that_is_ended_by_a_finalizer_inside_a_step_ends_after_it(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "generator"))
    waiting = jobs.request("web1", Job.MODIFY, "next")
    inside_a_step(jobs, token.end)
    assert token.state is State.HELD, "not inside"
    jobs.end(granted(jobs.request("web2", Job.QUERY, "anybody")))
    assert token.state is State.ENDED
    jobs.end(granted(waiting))


def test_what_a_finalizer_lets_go_inside_a_step_is_let_go_after_it(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "dead"))
    waiting = jobs.request("web1", Job.MODIFY, "dead too")
    inside_a_step(jobs, lambda: [jobs.let_go(ticket) for ticket in (waiting, token)])
    assert not waiting.settled
    assert jobs.running("web2") is None
    assert waiting.state is State.CANCELLED
    assert token.state is State.ENDED


def test_a_finalizer_may_not_begin_a_job_inside_a_step(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "me"))
    with pytest.raises(RuntimeError, match="only end one"):
        inside_a_step(jobs, lambda: jobs.request("web1", Job.QUERY, "finalizer"))
    jobs.end(token)


def test_a_generator_that_is_collected_inside_a_block_ends_its_job(jobs: Jobs) -> None:
    def steps(cycle: list[object]) -> Iterator[object]:
        with jobs.hold("web1", Job.MODIFY):
            yield cycle

    def left_in_a_cycle() -> None:
        cycle: list[object] = []
        cycle.append(steps(cycle))
        next(cycle[0])  # type: ignore[call-overload]  # the generator

    left_in_a_cycle()
    gc.collect()
    assert jobs.running("web1") is None
