"""How many jobs a second, uncontended in one thread:  ``python -m tests.measurements.jobs_bench``.

Beside them the raw limit, a bare lock for each domain in a dict, which checks nothing, names nobody and lets nobody in
beside anybody.  Contenders take turns within a round; the figures are medians of the rounds, the ratios medians of the
rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

from eventbridge.jobs import Job, Jobs

DOMAINS = [f"domain-{number}" for number in range(100)]
ROUNDS = 5
TIMES = 200_000


def lock(turns: int) -> float:
    locks = {key: threading.Lock() for key in DOMAINS}
    began = perf_counter()
    for _ in range(turns):
        for key in DOMAINS:
            with locks[key]:
                pass
    return perf_counter() - began


def hold(turns: int) -> float:
    jobs = Jobs()
    began = perf_counter()
    for _ in range(turns):
        for key in DOMAINS:
            with jobs.hold(key, Job.MODIFY):
                pass
    return perf_counter() - began


def request_end(turns: int) -> float:
    jobs = Jobs()
    began = perf_counter()
    for _ in range(turns):
        for key in DOMAINS:
            jobs.end(jobs.request(key, Job.MODIFY, "bench"))
    return perf_counter() - began


def beside_an_async_job(turns: int) -> float:
    """A query on each domain while it migrates: through the machine, not the fast path."""
    jobs = Jobs()
    for key in DOMAINS:
        jobs.request(key, Job.MIGRATION_OUT, "migration")
    began = perf_counter()
    for _ in range(turns):
        for key in DOMAINS:
            with jobs.hold(key, Job.QUERY):
                pass
    return perf_counter() - began


def hold_async(turns: int) -> float:
    jobs = Jobs()

    async def run() -> float:
        began = perf_counter()
        for _ in range(turns):
            for key in DOMAINS:
                async with jobs.hold_async(key, Job.MODIFY):
                    pass
        return perf_counter() - began

    return asyncio.run(run())


def four_threads(turns: int) -> float:
    """As `hold`, each thread with a quarter of the domains: the one lock between them."""
    jobs = Jobs()

    def work(keys: Sequence[str]) -> None:
        for _ in range(turns):
            for key in keys:
                with jobs.hold(key, Job.MODIFY):
                    pass

    threads = [threading.Thread(target=work, args=(DOMAINS[number::4],)) for number in range(4)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return perf_counter() - began


LOCK = "a bare lock"
CONTENDERS: dict[str, Callable[[int], float]] = {
    LOCK: lock,
    "hold": hold,
    "request, end": request_end,
    "hold_async": hold_async,
    "hold, in a migration": beside_an_async_job,
    "hold, 4 threads": four_threads,
}


def measure(rounds: int, times: int) -> dict[str, list[float]]:
    """Begins and ends a second; every second round the other way round."""
    turns = max(1, times // len(DOMAINS))
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for round in range(rounds):
        for name in list(CONTENDERS)[:: 1 if round % 2 == 0 else -1]:
            rates[name].append(turns * len(DOMAINS) / CONTENDERS[name](turns))
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench-jobs", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--times", type=int, default=TIMES, help="begins and ends a round (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    args = parser.parse_args(arguments)
    rates = measure(args.rounds, args.times)
    for name, mine in rates.items():
        found = {
            "contender": name,
            "begin+end/s": round(median(mine)),
            "us": round(1e6 / median(mine), 2),
            "beside the lock": round(median(one / raw for one, raw in zip(mine, rates[LOCK], strict=True)), 3),
        }
        text = (
            f"{name:<22}{found['begin+end/s']:>10,}/s{found['us']:>8} us  {found['beside the lock']:>6} of a bare lock"
        )
        print(json.dumps(found) if args.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
