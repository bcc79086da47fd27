"""How long a query waits while its domain migrates:  ``python -m tests.measurements.migration_bench``.

Two real QEMUs on one asyncio loop, a third beside them.  `info` of the domain and of the third is asked in turn, first
while nothing else goes on, then while the domain migrates, at a bandwidth that makes that last.  Each round aborts the
migration in the end.  Milliseconds; medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from statistics import median, quantiles
from time import perf_counter

import eventbridge
from eventbridge import Domain
from tests.support import qmp_qemu
from tests.support.four_domains import until_under_way
from tests.support.qmp_qemu import INCOMING, MACHINE, Qemu

ROUNDS = 5
CALLS = 400
SLOW = 20_000  # bytes/s


async def _looks(domain: Domain) -> list[float]:
    took = []
    for _ in range(CALLS):
        began = perf_counter()
        await domain.info()
        took.append((perf_counter() - began) * 1e3)
    return took


async def _round(number: int, figures: dict[str, list[list[float]]]) -> None:
    with qmp_qemu.directory() as directory, contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(Qemu(directory, name, *MACHINE, *more))
            for name, more in (("a", ()), ("b", ()), ("there", INCOMING))
        ]
        async with contextlib.AsyncExitStack() as connected:
            domains = []
            for qemu in made:
                hv = await connected.enter_async_context(eventbridge.connect(qemu.uri, reconnect=None))
                domains += await hv.domains()
            a, b, there = domains
            await asyncio.gather(a.start(), b.start())
            figures["itself, at rest"].append(await _looks(a))
            figures["another, at rest"].append(await _looks(b))
            job = a.migrate(there, bandwidth=SLOW)
            await until_under_way(job)
            figures["itself, migrating"].append(await _looks(a))
            figures["another, meanwhile"].append(await _looks(b))
            assert not job.done
            await job.abort()


async def main(rounds: int) -> None:
    figures: dict[str, list[list[float]]] = {
        name: [] for name in ("itself, at rest", "itself, migrating", "another, at rest", "another, meanwhile")
    }
    for number in range(rounds):
        await _round(number, figures)
    print(f"info, {CALLS} a round, ms           p50      p99    worst")
    for name, rows in figures.items():
        p50, p99 = median(map(median, rows)), median(quantiles(row, n=100)[98] for row in rows)
        print(f"  {name:22} {p50:12.3f} {p99:8.3f} {median(map(max, rows)):8.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asyncio.run(main(parser.parse_args().rounds))
