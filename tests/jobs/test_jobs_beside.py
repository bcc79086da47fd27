"""What runs beside what, on a clock that the test sets: async, nested and abandoned jobs, and how they are seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventbridge.errors import EventBridgeError
from eventbridge.jobs import Following, Job, JobAborted, JobBusy, Jobs, Progress
from eventbridge.jobs.wait_log import BOUND
from tests.support.jobs import UNIX, Clock, granted, refused


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Iterator[Jobs]:
    jobs = Jobs(clock=clock, wall=clock.wall, limit=3)
    yield jobs
    assert len(jobs) == 0, "nothing is left behind"


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
