"""``eventbridge watch URI...``: a line for everything that happens on some hypervisors, as it happens.

Everything but the opening and closing of URIs (see `connections`) happens on the main thread, which runs the loop.
"""

from __future__ import annotations

import argparse
import collections
import errno
import math
import os
import stat
import sys
import time
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.connection.backoff import Backoff
from eventbridge.connection.connection import RECONNECT
from eventbridge.core.masks import Events
from eventbridge.errors import HypervisorUnavailable
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.stress.loops import bridge_on, loop_name

from . import terminal
from .connections import SLOW_SECONDS, Sources
from .signals import on_signals

LONGEST = 2_000_000  # seconds, 23 days: what fits a timeout
CLOSE_SECONDS = 5.0

EPILOG = """\
examples:
  eventbridge watch test:///default                      libvirt's own test driver
  eventbridge watch 'sim:///default?domains=20'          the simulated hypervisor; needs nothing installed
  eventbridge watch qemu:///system qemu+ssh://b/system   two at once, through one dispatcher
  eventbridge watch --json qemu:///system | jq .kind     one JSON object a line

A hypervisor that is lost is tried again until it is back; what has changed meanwhile is told then, marked with a *.
It ends with Ctrl-C or SIGTERM, after --for SECONDS, when nobody reads its output any more, or when no URI is left.
exit code: 0 if every URI was watched to the end, 1 if one could not be opened or is lost, 2 if called wrongly.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "watch",
        help="show domain events as they happen",
        description="Show what happens to the domains of one or several hypervisors, a line for each event.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("uris", metavar="URI", nargs="+", type=known_uri, help="for example qemu:///system")
    parser.add_argument(
        "--loop", metavar="NAME", default="asyncio", type=loop_name, help="the host loop to run on (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--no-reconnect", dest="reconnect", action="store_false", help="give a hypervisor up when it is lost"
    )
    parser.add_argument("--for", dest="seconds", metavar="SECONDS", type=seconds, help="end after so long")
    parser.set_defaults(run=run)


def known_uri(text: str) -> str:
    """For argparse: a URI whose scheme is known, whether or not its library is installed."""
    try:
        known = lookup.scheme(text) in lookup.schemes()
    except HypervisorUnavailable as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not known:
        raise argparse.ArgumentTypeError(
            f"{text!r}: no driver knows this scheme; there are: {', '.join(sorted(lookup.schemes()))}"
        )
    return text


def seconds(text: str) -> float:
    """For argparse: a time of more than nothing."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 and up to {LONGEST} is needed, not {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    uris = list(dict.fromkeys(args.uris))
    with bridge_on(args.loop, on_error=callback_failed) as bridge:
        watch = Watch(bridge, uris, args.json, RECONNECT if args.reconnect else None)
        with on_signals(bridge, watch.end):
            watch.run(args.seconds)
    return watch.result()


def callback_failed(error: BaseException, context: str) -> None:
    """A bridge's error handler: a line, where the host loop's own would show a traceback."""
    terminal.complain(f"exception {context}: {type(error).__name__}: {terminal.one_line(error)}", error)


class Watch:
    """One run of it: a `connections.Listener` that prints."""

    def __init__(self, bridge: Bridge, uris: list[str], json: bool, reconnect: Backoff | None) -> None:
        self._bridge = bridge
        self._uris = uris
        self._reconnects = reconnect is not None
        self._sources = Sources(bridge, self, reconnect)
        self._lines = terminal.EventLines({uri: uri for uri in uris}, colour=terminal.coloured(sys.stdout))
        self._format = DomainEvent.to_json if json else self._lines
        self._counts: collections.Counter[Kind] = collections.Counter()
        self._lost: set[str] = set()  # failed, broken off, or never opened
        self._heard: set[str] = set()  # these are open, though perhaps `opened` is still to come
        self._ended = False
        self._broken: OSError | None = None  # standard output is
        self._began = time.monotonic()

    def run(self, timeout: float | None) -> None:
        """Until `end`, for ``timeout`` seconds, or while there is anything to watch."""
        stdout = self._mind_stdout()
        self._sources.start(self._uris)
        self._bridge.run(until=self._is_over, timeout=timeout)
        self._ended = True
        self._lasted = time.monotonic() - self._began
        for uri in self._sources.opening.keys() - self._heard:
            self._give_up(uri, "was not open yet")
        self._sources.close(CLOSE_SECONDS)
        for uri in self._sources.closing:
            terminal.complain(f"{uri}: did not close within {CLOSE_SECONDS:g} s: left as it is")
        if stdout is not None:
            self._bridge.remove_handle(stdout)

    def end(self) -> None:
        """The loop's thread."""
        self._ended = True

    def result(self) -> int:
        """Say how it went; the exit code."""
        if isinstance(self._broken, BrokenPipeError):
            raise self._broken  # main() knows what to do
        kinds = f": {terminal.tally(self._counts)}" if self._counts else ""
        terminal.complain(f"{terminal.plural(self._counts.total(), 'event')} in {self._lasted:.1f} s{kinds}")
        if self._broken is not None:
            raise self._broken
        return 1 if self._lost else 0

    def _is_over(self) -> bool:
        return self._ended or not (self._sources.opening or self._sources.open)

    # -- sources.Listener

    def opened(self, uri: str) -> None:
        if uri in self._lost:  # gone again before it was told here
            self._sources.drop(uri)
            return
        terminal.complain(f"watching {uri} on {self._bridge.host.name}")

    def failed(self, uri: str, error: Exception) -> None:
        text = terminal.one_line(error)
        self._give_up(uri, text.removeprefix(f"{uri}: "), error)

    def slow(self, uri: str) -> None:
        terminal.complain(f"{uri}: still opening after {SLOW_SECONDS} s")

    def event(self, event: DomainEvent) -> None:
        if self._ended:
            return
        self._heard.add(event.source)
        self._counts[event.kind] += 1
        try:
            terminal.say(self._format(event))
        except OSError as error:
            self._stdout_broke(error)
        if event.kind is Kind.CONNECTION_LOST:
            self._has_gone(event)
        elif event.kind is Kind.CONNECTION_RESTORED:
            self._lost.discard(event.source)

    def _has_gone(self, event: DomainEvent) -> None:
        then = "tried again until it is back" if self._reconnects else "not watched any more"
        self._give_up(event.source, f"connection lost ({event.reason or 'no reason given'}): {then}")
        if not self._reconnects and event.source in self._sources.open:
            self._sources.drop(event.source)

    def _give_up(self, uri: str, why: str, error: Exception | None = None) -> None:
        self._lost.add(uri)
        terminal.complain(f"{uri}: {why}", error)

    # -- standard output

    def _mind_stdout(self) -> int | None:
        """Notice at once that a reader such as ``head`` has gone, not only with the next event: a pipe without a
        reader reports ERROR, asked for or not.
        """
        try:
            fd = sys.stdout.fileno()
            mode = os.fstat(fd).st_mode
        except (AttributeError, OSError):  # there is none, or it is not a file
            return None
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            return None
        return self._bridge.add_handle(fd, Events.PRIORITY, self._reader_gone)

    def _reader_gone(self, id: int, fd: int, events: int, opaque: object) -> None:
        if events & (Events.ERROR | Events.HANGUP):
            self._bridge.update_handle(id, 0)
            self._stdout_broke(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def _stdout_broke(self, error: OSError) -> None:
        self._broken = self._broken or error
        self._ended = True
