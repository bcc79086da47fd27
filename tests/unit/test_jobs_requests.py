"""`Jobs.request` and what is around it, on a clock that the test sets: tokens, refusals, nesting, what is visible."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator

import pytest

from eventbridge.errors import EventBridgeError, HypervisorError, JobAborted, JobBusy, JobTimeout
from eventbridge.jobs import Following, Job, Jobs, Progress, State, Ticket
from eventbridge.jobs.waits import BOUND

UNIX = 1_000_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return UNIX + self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Iterator[Jobs]:
    jobs = Jobs(clock=clock, wall=clock.wall, limit=3)
    yield jobs
    assert len(jobs) == 0, "nothing is left behind"


def granted(ticket: Ticket) -> Ticket:
    assert ticket.token is ticket, ticket.error
    assert ticket.error is None
    return ticket


def refused(ticket: Ticket, kind: type[EventBridgeError]) -> EventBridgeError:
    assert ticket.settled
    assert ticket.token is None
    assert type(ticket.error) is kind
    return ticket.error


# -- tokens


def test_a_job_on_one_domain_does_not_keep_anybody_from_another(jobs: Jobs) -> None:
    tokens = [granted(jobs.request(key, Job.MODIFY, "me")) for key in ("a", ("b", 1), 3)]
    assert len(jobs) == 3
    for token in tokens:
        token.end()


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


# -- async jobs, nested and abandoned ones


def test_beside_a_migration_info_is_had_and_a_second_migration_is_refused_naming_the_first(jobs: Jobs) -> None:
    migration = granted(jobs.request("web1", Job.MIGRATION_OUT, "to host2"))
    for _ in range(3):
        jobs.end(granted(jobs.request("web1", Job.QUERY, "monitor", nowait=True)))
    assert refused(jobs.request("web1", Job.MODIFY, "editor", nowait=True), JobBusy)
    error = refused(jobs.request("web1", Job.MIGRATION_OUT, "to host3", nowait=True), JobBusy)
    assert isinstance(error, JobBusy)
    assert (error.holder, error.job) == ("to host2", Job.MIGRATION_OUT)
    jobs.end(migration)


def test_a_nested_job_passes_its_own_async_jobs_mask_and_no_normal_job(jobs: Jobs) -> None:
    start = granted(jobs.request("web1", Job.START, "starter"))
    assert refused(jobs.request("web1", Job.QUERY, "monitor", nowait=True), JobBusy)
    nested = granted(jobs.request("web1", Job.MODIFY, "starter", of=start))
    second = jobs.request("web1", Job.QUERY, "starter", of=start)
    assert not second.settled, "one normal job at a time"
    jobs.end(nested)
    jobs.end(granted(second))
    jobs.end(start)


def test_a_nested_job_is_refused_once_its_async_job_has_ended(jobs: Jobs) -> None:
    start = granted(jobs.request("web1", Job.START, "starter"))
    nested = granted(jobs.request("web1", Job.MODIFY, "starter", of=start))
    waiting = jobs.request("web1", Job.MODIFY, "starter", of=start)
    jobs.end(start)
    assert "does not run any more" in str(refused(waiting, JobAborted))
    jobs.end(nested)  # what ran goes on, as a job like others
    refused(jobs.request("web1", Job.MODIFY, "starter", of=start), JobAborted)


def test_an_async_job_is_never_part_of_another(jobs: Jobs) -> None:
    start = granted(jobs.request("web1", Job.START, "starter"))
    with pytest.raises(ValueError, match="only a normal job"):
        jobs.request("web1", Job.SAVE, "saver", of=start)
    jobs.end(start)


def test_an_abandoned_job_holds_the_domain_but_for_the_two_ways_out(jobs: Jobs, clock: Clock) -> None:
    hung = granted(jobs.request("web1", Job.MODIFY, "hung"))
    waiting = jobs.request("web1", Job.QUERY, "monitor")
    destroy = jobs.request("web1", Job.DESTROY, "destroyer")
    clock.now += 30
    assert jobs.abandon(hung)
    assert granted(destroy), "though it came later: the other could not run"
    assert not waiting.settled
    info = jobs.running("web1")
    assert info is not None
    assert info.normal is not None and info.normal.holder == "destroyer"
    assert [(held.holder, held.abandoned) for held in info.abandoned] == [("hung", True)]
    jobs.end(destroy)
    jobs.end(granted(jobs.request("web1", Job.ABORT, "aborter", nowait=True)))
    error = refused(jobs.request("web1", Job.MODIFY, "editor", nowait=True), JobBusy)
    assert "hung holds it with modify for 30.0 s, abandoned in a call that hangs" in str(error)
    jobs.end(hung)
    jobs.end(granted(waiting))
    assert not jobs.abandon(hung), "it has ended"


def test_a_block_that_is_left_after_abandoning_does_not_end_the_job(jobs: Jobs) -> None:
    with jobs.request("web1", Job.MODIFY, "hung") as token:
        token.abandon()
    assert jobs.running("web1") is not None
    token.end()
    with jobs.request("web1", Job.MODIFY, "early") as token:
        token.end()


def test_what_was_abandoned_holds_nothing_once_its_domain_has_ended_and_its_late_end_is_legal(jobs: Jobs) -> None:
    hung = granted(jobs.request("web1", Job.MODIFY, "hung"))
    migration = granted(jobs.request("web2", Job.MIGRATION_OUT, "hung too"))
    jobs.abandon(hung)
    jobs.abandon(migration)
    jobs.gone("web1")
    jobs.gone("web2")
    assert len(jobs) == 0
    start = granted(jobs.request("web1", Job.START, "starter", nowait=True))
    jobs.end(hung)
    jobs.end(migration)
    assert granted(start)
    jobs.end(start)
    with pytest.raises(EventBridgeError):
        jobs.end(hung)


def test_progress_and_the_wish_to_abort_are_seen_by_all_who_follow(jobs: Jobs) -> None:
    seen: list[Following] = []
    assert not jobs.follow("web1", seen.append), "nothing runs"
    assert not jobs.abort("web1")
    save = granted(jobs.request("web1", Job.SAVE, "saver"))
    assert jobs.follow("web1", seen.append)
    half = Progress(total=100, processed=50, remaining=50, rate=1e6)
    save.report(half)
    save.check()
    assert not save.abort_asked
    assert jobs.abort("web1")
    assert jobs.abort("web1"), "again: nobody is told twice"
    assert save.abort_asked
    with pytest.raises(JobAborted, match="saver"):
        save.check()
    info = jobs.running("web1")
    assert info is not None
    assert (info.progress, info.abort_asked) == (half, True)
    next = jobs.request("web1", Job.SAVE, "next")
    jobs.end(save)
    assert [(one.progress, one.abort_asked, one.ended) for one in seen] == [
        (half, False, False),
        (half, True, False),
        (half, True, True),
    ]
    save.report(half)  # late: nothing
    granted(next)
    assert not next.abort_asked, "the wish was the other's"
    assert not save.abort_asked
    jobs.end(next)
    assert len(seen) == 3


def test_who_follows_no_longer_is_told_no_longer(jobs: Jobs) -> None:
    seen: list[Following] = []
    save = granted(jobs.request("web1", Job.SAVE, "saver"))
    jobs.follow("web1", seen.append)
    jobs.unfollow("web1", seen.append)
    save.report(Progress(total=1))
    jobs.end(save)
    jobs.unfollow("web1", seen.append)
    assert seen == []


def test_what_lets_no_abort_in_is_not_asked_to_unless_it_is_abandoned(jobs: Jobs) -> None:
    start = granted(jobs.request("web1", Job.START, "starter"))
    with pytest.raises(JobBusy, match="starter holds it with start"):
        jobs.abort("web1")
    assert not start.abort_asked
    start.abandon()
    assert jobs.abort("web1")
    assert start.abort_asked
    jobs.end(start)


def test_a_normal_job_has_no_progress(jobs: Jobs) -> None:
    token = granted(jobs.request("web1", Job.MODIFY, "me"))
    with pytest.raises(ValueError, match="no async job"):
        token.report(Progress())
    assert not token.abort_asked
    jobs.end(token)


# -- what is visible


def test_what_runs_is_visible(jobs: Jobs, clock: Clock) -> None:
    assert jobs.running("web1") is None
    backup = granted(jobs.request("web1", Job.BACKUP, "nightly"))
    clock.now += 60
    alone = jobs.running("web1")
    assert alone is not None
    assert (alone.job, alone.holder, alone.since, alone.held) == (Job.BACKUP, "nightly", UNIX + 100, 60.0)
    modify = granted(jobs.request("web1", Job.MODIFY, "editor"))
    waiting = [jobs.request("web1", Job.QUERY, "monitor") for _ in range(2)]
    clock.now += 1
    info = jobs.running("web1")
    assert info is not None
    assert info.async_ is not None and info.normal is not None
    assert str(info.async_) == "nightly holds it with backup for 61.0 s"
    assert str(info.normal) == "editor holds it with modify for 1.0 s"
    assert (info.holder, info.queue, info.progress, info.abandoned) == ("nightly", 2, None, ())
    assert "editor" in repr(modify) and "is held" in repr(modify)
    for ticket in waiting:
        ticket.cancel()
    jobs.end(modify)
    jobs.end(backup)
    assert jobs.running("web1") is None


def test_waits_are_counted_by_domain_and_over_all(jobs: Jobs, clock: Clock) -> None:
    for key, seconds in (("web1", 2.0), ("web1", 3.0), ("web2", 10.0)):
        token = granted(jobs.request(key, Job.MODIFY, "me"))
        waiting = jobs.request(key, Job.MODIFY, "next")
        clock.now += seconds
        jobs.end(token)
        jobs.end(granted(waiting))
    token = granted(jobs.request("web3", Job.MODIFY, "me"))
    waiting = jobs.request("web3", Job.MODIFY, "next")
    metrics = jobs.metrics()
    overall = metrics.overall
    assert (overall.count, overall.total, overall.longest, overall.queue, metrics.held) == (3, 15.0, 10.0, 1, 1)
    one = metrics.domains["web1"]
    assert (one.count, one.total, one.longest, one.queue) == (2, 5.0, 3.0, 0)
    assert metrics.domains["web3"].queue == 1
    jobs.gone("web1")
    assert "web1" not in jobs.metrics().domains
    assert jobs.metrics().overall.count == 3
    waiting.cancel()
    jobs.end(token)


def test_domains_that_come_and_go_leave_no_trace_that_grows(clock: Clock) -> None:
    jobs = Jobs(clock=clock)
    for number in range(BOUND + 100):
        token = jobs.request(number, Job.MODIFY, "me")
        waiting = jobs.request(number, Job.MODIFY, "next")
        jobs.end(token)
        jobs.end(waiting)
    assert len(jobs) == 0
    assert len(jobs.metrics().domains) == BOUND
    assert jobs.metrics().overall.count == BOUND + 100


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
