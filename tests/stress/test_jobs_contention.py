"""Ten thousand owners over a thousand domains, threads and coroutines mixed: everybody has a turn, nobody meets."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.jobs import LETS_IN, Job, Jobs, Ticket
from tests.support.patience import PATIENCE

DOMAINS = 1000
TASKS = 8000  # on two loops
THREADS = 50
TURNS = 40  # of each thread, each a new owner: 2000 in all
CROWDED = 20  # domains on which half of the owners meet
NORMAL = [job for job in Job if not job.is_async]


class Watch:
    """Who is inside, asked at every coming in: the rules, by somebody who knows nothing of the queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[int, set[Ticket]] = {}
        self.entries = 0
        self.wrong: list[str] = []

    def comes_in(self, key: int, token: Ticket) -> None:
        with self._lock:
            inside = self._inside.setdefault(key, set())
            for other in inside:
                if not self._may_meet(other.job, token.job):
                    self.wrong.append(f"{token!r} with {other!r}")
            inside.add(token)
            self.entries += 1

    def goes_out(self, key: int, token: Ticket) -> None:
        with self._lock:
            self._inside[key].remove(token)

    @staticmethod
    def _may_meet(one: Job, other: Job) -> bool:
        """Whichever was first: who was let in first need not be the first to say so."""
        return other in LETS_IN.get(one, ()) or one in LETS_IN.get(other, ())


def chosen(rng: random.Random) -> tuple[int, Job]:
    key = rng.randrange(CROWDED) if rng.random() < 0.5 else rng.randrange(DOMAINS)
    job = rng.choice(list(LETS_IN)) if rng.random() < 0.1 else rng.choice(NORMAL)
    return key, job


async def tasks(jobs: Jobs, watch: Watch, seed: int) -> None:
    host = AsyncioHost()

    async def owner(number: int) -> None:
        rng = random.Random(seed + number)
        key, job = chosen(rng)
        async with jobs.hold_async(key, job, timeout=None, owner=number, host=host) as token:
            watch.comes_in(key, token)
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            watch.goes_out(key, token)

    await asyncio.gather(*[owner(number) for number in range(TASKS // 2)])


def thread(jobs: Jobs, watch: Watch, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(TURNS):
        key, job = chosen(rng)
        with jobs.hold(key, job, timeout=None) as token:
            watch.comes_in(key, token)
            watch.goes_out(key, token)


def guarded(work: Callable[[], object], failed: list[BaseException]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    return run


@pytest.mark.timeout(120)
def test_ten_thousand_owners_over_a_thousand_domains_all_have_their_turn(
    record_property: Callable[[str, object], None],
) -> None:
    jobs, watch = Jobs(limit=TASKS), Watch()
    failed: list[BaseException] = []
    work: list[Callable[[], Any]] = [lambda n=n: asyncio.run(tasks(jobs, watch, n * TASKS)) for n in range(2)]  # type: ignore[misc]  # binds it now
    work += [lambda n=n: thread(jobs, watch, -1 - n) for n in range(THREADS)]  # type: ignore[misc]  # as above
    threads = [threading.Thread(target=guarded(one, failed)) for one in work]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    waits = jobs.metrics().overall
    record_property("longest wait, s", waits.longest)
    print(
        f"{watch.entries} owners, {waits.count} waited: {waits.longest:.3f} s the longest, {waits.total:.1f} s in all"
    )
    assert failed == []
    assert watch.wrong == []
    assert watch.entries == TASKS + THREADS * TURNS == 10_000
    assert waits.count > 1000, "they did contend"
    assert waits.queue == 0
    assert len(jobs) == 0


@pytest.mark.timeout(120)
def test_a_stream_of_queries_does_not_keep_a_modify_out() -> None:
    """Two threads query without a pause; a third one's every MODIFY is let in while they do."""
    jobs = Jobs()
    stop = threading.Event()
    queries = [0, 0]

    def query(number: int) -> None:
        while not stop.is_set():
            with jobs.hold("web1", Job.QUERY):
                queries[number] += 1

    threads = [threading.Thread(target=query, args=(number,)) for number in range(2)]
    for one in threads:
        one.start()
    try:
        for _ in range(200):
            with jobs.hold("web1", Job.MODIFY, timeout=PATIENCE):
                pass
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert min(queries) > 0
    assert len(jobs) == 0
