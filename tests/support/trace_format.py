"""The Trace Event Format, as far as eventbridge writes it, held to by hand; and what a trace says, to be asked.

After "Trace Event Format" (the document of chrome://tracing): what each phase must have, that slices of one thread
nest, and that instants and counters are where their process is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# Phase: the keys it must have, and what they are.
NEEDED: dict[str, dict[str, tuple[type, ...]]] = {
    "X": {"name": (str,), "cat": (str,), "ts": (float, int), "dur": (float, int), "args": (dict,)},
    "i": {"name": (str,), "cat": (str,), "ts": (float, int), "s": (str,), "args": (dict,)},
    "C": {"name": (str,), "ts": (float, int), "args": (dict,)},
    "M": {"name": (str,), "args": (dict,)},
}
METADATA = {"process_name": "name", "thread_name": "name", "thread_sort_index": "sort_index"}


class Picture:
    """A trace that keeps the format."""

    def __init__(self, document: Any) -> None:
        check(document)
        self.events: list[Event] = document["traceEvents"]
        self.dropped: int = document["otherData"]["dropped"]
        self._names = {
            (event["pid"], event["tid"]): event["args"]["name"]
            for event in self.events
            if event["name"] == "thread_name"
        }

    def spans(self, category: str, name: str = "") -> list[Event]:
        return [e for e in self.events if e["ph"] == "X" and category in e["cat"].split(",") and name in e["name"]]

    def marks(self, category: str, name: str = "") -> list[Event]:
        return [e for e in self.events if e["ph"] == "i" and e["cat"] == category and name in e["name"]]

    def counts(self, name: str) -> list[Event]:
        return [e for e in self.events if e["ph"] == "C" and e["name"] == name]

    def track(self, event: Event) -> str:
        found: str = self._names[event["pid"], event["tid"]]
        return found

    def within(self, inner: Event, outer: Event) -> bool:
        """In time."""
        return bool(ns(outer["ts"]) <= ns(inner["ts"]) and end(inner) <= end(outer))


def read(path: Path | str) -> Picture:
    return Picture(json.loads(Path(path).read_text()))


def ns(us: float) -> int:
    return round(us * 1000)


def end(event: Event) -> int:
    return ns(event["ts"]) + ns(event["dur"])


def check(document: Any) -> None:
    """AssertionError where it is not in the format."""
    assert isinstance(document, dict)
    assert document["displayTimeUnit"] in ("ms", "ns")
    events = document["traceEvents"]
    for event in events:
        _check_event(event)
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times), "in the order of time"
    assert not times or times[0] >= 0
    assert len({(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}) == sum(
        e["name"] == "thread_name" for e in events
    ), "a thread has one name"
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert all((e["pid"], e["tid"]) in named for e in events if e["ph"] in "Xi"), "every track has a name"
    for track in named:
        _check_nesting([e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == track])


def _check_event(event: Event) -> None:
    assert event["ph"] in NEEDED, event
    assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
    for key, kinds in NEEDED[event["ph"]].items():
        assert isinstance(event[key], kinds), (key, event)
    if event["ph"] == "X":
        assert event["dur"] >= 0, event
    if event["ph"] == "i":
        assert event["s"] in ("g", "p", "t"), event
    if event["ph"] == "C":
        assert event["args"] and all(isinstance(value, int | float) for value in event["args"].values())
    if event["ph"] == "M":
        assert METADATA[event["name"]] in event["args"], event


def _check_nesting(slices: list[Event]) -> None:
    """Two slices of a thread are apart, or one is within the other; an outer one comes first."""
    open: list[int] = []
    for event in slices:
        while open and open[-1] <= ns(event["ts"]):
            open.pop()
        assert not open or end(event) <= open[-1], f"{event} ends after what it is within"
        open.append(end(event))
