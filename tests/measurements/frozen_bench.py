"""What one frozen QEMU costs fifty others:  ``python -m tests.measurements.frozen_bench``.

Fifty-one QEMUs on one asyncio loop; `info` of fifty is asked in turn, one at a time, with the fifty-first alive, and
with it frozen (SIGSTOP) while calls of its own hang.  The two take turns; figures are medians of the rounds.
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
from tests.support.qmp_qemu import NONE, Qemu

OTHERS = 50
ROUNDS = 5
CALLS = 2000


async def _calls(others: list[Domain]) -> list[float]:
    """Milliseconds of each."""
    took = []
    for number in range(CALLS):
        began = perf_counter()
        await others[number % len(others)].info()
        took.append((perf_counter() - began) * 1e3)
    return took


async def main(rounds: int) -> None:
    figures: dict[str, list[tuple[float, float, float]]] = {"alive": [], "frozen": []}
    with qmp_qemu.directory() as directory, contextlib.ExitStack() as stack:
        qemus = [stack.enter_context(Qemu(directory, f"n{number}", *NONE)) for number in range(OTHERS + 1)]
        async with contextlib.AsyncExitStack() as connected:
            domains: list[Domain] = []
            for qemu in qemus:
                hv = await connected.enter_async_context(eventbridge.connect(qemu.uri, reconnect=None))
                domains += await hv.domains()
            frozen, *others = domains
            for _ in range(rounds):
                for state in figures:
                    hanging = []
                    if state == "frozen":
                        qemus[0].freeze()
                        hanging = [frozen.info(timeout=60) for _ in range(20)]
                    took = await _calls(others)
                    figures[state].append((median(took), quantiles(took, n=100)[98], max(took)))
                    assert not any(call.done for call in hanging)
                    qemus[0].thaw()
                    await asyncio.gather(*hanging)
    print(f"info of {OTHERS} others, {CALLS} a round, ms        p50      p99    worst")
    for state, rows in figures.items():
        p50, p99, worst = (median(row[column] for row in rows) for column in range(3))
        print(f"  the fifty-first is {state:7}            {p50:8.3f} {p99:8.3f} {worst:8.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asyncio.run(main(parser.parse_args().rounds))
