"""``eventbridge stress``: random operations and planted faults on each host loop, judged by an oracle, and a table of
what came of it.

Each host loop has a process of its own (`eventbridge.stress`), so that one that crashes or hangs is a line in
the table.  The table is for standard output; progress and complaints are for standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from eventbridge.errors import HostUnavailable
from eventbridge.stress import loops, supervisor
from eventbridge.stress.faults import ALL as FAULTS
from eventbridge.stress.plan import HostReport, Plan
from eventbridge.stress.racing import GROWTH_BOUND, make_room
from eventbridge.stress.script import load

from . import terminal

MIB = 2**20

EPILOG = f"""\
What is checked: every byte written to a watched fd arrives, and no other file's; nothing is called that was removed
or turned off (one call that was decided on already is allowed from another thread); nothing is called again while it
runs; no timeout is early, lost, or made up for when it is late; an exception is told once; every free is called once,
on the loop's thread; a forked child is refused, and its parent notices nothing; no fd is left; memory grows by less
than {GROWTH_BOUND // MIB} MiB.  A host's process that crashes, hangs or says anything has violated that too.

Scripted rounds are wholly determined by the seed; one that fails is shrunk, and kept as stress-HOST-SEED.json for
--script.  In racing rounds the operations are, but how the threads interleave is the machine's.

faults: eintr (storms of signals), emfile (no fd left), restart (the loop stopped and run again), clock (the process
stopped for a second), shutdown (interpreters that end with live registrations).

exit code: 0 if all is well, 1 if there was a violation, 2 if called wrongly.  Ctrl-C ends it with what was seen so far.

examples:
  eventbridge stress
  eventbridge stress --seconds 120 --loop select glib --faults eintr,emfile --jobs 2
  eventbridge stress --script stress-select-7.json
"""


def _injected(fault: str) -> Callable[[HostReport], int]:
    return lambda report: report.counts[fault]


# Heading, width, and what is under it.
COLUMNS: tuple[tuple[str, int, Callable[[HostReport], object]], ...] = (
    ("host", -8, lambda report: report.host),
    ("seconds", 8, lambda report: f"{report.seconds:.1f}"),
    ("rounds", 7, lambda report: report.rounds),
    ("operations", 11, lambda report: report.operations),
    ("callbacks", 11, lambda report: report.callbacks),
    ("forks", 6, lambda report: report.counts["forks"]),
    *((name, max(6, len(name) + 1), _injected(name)) for name in FAULTS),
    ("nested", 7, lambda report: report.counts["nested"] or ("cannot" if report.counts["cannot nest"] else 0)),
    ("lost", 5, lambda report: report.lost),
    ("wrong", 6, lambda report: report.wrong),
    ("fds", 4, lambda report: report.leaked_fds),
    ("MiB", 6, lambda report: f"{report.growth / MIB:+.1f}"),
    ("frees called / owed", 22, lambda report: f"{report.frees_called} / {report.frees_owed}"),
)


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "stress",
        help="random operations from several threads on each host loop; nothing may be lost or left",
        description="Random operations from several threads, and planted faults, on each host loop.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds",
        "--for",
        type=_seconds,
        default=60.0,
        metavar="N",
        help="for each host loop, more than 0 (default 60)",
    )
    parser.add_argument(
        "--handles",
        "--fds",
        type=_from(2, 1_000_000),
        default=1000,
        metavar="N",
        help="how many fds are open in a racing round (default 1000)",
    )
    parser.add_argument(
        "--threads",
        type=_from(1, 256),
        default=4,
        metavar="N",
        help="how many operate beside the loop's (default 4)",
    )
    parser.add_argument(
        "--loop",
        dest="loops",
        type=loops.loop_name,
        action="extend",
        nargs="+",
        metavar="NAME",
        help="host loops, each in a process of its own (default: all that work here)",
    )
    parser.add_argument(
        "--faults", type=_faults, default=FAULTS, metavar="LIST", help=f"all (default), none, or of {','.join(FAULTS)}"
    )
    parser.add_argument(
        "--seed", type=_from(0, 2**63 - 1), metavar="N", help="to draw the same again (default: random)"
    )
    parser.add_argument(
        "--jobs", type=_from(1, 64), default=1, metavar="N", help="how many host loops at a time (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="one object a line for each host loop, and no table")
    parser.add_argument("--script", type=Path, metavar="FILE", help="run a kept script again, and nothing else")
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


def _faults(text: str) -> tuple[str, ...]:
    if text in ("all", "none"):
        return FAULTS if text == "all" else ()
    for name in text.split(","):
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"no fault is called {name!r}; there are: all, none, {', '.join(FAULTS)}")
    return tuple(name for name in FAULTS if name in text.split(","))


def run(args: argparse.Namespace) -> int:
    if not make_room(args.handles):
        terminal.complain(
            f"--handles {args.handles}: so many do not fit the hard limit of open files: "
            "raise it (ulimit -Hn) or ask for fewer"
        )
        return 2
    plans = _plans(args) if args.script is None else _plan_of_script(args)
    if plans is None:
        return 2
    if not args.json and args.script is None:
        terminal.say(
            f"seed {plans[0].seed}: {args.handles} fds, {args.threads} threads, {args.seconds:g} s on each host loop, "
            f"faults: {', '.join(args.faults) or 'none'}"
        )
    with _interruptible() as interrupted, Progress(plans) as progress:
        reports = supervisor.run(plans, args.jobs, progress, interrupted)
    _tell(reports, as_json=args.json)
    return 0 if all(report.clean for report in reports) else 1


def _plans(args: argparse.Namespace) -> list[Plan]:
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    names = args.loops or _that_work()
    for name in loops.NOT_RACED.keys() & set(names):
        terminal.complain(f"{name}: no racing rounds: {loops.NOT_RACED[name]}")
    for name in loops.NO_STORMS.keys() & set(names) if "eintr" in args.faults else ():
        terminal.complain(f"{name}: no storms of signals in racing rounds: {loops.NO_STORMS[name]}")
    return [
        Plan(
            host,
            args.seconds,
            args.handles,
            args.threads,
            seed,
            list(args.faults),
            racing=host not in loops.NOT_RACED,
            storms=host not in loops.NO_STORMS,
        )
        for host in names
    ]


def _plan_of_script(args: argparse.Namespace) -> list[Plan] | None:
    """The script says on which host; None, told, where it is none."""
    try:
        script = load(args.script)
        loops.loop_name(script.host)
    except (OSError, ValueError, argparse.ArgumentTypeError) as error:
        terminal.complain(f"--script {args.script}: {terminal.one_line(error)}")
        return None
    hosts = args.loops or [script.host]
    return [Plan(host, 0.0, args.handles, args.threads, script.seed, [], script=str(args.script)) for host in hosts]


def _that_work() -> list[str]:
    """The host loops whose library is here; a line about each of the others."""
    found = []
    for name in loops.names():
        try:
            with loops.bridge_on(name):
                found.append(name)
        except HostUnavailable as error:
            terminal.complain(f"left out: {terminal.one_line(error)}")
    return found


def _tell(reports: list[HostReport], *, as_json: bool) -> None:
    if as_json:
        for report in reports:
            terminal.say(json.dumps(report.to_json()))
    else:
        terminal.say(_row([heading for heading, _, _ in COLUMNS]))
        for report in reports:
            terminal.say(_row([str(cell(report)) for _, _, cell in COLUMNS]))
    for report in reports:
        for complaint in report.complaints:
            terminal.complain(f"{report.host}, seed {report.seed}: {complaint}")
        for script in report.scripts:
            terminal.complain(f"{report.host}: shrunk: eventbridge stress --script {script}")


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

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen
    finally:
        for number, was in before.items():
            signal.signal(number, was)


class Progress:
    """One line on standard error that is written again and again; where that is no terminal, nothing."""

    def __init__(self, plans: list[Plan]) -> None:
        self._shown = sys.stderr.isatty()
        self._plans = plans
        self._seen: dict[str, HostReport] = {}

    def __enter__(self) -> Progress:
        return self

    def __call__(self, running: list[supervisor.Runner]) -> None:
        self._seen.update((runner.plan.host, runner.report) for runner in running)
        if self._shown:
            print(f"\r{self._line(running)[: _width()]}\x1b[K", end="", file=sys.stderr, flush=True)

    def _line(self, running: list[supervisor.Runner]) -> str:
        seen = self._seen.values()
        done = len(seen) - len(running)
        now = ", ".join(
            f"{runner.plan.host} {max(0.0, runner.plan.seconds - runner.report.seconds):.0f} s left"
            for runner in running
        )
        return (
            f"{now}; {done} of {len(self._plans)} done; "
            f"{terminal.plural(sum(report.violations for report in seen), 'violation')}, "
            f"{sum(report.rounds for report in seen)} rounds, {sum(report.operations for report in seen)} operations"
        )

    def __exit__(self, *exc: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except OSError:
        return 79
