"""How many events a second many QEMUs tell through one dispatcher.

    python -m tests.measurements.qmp_herd --qemus 200

Each is a real QEMU without a machine (10 MiB of its own), suspended and resumed in turn, as fast as it answers; every
event of it is counted, and one that is lost or told twice is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import monotonic, process_time

from tests.support.qmp_herd import herd, mistakes, stampede
from tests.support.qmp_qemu import Qemu

LOOPS = ("asyncio", "libuv", "select")


def cpu_of(qemu: Qemu) -> float:
    """Seconds, so far (proc(5): utime and stime)."""
    fields = Path(f"/proc/{qemu.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.measurements.qmp_herd", description=__doc__)
    parser.add_argument("--qemus", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--events", type=int, default=20_000, help="in all, on each loop (default: 20000)")
    parser.add_argument("--loop", choices=LOOPS, help="that one alone")
    arguments = parser.parse_args()
    rounds = max(1, arguments.events // (2 * arguments.qemus))
    began = monotonic()
    failed = False
    with herd(arguments.qemus) as qemus:
        print(f"{arguments.qemus} QEMUs are up after {monotonic() - began:.1f} s")
        for loop in (arguments.loop,) if arguments.loop else LOOPS:
            used, theirs = process_time(), sum(map(cpu_of, qemus))
            heads, took = stampede(loop, qemus, rounds)
            used, theirs = process_time() - used, sum(map(cpu_of, qemus)) - theirs
            count = sum(len(head.events) for head in heads)
            wrong = mistakes(heads, rounds)
            failed = failed or bool(wrong)
            ours, theirs = 1e6 * used / count, 1e6 * theirs / count
            print(
                f"{loop}: {count / took:,.0f} events/s; an event took {ours:.0f} us of CPU here, with its command and "
                f"reply, and {theirs:.0f} us of QEMU's; {count} events, {len(wrong)} QEMUs wrong"
            )
            for words in wrong:
                print(f"  {words}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
