"""``eventbridge bench``: measure dispatchers beside each other on this machine; see `eventbridge.benchmark`.

Only arguments, progress and output are here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from eventbridge.benchmark.contenders import CONTENDERS
from eventbridge.benchmark.interleave import Cell, interleave, launch_worker, plan
from eventbridge.benchmark.libvirtd import NoLibvirtd, private_libvirtd
from eventbridge.benchmark.plot import svg
from eventbridge.benchmark.results import Results
from eventbridge.benchmark.table import render
from eventbridge.benchmark.workloads import HOST_WORKLOADS, WORKLOADS

from . import terminal

EXAMPLES = """\
examples:
  eventbridge bench                                  everything but --hosts, about 10 minutes
  eventbridge bench --quick                          what has a target, about a minute
  eventbridge bench --hosts                          every host loop with and without a bridge, about 8 minutes
  eventbridge bench --only ready handles             the workloads whose names begin so
  eventbridge bench --only wake --contenders ours --rounds 9
  eventbridge bench --json --plot bench.svg > bench.json
  eventbridge bench --list                           what can be measured, and what with
"""

ROUNDS, BUDGET = 5, 0.2
QUICK_ROUNDS, QUICK_BUDGET = 3, 0.05
QUICK_CONTENDERS = ("ours@asyncio", "ours@uvloop", "libvirtaio@asyncio", "libvirt-c", "ours", "epoll")
QUIET_FOR = 2.0
"""Seconds without a word; then progress is told."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the dispatcher beside libvirt's own loop and other implementations",
        description="Measure the dispatcher on each host loop beside libvirt-python's libvirtaio, libvirt's own loop "
        "in C, and the thinnest mapping to the same host, each measurement in a process of its own, interleaved.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        action="extend",
        type=_known(WORKLOADS, "workload"),
        help="only these workloads; a name's beginning stands for all that begin so",
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        metavar="NAME",
        action="extend",
        type=_known(CONTENDERS, "contender"),
        help="only these; a name's beginning stands for all that begin so",
    )
    parser.add_argument(
        "--hosts",
        action="store_true",
        help="every host loop: a bridge on it beside watches of its own, without libvirt (short for --only host)",
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help=f"how often each is measured ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and contenders, shorter: rough")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the ratios")
    parser.add_argument("--list", action="store_true", help="list workloads and contenders, and end")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a target is missed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, also where a target is missed, but for ``--strict``; 1 where nothing could be measured or written."""
    if args.list:
        print(_listing())
        return 0
    try:
        if args.plot:
            args.plot.touch()  # better now than after ten minutes
    except OSError as error:
        return _fail(f"cannot write {args.plot}: {error.strerror}")
    results = Results()
    _measure(args, results)
    if not results.series:
        return _fail("nothing was measured: " + "; ".join(f"{what}: {why}" for what, why in results.left_out.items()))
    print(json.dumps(results.to_json(), indent=1) if args.json else render(results))
    if args.plot:
        args.plot.write_text(svg(results), encoding="utf-8")
        print(f"drawn: {args.plot}", file=sys.stderr)
    missed = [verdict for verdict in results.verdicts() if verdict.met is False]
    return 1 if args.strict and missed else 0


def _measure(args: argparse.Namespace, results: Results) -> None:
    workloads = [name for group in args.only or () for name in group] + list(HOST_WORKLOADS) * args.hosts
    if not workloads:
        workloads = [name for name in WORKLOADS if name not in HOST_WORKLOADS]
    contenders = [name for group in args.contenders for name in group] if args.contenders else list(CONTENDERS)
    if args.quick and not args.contenders and HOST_WORKLOADS.keys().isdisjoint(workloads):
        contenders = list(QUICK_CONTENDERS)
    cells = plan(dict.fromkeys(workloads), contenders, results)
    rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS)
    budget = QUICK_BUDGET if args.quick else BUDGET
    with contextlib.ExitStack() as daemons:
        uri = None
        if any(WORKLOADS[workload].needs_libvirtd for workload, _ in cells):
            try:
                uri = daemons.enter_context(private_libvirtd())
            except NoLibvirtd as reason:
                results.left_out.update((cell[0], str(reason)) for cell in cells if WORKLOADS[cell[0]].needs_libvirtd)
                cells = [cell for cell in cells if cell[0] not in results.left_out]
        progress = _Progress()
        interleave(cells, rounds, budget, partial(launch_worker, libvirtd=uri), results, progress)
        progress.end()


class _Progress:
    """On standard error: one line that changes on a terminal, else a line a round."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._terminal = sys.stderr.isatty()
        self._told = -1

    def __call__(self, done: int, of: int, round: int, cell: Cell) -> None:
        passed = monotonic() - self._started
        if passed < QUIET_FOR or (not self._terminal and self._told == round):
            return
        self._told = round
        left = passed / done * (of - done) if done else 0.0
        text = f"round {round + 1}, {done} of {of}: {cell[0]} {cell[1]}, about {left:.0f} s left"
        print(f"\r\x1b[K{text}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal and self._told >= 0:
            print("\r\x1b[K", end="", file=sys.stderr)


def _known(names: dict[str, Any], what: str) -> Any:
    """An argparse type: a name, or the beginning of some."""

    def find(text: str) -> list[str]:
        found = [text] if text in names else [name for name in names if name.startswith(text)]
        if not found:
            raise argparse.ArgumentTypeError(f"no {what} is called {text!r}; there are: {', '.join(names)}")
        return found

    return find


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more; found {text!r}")
    return int(text)


def _listing() -> str:
    lines = ["workloads:"]
    for name, workload in WORKLOADS.items():
        lines += [f"  {name:12} {metric.title}, {metric.unit}" for metric in workload.metrics if metric.shown]
    lines.append("contenders:")
    for name, contender in CONTENDERS.items():
        reason = contender.missing()
        lines.append(f"  {name:19} {contender.what}{'' if reason is None else f' (left out: {reason})'}")
    return "\n".join(lines)


def _fail(reason: str) -> int:
    terminal.complain(reason)
    return 1
