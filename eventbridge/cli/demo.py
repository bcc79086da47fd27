"""``eventbridge demo``: libvirt's test driver and the simulated hypervisor through one dispatcher, on one host loop
after the other.

All of it in one process, which libvirt allows but one event implementation: each host's bridge takes libvirt over from
the one before (rule D9).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.diagnosis.stats import Stats
from eventbridge.errors import HostUnavailable, HypervisorError
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.stress.loops import bridge_on

from . import libvirt_activity, terminal
from .connections import Sources
from .doctor import DEBIAN_LIBVIRT
from .watch import callback_failed, seconds

HOSTS = {
    "asyncio": "the standard library's event loop",
    "libuv": "libuv's loop, through pyuv or cffi",
    "select": "a plain loop over the standard library's selectors",
}
SIM = "sim:///default?domains=20&seed=1"
LABELS = {libvirt_activity.URI: "libvirt", SIM: "simulated"}
STIR_SECONDS = 0.25
OPEN_SECONDS = 20.0
CLOSE_SECONDS = 5.0
SHOWN = 10
"""So many lines of one source on one host; the rest are counted."""

EPILOG = """\
examples:
  eventbridge demo
  eventbridge demo --for 1

exit code: 0 if every host that is here showed events, 1 if one did not, 2 if called wrongly.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="domain events through one dispatcher, on asyncio, libuv and select in turn",
        description="Watch libvirt's test driver and the simulated hypervisor on asyncio, libuv and select in turn.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--for", dest="seconds", metavar="SECONDS", type=seconds, default=2.5, help="on each host (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    uris = _introduce()
    well = [_show_host(name, text, uris, args.seconds) for name, text in HOSTS.items()]
    return 0 if all(well) else 1


def _introduce() -> list[str]:
    """Say what will be seen; returns the URIs that can be."""
    terminal.say("eventbridge: one dispatcher for every hypervisor library, on whichever event loop runs.")
    terminal.say(
        f"  libvirt    {libvirt_activity.URI}, the test driver inside libvirt itself: "
        "real libvirt events of a mock domain."
    )
    terminal.say(f"  simulated  {SIM}: simulated by eventbridge, no hypervisor at all, but over real fds.")
    try:
        lookup.find(libvirt_activity.URI)
    except HypervisorError as error:
        terminal.say(
            f"libvirt is not here ({terminal.one_line(error.__cause__ or error)}), so the simulated one is alone."
        )
        terminal.say(f"  to have it: {DEBIAN_LIBVIRT}")
        return [SIM]
    return [libvirt_activity.URI, SIM]


def _show_host(name: str, text: str, uris: list[str], lasting: float) -> bool:
    """Show the events on one host; False where it is here but one of the sources showed none."""
    terminal.say(f"\n{name}: {text}")
    try:
        with bridge_on(name, on_error=callback_failed) as bridge:
            show = Show(bridge, uris)
            show.run(lasting)
    except HostUnavailable as error:
        terminal.say(f"  not here: {terminal.one_line(error)}")
        return True
    return show.summarize()


class Show:
    """One host's part: a `connections.Listener` that prints the first few events and counts the rest."""

    def __init__(self, bridge: Bridge, uris: list[str]) -> None:
        self._bridge = bridge
        self._sources = Sources(bridge, self)
        self._lines = terminal.EventLines(
            {uri: LABELS[uri] for uri in uris}, colour=terminal.coloured(sys.stdout), always_source=True
        )
        self._counts: dict[str, collections.Counter[Kind]] = {uri: collections.Counter() for uri in uris}
        self._broken: OSError | None = None
        self._stats: Stats

    def run(self, lasting: float) -> None:
        """Open, let things happen for so many seconds, close."""
        self._sources.start(self._counts)
        self._bridge.run(until=lambda: not self._sources.opening, timeout=OPEN_SECONDS)
        with (
            libvirt_activity.stirred(STIR_SECONDS)
            if libvirt_activity.URI in self._sources.open
            else contextlib.nullcontext()
        ):
            self._bridge.run(until=lambda: self._broken is not None or not self._sources.open, timeout=lasting)
        self._stats = self._bridge.stats()
        self._sources.close(CLOSE_SECONDS)
        if self._broken is not None:
            raise self._broken

    def summarize(self) -> bool:
        """Say what came; True if every source told something."""
        for uri, counts in self._counts.items():
            terminal.say(
                f"  {LABELS[uri]:9}  {terminal.plural(counts.total(), 'event')}: {terminal.tally(counts) or '-'}"
            )
        stats = self._stats
        terminal.say(
            f"  the bridge: {stats.handles} handles, {stats.timeouts} timeouts, {stats.passes} passes, "
            f"{stats.callbacks} callbacks, {stats.errors} errors, at most {stats.lag * 1e3:.2f} ms late"
        )
        return all(self._counts.values())

    # -- sources.Listener

    def opened(self, uri: str) -> None: ...

    def failed(self, uri: str, error: Exception) -> None:
        terminal.complain(terminal.one_line(error), error)

    def slow(self, uri: str) -> None:
        terminal.complain(f"{uri}: still opening")

    def event(self, event: DomainEvent) -> None:
        counts = self._counts[event.source]
        counts[event.kind] += 1
        if counts.total() <= SHOWN and self._broken is None:
            try:
                terminal.say(f"  {self._lines(event)}")
                if counts.total() == SHOWN:
                    terminal.say(f"  ... and so on from {LABELS[event.source]}, counted below")
            except OSError as error:  # raised here it would be contained as a callback's
                self._broken = error
