"""Jobs held by threads.  Nothing here sleeps: a thread is known to wait when it is in the queue."""

from __future__ import annotations

import gc
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from eventbridge.errors import HypervisorError
from eventbridge.jobs import Job, JobAborted, JobBusy, Jobs, JobTimeout, State, Ticket
from tests.support.patience import PATIENCE


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    assert len(jobs) == 0, "nothing is left behind"


def until(condition: Callable[[], bool]) -> None:
    """Give other threads their turn until it is so."""
    turn = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        turn.wait(0.001)
    raise AssertionError("it did not come to be")


def queue(jobs: Jobs, key: str = "web1") -> int:
    info = jobs.running(key)
    return 0 if info is None else info.queue


def started(work: Callable[[], object], name: str = "worker") -> Future[object]:
    """What the work, in a thread of its own, comes to."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name).start()
    return future


def waiting(jobs: Jobs, work: Callable[[], object], name: str = "worker") -> Future[object]:
    before = queue(jobs)
    future = started(work, name)
    until(lambda: queue(jobs) == before + 1)
    return future


def test_a_block_holds_the_domain_and_its_end_lets_it_go(jobs: Jobs) -> None:
    with jobs.hold("web1", Job.MODIFY) as token:
        info = jobs.running("web1")
        assert info is not None
        assert (info.job, info.holder) == (Job.MODIFY, threading.current_thread().name)
        assert token.token is token
    assert token.state is State.ENDED
    with pytest.raises(ZeroDivisionError), jobs.hold("web1", Job.MODIFY):
        raise ZeroDivisionError
    assert jobs.running("web1") is None


def test_threads_are_let_in_one_by_one_in_the_order_in_which_they_came(jobs: Jobs) -> None:
    order: list[int] = []
    inside: list[int] = []

    def work(number: int) -> None:
        with jobs.hold("web1", (Job.MODIFY, Job.QUERY)[number % 2]):
            inside.append(number)
            assert len(inside) == 1
            order.append(number)
            inside.remove(number)

    with jobs.hold("web1", Job.MODIFY):
        futures = [waiting(jobs, lambda number=number: work(number)) for number in range(6)]  # type: ignore[misc]  # binds it now
        assert order == []
    for future in futures:
        future.result(PATIENCE)
    assert order == list(range(6))


def test_a_deadline_that_passes_is_a_timeout_that_names_the_holder_and_leaves_nothing(jobs: Jobs) -> None:
    def work() -> None:
        with jobs.hold("web1", Job.QUERY, timeout=0.02):
            raise AssertionError("it was let in")

    with jobs.hold("web1", Job.MODIFY, owner="the editor") as token:
        with pytest.raises(JobTimeout, match="the editor holds it with modify") as raised:
            started(work).result(PATIENCE)
        assert raised.value.job is Job.MODIFY
        assert queue(jobs) == 0
        assert token.state is State.HELD
    assert jobs.metrics().overall.longest >= 0.02, "never early"


def test_nowait_is_refused_at_once_or_let_in(jobs: Jobs) -> None:
    with jobs.hold("web1", Job.MODIFY), pytest.raises(JobBusy), jobs.hold("web1", Job.QUERY, nowait=True):
        raise AssertionError("it was let in")
    with jobs.hold("web1", Job.QUERY, nowait=True):
        pass


def test_a_domain_that_ends_fails_the_thread_that_waits_for_it(jobs: Jobs) -> None:
    with jobs.hold("web1", Job.DESTROY):
        future = waiting(jobs, lambda: jobs.hold("web1", Job.QUERY, timeout=None))
        jobs.gone("web1")
        with pytest.raises(HypervisorError, match="has ended"):
            future.result(PATIENCE)


def test_a_nested_job_is_let_in_by_the_token_of_its_async_job(jobs: Jobs) -> None:
    with (
        jobs.hold("web1", Job.START) as start,
        jobs.hold("web1", Job.MODIFY, of=start, nowait=True),
        pytest.raises(JobBusy),
    ):
        jobs.hold("web1", Job.QUERY, nowait=True)
    with pytest.raises(JobAborted):
        jobs.hold("web1", Job.MODIFY, of=start)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_an_interrupted_wait_leaves_the_queue(jobs: Jobs) -> None:
    def interrupt() -> None:
        until(lambda: queue(jobs) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with jobs.hold("web1", Job.MODIFY) as token:
        interrupting = started(interrupt)
        with pytest.raises(KeyboardInterrupt):
            jobs.hold("web1", Job.MODIFY)
        assert queue(jobs) == 0
        assert token.state is State.HELD
    interrupting.result(PATIENCE)


# -- threads that die


def test_a_thread_that_dies_releases_what_it_held_and_who_waits_is_let_in(jobs: Jobs) -> None:
    tokens: list[Ticket] = []
    go = threading.Event()

    def dies() -> None:
        tokens.append(jobs.hold("web1", Job.MODIFY))  # never ended
        tokens.append(jobs.hold("web2", Job.SAVE, owner="named"))
        tokens.append(jobs.hold("web2", Job.QUERY))
        go.wait(PATIENCE)

    dying = threading.Thread(target=dies, name="dying")
    dying.start()
    until(lambda: len(tokens) == 3)
    kept = jobs.hold("web3", Job.MODIFY)
    future = waiting(jobs, lambda: jobs.hold("web1", Job.MODIFY, timeout=PATIENCE).end())
    assert not future.done()
    go.set()
    dying.join(PATIENCE)
    future.result(PATIENCE)
    until(lambda: [token.state for token in tokens] == [State.ENDED] * 3)
    assert kept.state is State.HELD, "another thread's"
    kept.end()


def test_a_thread_that_dies_takes_nothing_with_it_that_it_gave_to_others(jobs: Jobs) -> None:
    """What a driver asked for with `request` belongs to no thread."""
    token: list[Ticket] = []
    thread = threading.Thread(target=lambda: token.append(jobs.request("web1", Job.MODIFY, "driver")))
    thread.start()
    thread.join(PATIENCE)
    with jobs.hold("web2", Job.QUERY):
        pass
    assert token[0].state is State.HELD
    token[0].end()


def test_a_job_that_was_abandoned_outlives_its_thread(jobs: Jobs) -> None:
    token: list[Ticket] = []

    def work() -> None:
        with jobs.hold("web1", Job.MODIFY) as mine:
            token.append(mine)
            mine.abandon()

    started(work).result(PATIENCE)
    until(lambda: threading.active_count() >= 1)
    assert token[0].state is State.ABANDONED
    with jobs.hold("web1", Job.DESTROY, nowait=True):
        pass
    token[0].end()


def test_a_table_that_is_dropped_does_not_live_on_in_the_threads_that_used_it() -> None:
    jobs = Jobs()
    with jobs.hold("web1", Job.QUERY):
        pass
    gone = weakref.ref(jobs)
    gc.disable()
    try:
        del jobs
        assert gone() is None
    finally:
        gc.enable()


def test_threads_never_meet_inside_a_domain(jobs: Jobs) -> None:
    """8 threads, 3 domains, every kind of normal job."""
    inside = dict.fromkeys(["a", "b", "c"], 0)
    normal = [job for job in Job if not job.is_async]

    def work(number: int) -> int:
        for turn in range(300):
            key = "abc"[(number + turn) % 3]
            with jobs.hold(key, normal[(number * turn) % len(normal)]):
                inside[key] += 1
                assert inside[key] == 1
                inside[key] -= 1
        return number

    futures = [started(lambda number=number: work(number)) for number in range(8)]  # type: ignore[misc]  # binds it now
    assert [future.result(PATIENCE) for future in futures] == list(range(8))
