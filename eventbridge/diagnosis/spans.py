"""What a trace keeps, as what is to be drawn: spans of time, moments and counts, each on a track.

A record is a tuple of the function below that draws it and what that is given, so that keeping one costs little more
than the tuple; it is drawn when the trace is written.  Times are nanoseconds of `time.monotonic_ns`.  Plain data: any
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from eventbridge.core.masks import Events
from eventbridge.core.origin import Origin

LOOP, HOST, BRIDGE, CALLS, JOBS = "loop", "host", "bridge", "calls", "jobs"


class Track(NamedTuple):
    """A row in the picture: its kind, one of the above, and what it is of."""

    kind: str
    of: Any = None
    name: str = ""


class Span(NamedTuple):
    track: Track
    began: int
    ended: int
    name: str
    category: str
    args: dict[str, Any]


class Mark(NamedTuple):
    """A moment."""

    track: Track
    at: int
    name: str
    category: str
    args: dict[str, Any]


class Count(NamedTuple):
    """What a curve is drawn of."""

    track: Track
    at: int
    name: str
    values: dict[str, float]


Drawn: TypeAlias = Span | Mark | Count
Record: TypeAlias = tuple[Any, ...]
"""``(draw, *given)``: ``draw(*given)`` yields what is drawn."""
Draw: TypeAlias = Callable[..., Iterator[Drawn]]


def drawn(records: Iterable[Record]) -> Iterator[Drawn]:
    for record in records:
        yield from record[0](*record[1:])


# -- what the loop does


def a_pass(thread: int, began: int, ended: int, depth: int, callbacks: int) -> Iterator[Drawn]:
    args = {"callbacks": callbacks} if not depth else {"callbacks": callbacks, "nested": depth}
    yield Span(Track(LOOP, thread), began, ended, "pass", "pass", args)


def a_callback(thread: int, began: int, ended: int, whose: Origin, events: int, deadline: int) -> Iterator[Drawn]:
    args: dict[str, Any] = {whose.kind: whose.id, "callback": whose.callback}
    if whose.fd is not None:
        args |= {"fd": whose.fd, "events": _names(events)}
    elif deadline:
        args["late_us"] = max(0, began - deadline) / 1000
    name = f"{whose.owner}: {'.'.join(whose.callback.split('.')[-2:])}"
    yield Span(Track(LOOP, thread), began, ended, name, f"callback,{whose.owner}", args)


def a_free(thread: int, began: int, ended: int, count: int) -> Iterator[Drawn]:
    yield Span(Track(LOOP, thread), began, ended, "frees", "free", {"frees": count})


def an_error(thread: int, at: int, text: str, whose: Origin) -> Iterator[Drawn]:
    yield Mark(Track(LOOP, thread), at, f"exception: {text}", "error", {"in": str(whose)})


def a_beat(at: int, late: int) -> Iterator[Drawn]:
    yield Count(Track(BRIDGE), at, "host lag (ms)", {"late": late / 1e6})


def waits_of(records: Iterable[Record]) -> Iterator[Drawn]:
    """The host's own time: between two outermost passes of a thread."""
    last: dict[int, int] = {}
    for record in sorted((given[1:] for given in records if given[0] is a_pass), key=lambda given: given[1]):
        thread, began, ended, depth, _ = record
        if depth:
            continue
        if thread in last and last[thread] < began:
            yield Span(Track(HOST, thread), last[thread], began, "host", "host", {})
        last[thread] = ended


def _names(events: int) -> str:
    return "|".join(event.name for event in Events if events & event and event.name)


# -- what connections, calls and jobs do


def a_change(at: int, uri: str, state: str, why: str) -> Iterator[Drawn]:
    """A connection comes into another state."""
    yield Mark(Track(BRIDGE), at, f"{state}: {uri}", "connection", {"uri": uri, "state": state, "why": why})


@dataclass(slots=True, eq=False)
class Asked:
    """A call on its way; 0: not yet."""

    track: Track
    what: str
    operation: str
    asked: int
    begun: int = 0
    answered: int = 0
    settled: int = 0
    refusal: str = ""
    error: str = ""

    @property
    def is_over(self) -> bool:
        return bool(self.settled and (self.answered or not self.begun))


def a_call(call: Asked, now: int) -> Iterator[Drawn]:
    """Its own time, and within that the hypervisor's; what it waited for is the job's to show."""
    args: dict[str, Any] = {"operation": call.operation}
    if call.error:
        args["error"] = call.error
    if not call.settled:
        args["unfinished"] = True
    yield Span(call.track, call.asked, call.settled or now, f"call: {call.what}", "call", args)
    if call.begun:
        args = {"error": call.refusal} if call.refusal else {}
        if not call.answered:
            args["unfinished"] = True
        yield Span(call.track, call.begun, call.answered or now, f"hypervisor: {call.operation}", "hypervisor", args)


@dataclass(slots=True, eq=False)
class Held:
    """A job, asked for or held; 0: not yet."""

    track: Track
    job: str
    owner: str
    waits: int = 0
    granted: int = 0
    over: int = 0
    state: str = ""
    marks: list[tuple[int, str]] = field(default_factory=list)


def a_job(held: Held, now: int) -> Iterator[Drawn]:
    args: dict[str, Any] = {"job": held.job, "owner": held.owner}
    over = held.over or now
    if not held.over:
        args["unfinished"] = True
    if held.waits:
        how = {} if held.granted else {"end": held.state}
        yield Span(held.track, held.waits, held.granted or over, f"waits for {held.job}", "wait", args | how)
    if held.granted:
        yield Span(held.track, held.granted, over, f"job: {held.job}", "job", args)
    for at, name in held.marks:
        yield Mark(held.track, at, name, "job", args)
