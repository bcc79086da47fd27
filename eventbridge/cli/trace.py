"""``eventbridge trace``: record what a dispatcher does, for Perfetto; or ask a daemon that runs how it fares.

What is recorded is that of some hypervisors being watched, as `watch` does; of a program of somebody's, run in this
very process; or of a daemon, by its diagnosis socket.  The file is written at the end, whole, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from eventbridge.bridge import ENVIRONMENT
from eventbridge.connection.connection import RECONNECT
from eventbridge.diagnosis import trace_format
from eventbridge.diagnosis.client import Asking, is_socket
from eventbridge.diagnosis.process_wide import traced
from eventbridge.errors import EventBridgeError, HypervisorUnavailable
from eventbridge.hypervisor import lookup
from eventbridge.stress.loops import bridge_on, loop_name

from . import terminal
from .signals import on_signals
from .stats_format import stacks_text, stats_text
from .watch import LONGEST, Watch, callback_failed, seconds

INTERRUPTED = 130
DEFAULT_SECONDS = 5.0

EPILOG = f"""\
examples:
  eventbridge trace 'sim:///default?domains=20' --for 5 -o trace.json    some hypervisors, watched
  eventbridge trace -o trace.json -- daemon.py --its options             a program, every bridge in it
  eventbridge trace /run/daemon.sock --for 5 -o trace.json               a daemon that runs, and serves diagnosis:
  eventbridge trace /run/daemon.sock --stats                               {ENVIRONMENT}=/run/daemon.sock, or
  eventbridge trace /run/daemon.sock --stacks                              bridge.serve_diagnosis("/run/daemon.sock")

Open the file at https://ui.perfetto.dev, or in chrome://tracing.  It is whole also after Ctrl-C.
exit code: 0 if it was written, or asked; 1 if not; the program's own where one is run; 2 if called wrongly.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "trace",
        help="record what a dispatcher does, or ask a running daemon how it fares",
        description="Record passes, callbacks, waits, calls and jobs as a file that Perfetto opens.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", nargs="+", metavar="TARGET", help="URIs; a daemon's socket; or, after --, a program and its arguments"
    )
    parser.add_argument("-o", "--output", metavar="FILE", default="trace.json", help="where to (%(default)s)")
    parser.add_argument("--for", dest="seconds", metavar="SECONDS", type=seconds, help="end after so long")
    parser.add_argument(
        "--loop", metavar="NAME", default="asyncio", type=loop_name, help="the host loop to watch on (%(default)s)"
    )
    parser.add_argument("--limit", metavar="RECORDS", default=100_000, type=_limit, help="keep the last (%(default)s)")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--stats", action="store_true", help="show a daemon's figures, and record nothing")
    asked.add_argument("--stacks", action="store_true", help="show what each thread of a daemon is at")
    parser.set_defaults(run=run, fail=parser.error)


def _limit(text: str) -> int:
    """For argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number of records, 1 or more, is needed, not {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    first = args.target[0]
    if is_socket(first):
        if len(args.target) > 1:
            args.fail("one daemon at a time can be asked")
        return _show(args, first) if args.stats or args.stacks else _ask_daemon(args, first)
    if args.stats or args.stacks:
        args.fail(f"{first!r} is no socket of a daemon's: {ENVIRONMENT}=PATH has a daemon make one")
    if os.path.exists(first):
        return _run_program(args)
    for uri in args.target:
        _check_uri(args, uri)
    return _watch(args)


def _check_uri(args: argparse.Namespace, text: str) -> None:
    try:
        known = lookup.scheme(text) in lookup.schemes()
    except HypervisorUnavailable:
        args.fail(f"{text!r} is neither a URI, nor a socket, nor a program that is there")
    if not known:
        args.fail(f"{text!r}: no driver knows this scheme; there are: {', '.join(sorted(lookup.schemes()))}")


# -- some hypervisors


def _watch(args: argparse.Namespace) -> int:
    with _recorded(args), bridge_on(args.loop, on_error=callback_failed) as bridge:
        watch = Watch(bridge, list(dict.fromkeys(args.target)), False, RECONNECT)
        with on_signals(bridge, watch.end):
            watch.run(args.seconds)
    return watch.result()


@contextlib.contextmanager
def _recorded(args: argparse.Namespace) -> Iterator[None]:
    """Every bridge of this process, into a file at the end; not in a process that it has forked."""
    process, began = os.getpid(), time.monotonic()
    traces: list[Any] = []
    try:
        with traced(args.limit) as traces:
            yield
    finally:
        if os.getpid() == process:
            _write(trace_format.document(traces), args.output, time.monotonic() - began)


def _write(document: dict[str, Any], path: str, lasted: float) -> None:
    trace_format.write(document, path)
    events = sum(event["ph"] != "M" for event in document["traceEvents"])
    dropped = document["otherData"]["dropped"]
    lost = f", the first {dropped} not kept (--limit)" if dropped else ""
    terminal.complain(
        f"{path}: {terminal.plural(events, 'event')} of {lasted:.1f} s{lost}; see https://ui.perfetto.dev"
    )


# -- a program


def _run_program(args: argparse.Namespace) -> int:
    with _recorded(args), _as_main(args.target), _ended_by_sigterm():
        try:
            runpy.run_path(args.target[0], run_name="__main__")
        except SystemExit as ended:
            return _exit_code(ended)
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            traceback.print_exception(error)  # the program's own: as the interpreter shows it
            return 1
    return 0


def _exit_code(ended: SystemExit) -> int:
    """As the interpreter takes it."""
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print(ended.code, file=sys.stderr)
    return 1


@contextlib.contextmanager
def _as_main(arguments: list[str]) -> Iterator[None]:
    """The program finds its arguments, and its own modules, as if it had been run by itself."""
    argv, path = sys.argv, sys.path[:]
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A SIGTERM, unless the program minds it itself, ends it as a SystemExit does."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


# -- a daemon


def _ask_daemon(args: argparse.Namespace, path: str) -> int:
    """Ctrl-C ends the recording early; what there is is written."""
    wanted = args.seconds or DEFAULT_SECONDS
    question = {"want": "trace", "seconds": wanted, "limit": args.limit}
    began = time.monotonic()
    with Asking(path, question, within=min(wanted, LONGEST) + 60.0) as asking:
        try:
            terminal.complain(f"{path}: recording for {wanted:g} s; Ctrl-C ends it")
            document = asking.answer()
        except KeyboardInterrupt:
            asking.enough()
            document = asking.answer()
    if not document["traceEvents"]:
        raise EventBridgeError(f"{path}: there is no bridge in that process now")
    _write(document, args.output, time.monotonic() - began)
    return 0


def _show(args: argparse.Namespace, path: str) -> int:
    want, text = SHOWN["stats" if args.stats else "stacks"]
    with Asking(path, {"want": want}) as asking:
        terminal.say(text(asking.answer()))
    return 0


SHOWN: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "stats": ("stats", stats_text),
    "stacks": ("stacks", stacks_text),
}
