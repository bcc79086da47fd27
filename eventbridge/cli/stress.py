"""``eventbridge stress``: the soak of `eventbridge.testing.soak` on each host loop in turn, and a table of what came of
it.

Everything runs in this process: the loop in the main thread, the operations in others.  The table is for standard
output; progress and complaints are for standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import random
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from eventbridge.errors import HostUnavailable
from eventbridge.testing.soak import GROWTH_BOUND, Report, Soak, make_room

from . import loops, terminal

LOOPS = ("asyncio", "libuv", "select", "uvloop")
QUIET_UNTIL = 2.0
"""Seconds: a shorter soak shows no progress."""
MIB = 2**20

EPILOG = f"""\
What is checked: every byte written to a watched fd arrives, and no other file's; nothing is called that was removed
or turned off (one call that was decided on already is allowed from another thread); no timeout is early or lost;
every free is called once, on the loop's thread; no fd is left; memory grows by less than {GROWTH_BOUND // MIB} MiB
after the warm-up.

exit code: 0 if all is well, 1 if anything was lost, wrong or left, 2 if called wrongly.  Ctrl-C ends it with what was
seen so far.

examples:
  eventbridge stress
  eventbridge stress --for 5 --loop select --seed 7
"""

# Heading, width, and what is under it.
COLUMNS = (
    ("host", -8, lambda report: report.host),
    ("seconds", 8, lambda report: f"{report.seconds:.1f}"),
    ("operations", 11, lambda report: report.operations),
    ("callbacks", 11, lambda report: report.callbacks),
    ("lost", 6, lambda report: report.lost),
    ("wrong", 6, lambda report: report.wrong),
    ("leaked fds", 11, lambda report: report.leaked_fds),
    ("memory MiB", 11, lambda report: f"{report.growth / MIB:+.1f}"),
    ("frees called / owed", 22, lambda report: f"{report.frees_called} / {report.frees_owed}"),
)


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "stress",
        help="random operations from several threads on each host loop; nothing may be lost or left",
        description="Random adds, updates, removes and closes, from several threads, on each host loop in turn.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="for each host loop, more than 0 (default 60)",
    )
    parser.add_argument("--fds", type=_from(2, 1_000_000), default=1000, help="how many are open (default 1000)")
    parser.add_argument(
        "--threads", type=_from(1, 256), default=4, help="how many operate beside the loop's (default 4)"
    )
    parser.add_argument(
        "--loop",
        dest="loops",
        type=loops.loop_name,
        action="append",
        metavar="NAME",
        help=f"a host loop; again for several (default: those of {', '.join(LOOPS)} that work here)",
    )
    parser.add_argument("--seed", type=_from(0, 2**63 - 1), help="to draw the same operations again (default: random)")
    parser.add_argument("--json", action="store_true", help="one object a line for each host loop, and no table")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, more than 0; found {text!r}")
    return seconds


def _from(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}; found {text!r}")
        return int(text)

    return number


def run(args: argparse.Namespace) -> int:
    if not make_room(args.fds):
        terminal.complain(
            f"--fds {args.fds}: so many do not fit the hard limit of open files: raise it (ulimit -Hn) or ask for fewer"
        )
        return 2
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    with _interruptible() as interrupted:
        reports = _soak_each(args, seed, interrupted)
    return 0 if all(report.clean for report in reports) else 1


def _soak_each(args: argparse.Namespace, seed: int, interrupted: Callable[[], bool]) -> list[Report]:
    """On one host loop after the other; each report is told as it comes."""
    reports: list[Report] = []
    if not args.json:
        terminal.say(f"seed {seed}: {args.fds} fds, {args.threads} threads, {args.seconds:g} s on each host loop")
    for name in args.loops or _that_work():
        soak = Soak(
            name,
            functools.partial(loops.bridge_on, name),
            seconds=args.seconds,
            fds=args.fds,
            threads=args.threads,
            seed=seed,
            stopping=interrupted,
        )
        with Progress(args.seconds) as progress:
            reports.append(soak.run(progress))
        _tell(reports, as_json=args.json)
        if interrupted():
            break
    return reports


def _that_work() -> list[str]:
    """The host loops whose library is here; a line about each of the others."""
    found = []
    for name in LOOPS:
        try:
            with loops.bridge_on(name):
                found.append(name)
        except HostUnavailable as error:
            terminal.complain(f"left out: {terminal.one_line(error)}")
    return found


def _tell(reports: list[Report], *, as_json: bool) -> None:
    """The last report, as it comes; a table grows a row."""
    report = reports[-1]
    if as_json:
        terminal.say(json.dumps(report.to_json()))
    else:
        if len(reports) == 1:
            terminal.say(_row([heading for heading, _, _ in COLUMNS]))
        terminal.say(_row([str(cell(report)) for _, _, cell in COLUMNS]))
    for complaint in report.complaints:
        terminal.complain(f"{report.host}: {complaint}")


def _row(cells: list[str]) -> str:
    widths = [width for _, width, _ in COLUMNS]
    return " ".join(
        cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Was there a Ctrl-C?  A second does not wait for what the first has ended."""
    seen = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """One line on standard error that is written again and again; where that is no terminal, nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown = seconds > QUIET_UNTIL and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, soak: Soak, elapsed: float) -> None:
        if self._shown:
            print(
                f"\r{soak.host}: {elapsed:.0f} of {self._seconds:.0f} s, {soak.operations} operations\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *exc: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
