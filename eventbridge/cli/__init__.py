"""The command ``eventbridge``: one file a subcommand, imported when it is asked for.

A subcommand's module has ``register(subparsers)``, which adds its parser, and ``run(args) -> int``.  Exit codes: 0 it
went well, 1 something failed, 2 it was called wrongly, 130 it was interrupted (`watch` is meant to be: see there).
An error is one line on standard error; with EVENTBRIDGE_DEBUG set its traceback follows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from eventbridge.core.version import VERSION
from eventbridge.errors import EventBridgeError

from . import terminal

# The modules, and what --help says of them without importing any.
COMMANDS = {
    "watch": "show domain events as they happen",
    "doctor": "what works here, and what to install for the rest",
    "demo": "domain events through one dispatcher, on asyncio, libuv and select in turn",
    "bench": "measure the dispatcher beside libvirt's own loop and other implementations",
    "trace": "record what a dispatcher does, or ask a running daemon how it fares",
    "stress": "random operations from several threads on each host loop; nothing may be lost or left",
}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv[1:]`` by default, and return the exit code.

    Raises:
        SystemExit: argparse's, for ``--help`` (0) and for what it cannot read (2).
    """
    try:
        try:
            code = _run(list(sys.argv[1:] if argv is None else argv))
        except SystemExit:  # argparse has printed the help, which may still be in the stream
            terminal.flush()
            raise
        terminal.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except (EventBridgeError, OSError) as error:
        terminal.complain(terminal.one_line(error), error)
    except Exception as error:
        where = "" if terminal.DEBUG else " (EVENTBRIDGE_DEBUG=1 shows where)"
        terminal.complain(f"a mistake of its own: {terminal.one_line(error)}{where}", error)
    finally:
        terminal.settle()
    return 1


def _run(arguments: list[str]) -> int:
    parser = _parser(next((word for word in arguments if not word.startswith("-")), None))
    if not arguments:
        with contextlib.suppress(OSError):  # nobody there to read it
            parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(arguments)
    terminal.prepare()
    return int(args.run(args))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have their exit code also if standard error cannot be written.

    The argparse of older Pythons (3.11.2 for one, Debian 12's) lets the stream's OSError through.
    """

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, and with the usage and the message if they can be written."""
        try:
            super().error(message)
        except OSError:
            raise SystemExit(2) from None


def _parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of one command; where none of them is asked for, one that knows their names."""
    parser = _Parser(
        prog="eventbridge",
        description="One event dispatcher for every hypervisor control library, on whichever event loop runs here.",
        epilog="eventbridge COMMAND --help tells about a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"eventbridge {VERSION}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    if command in COMMANDS:
        importlib.import_module(f"{__name__}.{command}").register(subparsers)
    else:
        for name, summary in COMMANDS.items():
            subparsers.add_parser(name, help=summary)
    return parser
