"""What a command shows a person: event lines on standard output, one-line complaints on standard error.

Everything goes out at once, line by line.  Colour is for terminals only, and not where NO_COLOR is set
(https://no-color.org).  What comes from a hypervisor (a domain's name, say) cannot move the cursor: whatever is not
printable is shown escaped.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import TextIO

from eventbridge.hypervisor.events import DomainEvent, Kind

DEBUG = bool(os.environ.get("EVENTBRIDGE_DEBUG"))

# SGR numbers (ECMA-48): green begins, yellow changes, red ends.
COLOURS: dict[Kind, str] = {
    **dict.fromkeys((Kind.STARTED, Kind.RESUMED, Kind.WOKEN, Kind.CONNECTION_RESTORED), "32"),
    **dict.fromkeys((Kind.SUSPENDED, Kind.PM_SUSPENDED, Kind.SHUTDOWN, Kind.REBOOTED, Kind.MIGRATED), "33"),
    **dict.fromkeys((Kind.STOPPED,), "31"),
    **dict.fromkeys((Kind.CRASHED, Kind.CONNECTION_LOST), "1;31"),
    **dict.fromkeys((Kind.OTHER,), "2"),
}
KIND_WIDTH = 13  # all but the two of the connection fit
DOMAIN_WIDTH = 12  # to begin with


def complain(message: str, error: BaseException | None = None) -> None:
    """One line on standard error, and in debug mode the error's traceback."""
    with contextlib.suppress(OSError):  # nobody there to hear it
        print(f"eventbridge: {message}", file=sys.stderr, flush=True)
        if DEBUG and error is not None:
            traceback.print_exception(error, file=sys.stderr)


def one_line(error: BaseException) -> str:
    """What went wrong, in one printable line."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    else:
        text = str(error)
    return printable(" ".join(text.split())) or type(error).__name__


def printable(text: str) -> str:
    """The same text with what is not printable escaped as Python would."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def prepare() -> None:
    """Have standard output take any text: what its encoding lacks is shown escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str = "") -> None:
    """One line on standard output, at once; OSError where it cannot be written."""
    with _standard_output():
        print(line, flush=True)


def flush() -> None:
    """Write what standard output still holds; OSError where that fails."""
    if sys.stdout is not None:
        with _standard_output():
            sys.stdout.flush()


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


def settle() -> None:
    """Drop what a standard stream still holds if it cannot be written.

    The interpreter flushes both streams once more when it ends.  What has failed fails again there: it would print
    "Exception ignored" and end with exit code 120 (``flush_std_files`` in CPython's pylifecycle.c).
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            _abandon(stream)


def _abandon(stream: TextIO) -> None:
    """Have every later flush succeed, as Python's documentation of SIGPIPE advises."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def coloured(stream: TextIO | None) -> bool:
    """May ``stream`` be given colours?"""
    return stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")


class EventLines:
    """Events as aligned lines: time, source where there are several, domain, kind (with a * where it was inferred),
    reason.
    """

    def __init__(self, sources: dict[str, str], *, colour: bool, always_source: bool = False) -> None:
        """``sources``: what to call each URI; where there is but one, it is left out unless ``always_source``."""
        self._labels = {uri: printable(label) for uri, label in sources.items()}
        self._source_width = max(map(len, self._labels.values())) if always_source or len(sources) > 1 else 0
        self._domain_width = DOMAIN_WIDTH
        self._colour = colour

    def __call__(self, event: DomainEvent) -> str:
        columns = [_clock(event.at)]
        if self._source_width:
            columns.append(self._labels.get(event.source, printable(event.source)).ljust(self._source_width))
        domain = _who(event)
        self._domain_width = max(self._domain_width, min(len(domain), 3 * DOMAIN_WIDTH))
        columns += [domain.ljust(self._domain_width), self._kind(event), printable(event.reason or "")]
        return "  ".join(columns).rstrip()

    def _kind(self, event: DomainEvent) -> str:
        text = f"{event.kind}{' *' if event.synthetic else ''}".ljust(KIND_WIDTH)
        colour = COLOURS.get(event.kind) if self._colour else None
        return text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"


def _clock(at: float) -> str:
    """Local time of day to the millisecond."""
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03}"


def _who(event: DomainEvent) -> str:
    domain = event.domain
    if domain is None:
        return "-"
    return printable(domain.name or domain.uuid or f"id {domain.id}")


def tally(counts: Mapping[Kind, int]) -> str:
    """How many of each kind, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{kind} {count}" for kind, count in ordered)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
