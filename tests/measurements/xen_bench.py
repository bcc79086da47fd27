"""How many of Xen's events a second, beside libxl's own loop driven from C:  ``make bench-xen``.

The real libxl and the real xenstored over the hypercall stand-in.  Each contender, in a process of its own, follows
200 domains, beside idle ones; these then shut down and die, so many with each announcement of Xen's, and the clock
runs from the first announcement until the contender has told the last event.  The CPU is the contender's own.
Contenders take turns within a round; the figures are medians of the rounds, the ratios medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple

from tests.support.command import ROOT
from tests.support.wanted import program
from tests.support.xen import packages
from tests.support.xen.standin import XenStandIn

DOMAINS = 200
C_LOOP = "libxl-c"
LOOPS = ("asyncio", "uvloop", "libuv", "select")
# The domains that stop with one announcement, and how many others are idle beside the 200.
CASES = ((1, 0), (20, 0), (200, 0), (20, 1000))
ROUNDS = 5


class Figure(NamedTuple):
    """Of one measurement: events a second, and microseconds of the contender's CPU an event."""

    rate: float
    cpu: float


class Contender:
    """A process that follows domains and counts their events."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout

    def asks(self, line: str, answer: str) -> str:
        """What it says to a line, after the word ``answer``."""
        self._stdin.write(line + "\n")
        self._stdin.flush()
        said = self._stdout.readline()
        word, _, rest = said.partition(" ")
        if word.strip() != answer:
            raise RuntimeError(f"asked {line!r} it said {said!r}: its words are above")
        return rest


def measure(xen: XenStandIn, contender: Contender, together: int, domids: Iterator[range]) -> Figure:
    """One generation of domains: created, followed, shut down and dead, ``together`` with each announcement."""
    born = next(domids)
    xen.create_many(born)
    contender.asks(f"follow {born.start} {len(born)}", "ready")
    took = used = 0.0
    for act in (xen.shutdown, xen.die):  # one after the other: a domain dead before it was seen shut down only dies
        began = time.monotonic()
        for start in range(born.start, born.stop, together):
            act(*range(start, start + together))
        used += float(contender.asks(f"await {len(born)}", "done"))
        took += time.monotonic() - began
    return Figure(2 * len(born) / took, 1e6 * used / (2 * len(born)))


def measure_case(together: int, idle: int, rounds: int, names: list[str], c_loop: Path) -> dict[str, list[Figure]]:
    """Every contender ``rounds`` times, in turns; every second round the other way round."""
    figures: dict[str, list[Figure]] = {name: [] for name in names}
    with XenStandIn() as xen:
        for first in range(1, idle + 1, 500):
            xen.create_many(range(first, min(first + 500, idle + 1)))
        domids = iter([range(first, first + DOMAINS) for first in range(idle + 1, 32_000 - DOMAINS, DOMAINS)])
        for round in range(rounds):
            for name in names if round % 2 == 0 else names[::-1]:
                with started(xen, name, c_loop) as contender:
                    if idle and name == C_LOOP:  # ours follows whoever is there
                        contender.asks(f"follow 1 {idle}", "ready")
                    figures[name].append(measure(xen, contender, together, domids))
    return figures


@contextmanager
def started(xen: XenStandIn, name: str, c_loop: Path) -> Iterator[Contender]:
    command = [str(c_loop)] if name == C_LOOP else [sys.executable, "-m", "tests.measurements.xen_contender", name]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**xen.environment, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        contender = Contender(process)
        contender.asks("follow 1 0", "ready")  # it is up
        yield contender
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            print(f"bench-xen: {name} did not end within 20 s: killed", file=sys.stderr)
            process.kill()
            process.wait()


def built(directory: str) -> Path:
    """libxl's own loop, in C."""
    target = Path(directory) / "libxl_loop"
    root, libraries = packages.root(), packages.libraries()
    source = Path(__file__).with_name("libxl_loop.c")
    compiler = [program("gcc", "gcc libc6-dev"), "-O2", "-Wall", "-Wextra", f"-I{root}/usr/include"]
    linked = [f"-L{libraries}", f"-Wl,-rpath-link,{libraries}", "-lxenlight", "-lxentoollog"]
    subprocess.run([*compiler, "-o", target, source, *linked], check=True)
    return target


def row(name: str, figures: list[Figure], base: list[Figure]) -> dict[str, float | str]:
    return {
        "contender": name,
        "events/s": round(median(one.rate for one in figures)),
        "beside C": round(median(one.rate / other.rate for one, other in zip(figures, base, strict=True)), 2),
        "CPU us/event": round(median(one.cpu for one in figures), 1),
        "CPU beside C": round(median(one.cpu / other.cpu for one, other in zip(figures, base, strict=True)), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-xen", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--loops", nargs="+", default=list(LOOPS), choices=LOOPS, help="(all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    args = parser.parse_args()
    names = [C_LOOP, *args.loops]
    try:
        with tempfile.TemporaryDirectory() as directory:
            c_loop = built(directory)
            for together, idle in CASES:
                print(f"bench-xen: {together} with each announcement, {idle} idle ...", file=sys.stderr)
                figures = measure_case(together, idle, args.rounds, names, c_loop)
                for name in names:
                    found = {"together": together, "idle": idle, **row(name, figures[name], figures[C_LOOP])}
                    print(
                        json.dumps(found)
                        if args.json
                        else "  ".join(f"{key} {value!s:<8}" for key, value in found.items())
                    )
    except KeyboardInterrupt:
        print("bench-xen: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
