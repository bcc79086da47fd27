"""Traces as a file of the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing open.

One object with ``traceEvents``: complete events ("X", with ``ts`` and ``dur`` in microseconds), instants ("i"),
counters ("C"), and the names of processes and threads ("M").  A bridge is a process there, a track a thread.  Nothing
in it is open at the end, so a trace that was cut short, or has lost its beginning, is as whole as any.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol

from .span_lanes import lanes
from .spans import BRIDGE, CALLS, HOST, JOBS, LOOP, Count, Drawn, Mark, Span, Track

Event = dict[str, Any]

ORDER = {BRIDGE: 0, LOOP: 1, HOST: 2, CALLS: 3, JOBS: 3}
NAMES = {
    BRIDGE: "connections",
    LOOP: "loop: passes and callbacks",
    HOST: "host: its time between passes",
}


class Recorded(Protocol):
    """A trace of one bridge."""

    name: str

    @property
    def dropped(self) -> int: ...

    def drawn(self) -> list[Drawn]: ...


def document(traces: Iterable[Recorded]) -> dict[str, Any]:
    """The whole file, as JSON has it."""
    traces = list(traces)
    pictures = [trace.drawn() for trace in traces]
    begin = min((_begins(thing) for picture in pictures for thing in picture), default=0)
    events: list[Event] = []
    for number, (trace, picture) in enumerate(zip(traces, pictures, strict=True), 1):
        events += _process(number, trace.name, picture, begin)
    head = [event for event in events if event["ph"] == "M"]
    rest = sorted((event for event in events if event["ph"] != "M"), key=lambda e: (e["ts"], -e.get("dur", 0)))
    other = {"made by": "eventbridge", "process": os.getpid(), "dropped": sum(trace.dropped for trace in traces)}
    return {"traceEvents": head + rest, "displayTimeUnit": "ms", "otherData": other}


def write(document: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """All of it or nothing: what was there before stays until the new file is whole.  OSError where it cannot be."""
    path = os.fspath(path)
    if os.path.lexists(path) and not os.path.isfile(path):  # a pipe, a terminal
        with open(path, "w", encoding="utf-8") as file:
            _dump(document, file)
        return
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".trace-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            _dump(document, file)
        umask = os.umask(0o077)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _dump(document: dict[str, Any], file: IO[str]) -> None:
    """An event a line."""
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in document["traceEvents"])
    rest = json.dumps({key: value for key, value in document.items() if key != "traceEvents"})
    file.write(f'{{"traceEvents":[\n{lines}\n],\n{rest[1:]}\n')


def _begins(thing: Drawn) -> int:
    return thing.began if isinstance(thing, Span) else thing.at


def _process(number: int, name: str, picture: Iterable[Drawn], begin: int) -> Iterator[Event]:
    tracks: dict[Track, list[Drawn]] = {}
    for thing in picture:
        tracks.setdefault(thing.track, []).append(thing)
    yield _named("process_name", number, 0, {"name": name})
    thread = 0
    for track in sorted(tracks, key=lambda track: (ORDER[track.kind], track.name)):
        things = tracks[track]
        rows = lanes(thing for thing in things if isinstance(thing, Span)) or [[]]
        for lane, row in enumerate(rows):
            thread += 1
            label = track.name or NAMES[track.kind]
            yield _named("thread_name", number, thread, {"name": label if not lane else f"{label} +{lane}"})
            yield _named("thread_sort_index", number, thread, {"sort_index": thread})
            for thing in [*row, *(thing for thing in things if not lane and not isinstance(thing, Span))]:
                yield {"pid": number, "tid": thread, **_event(thing, begin)}


def _named(what: str, number: int, thread: int, args: dict[str, Any]) -> Event:
    return {"ph": "M", "name": what, "pid": number, "tid": thread, "ts": 0, "args": args}


def _event(thing: Drawn, begin: int) -> Event:
    if isinstance(thing, Span):
        times = {"ts": _us(thing.began - begin), "dur": _us(thing.ended - thing.began)}
        return {"ph": "X", "name": thing.name, "cat": thing.category, **times, "args": thing.args}
    if isinstance(thing, Mark):
        scope = "t" if thing.track.kind == LOOP else "p"
        common = {"ts": _us(thing.at - begin), "args": thing.args}
        return {"ph": "i", "s": scope, "name": thing.name, "cat": thing.category, **common}
    assert isinstance(thing, Count)
    return {"ph": "C", "name": thing.name, "ts": _us(thing.at - begin), "args": thing.values}


def _us(ns: int) -> float:
    return ns / 1000
