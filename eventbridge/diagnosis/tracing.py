"""A trace of one bridge: everything that it does, kept in memory that is bounded, and written when it is asked for.

What the loop does is recorded on its thread; what calls, jobs and connections do on whichever is at it.  Each is kept
by itself, so that a busy loop does not push out a migration's beginning.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import weakref
from collections.abc import Hashable
from time import monotonic_ns
from typing import Any

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.observer import ObservedCall, ObservedLink, Observer
from eventbridge.core.origin import Origin
from eventbridge.errors import EventBridgeError
from eventbridge.jobs import Jobs, Ticket

from . import spans, trace_format
from .job_following import follow, unfollow
from .pulse import Pulse
from .spans import CALLS, JOBS, Asked, Drawn, Held, Record, Track

get_ident = threading.get_ident
PULSE_SECONDS = 0.1
"""How often a trace measures the host's lag."""


class Ring:
    """The last ``limit`` records, and how many there were."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a trace must keep 1 record or more; found {limit}")
        self._kept: collections.deque[Record] = collections.deque(maxlen=limit)
        self._seen = 0
        self._lock = threading.Lock()

    def add(self, record: Record) -> None:
        """The loop's thread."""
        self._seen += 1
        self._kept.append(record)

    def add_anywhere(self, record: Record) -> None:
        """Any thread."""
        with self._lock:
            self._seen += 1
            self._kept.append(record)

    @property
    def dropped(self) -> int:
        return max(0, self._seen - len(self._kept))

    def records(self) -> list[Record]:
        while True:
            with contextlib.suppress(RuntimeError):  # it grew meanwhile
                return list(self._kept)


class Trace(Observer):
    """See `Bridge.trace`, which makes one and starts it.  Any thread."""

    def __init__(self, bridge: BridgeCore, limit: int, *, pulse_seconds: float | None = PULSE_SECONDS) -> None:
        self._bridge = weakref.ref(bridge)
        self._loop = Ring(limit)
        self._rest = Ring(limit)
        self._calls: dict[Hashable, Asked] = {}
        self._jobs: dict[Ticket, Held] = {}
        self._tables: weakref.WeakKeyDictionary[Jobs, tuple[str, weakref.ref[Any]]] = weakref.WeakKeyDictionary()
        self._pulse_seconds = pulse_seconds
        self._pulse: Pulse | None = None
        self._stopped = 0
        self.name = f"bridge on {bridge.host.name} (process {os.getpid()})"
        """What it is called in the picture."""

    def start(self) -> Trace:
        """Raises `BridgeClosed` or `BridgeForked`."""
        bridge = self._live()
        if self._pulse_seconds is not None:
            self._pulse = Pulse(bridge, self._pulse_seconds, told=self._beat)
        bridge.observe(self)
        return self

    def stop(self) -> None:
        """Record no more; what was is kept.  Idempotent."""
        if self._stopped:
            return
        self._stopped = monotonic_ns()
        bridge = self._bridge()
        if bridge is not None:
            bridge.unobserve(self)
        if self._pulse is not None:
            self._pulse.close()
        for jobs in list(self._tables):
            unfollow(jobs, self)

    def follow(self, jobs: Jobs, name: str) -> None:
        """Record the jobs of a table of one's own, too, as ``name``'s; those of connections are recorded anyway."""
        self._tables[jobs] = name, weakref.ref(jobs)
        follow(jobs, self)

    @property
    def dropped(self) -> int:
        """How many records have been pushed out by later ones."""
        return self._loop.dropped + self._rest.dropped

    def to_json(self) -> dict[str, Any]:
        """The file's content, up to now."""
        return trace_format.document([self])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Make it a file, whole or not at all.  OSError where it cannot be written."""
        trace_format.write(self.to_json(), path)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def drawn(self) -> list[Drawn]:
        """Everything that is to be seen of it."""
        now = self._stopped or monotonic_ns()
        loop = self._loop.records()
        rest = self._rest.records()
        rest += [(spans.a_call, call, now) for call in list(self._calls.values())]
        rest += [(spans.a_job, held, now) for held in list(self._jobs.values())]
        return [*spans.drawn(loop), *spans.waits_of(loop), *spans.drawn(rest)]

    def _live(self) -> BridgeCore:
        bridge = self._bridge()
        if bridge is None:
            raise EventBridgeError("the bridge that was to be traced is gone")
        bridge.check()
        return bridge

    # -- the loop's thread

    def passed(self, began: int, ended: int, depth: int, callbacks: int) -> None:
        self._loop.add((spans.a_pass, get_ident(), began, ended, depth, callbacks))

    def called(self, whose: Origin, began: int, ended: int, events: int, deadline: int) -> None:
        self._loop.add((spans.a_callback, get_ident(), began, ended, whose, events, deadline))

    def freed(self, began: int, ended: int, count: int) -> None:
        self._loop.add((spans.a_free, get_ident(), began, ended, count))

    def failed(self, error: BaseException, whose: Origin) -> None:
        text = f"{type(error).__name__}: {error}"[:200]
        self._loop.add((spans.an_error, get_ident(), monotonic_ns(), text, whose))

    def _beat(self, at: int, late: int) -> None:
        self._loop.add((spans.a_beat, at, late))

    # -- calls

    def asked(self, call: ObservedCall) -> None:
        track = _track(CALLS, call.uri, call.key, call.domain_name)
        self._calls[call.call] = Asked(track, call.what, call.operation, monotonic_ns())

    def begun(self, call: ObservedCall) -> None:
        span = self._calls.get(call.call)
        if span is not None:
            span.begun = monotonic_ns()

    def answered(self, call: ObservedCall, error: BaseException | None) -> None:
        span = self._calls.get(call.call)
        if span is not None:
            span.answered = monotonic_ns()
            span.refusal = _words(error)
            self._keep(call.call, span)

    def settled(self, call: Hashable, error: BaseException | None) -> None:
        span = self._calls.get(call)
        if span is not None:
            span.settled = monotonic_ns()
            span.error = _words(error)
            self._keep(call, span)

    def _keep(self, call: Hashable, asked: Asked) -> None:
        if asked.is_over and self._calls.pop(call, None) is not None:
            self._rest.add_anywhere((spans.a_call, asked, 0))

    # -- connections

    def linked(self, link: ObservedLink, why: str) -> None:
        owner: Any = link.owner
        jobs = getattr(owner, "jobs", None)
        if jobs is not None and jobs not in self._tables:
            self._tables[jobs] = link.uri, weakref.ref(owner)
            follow(jobs, self)
        why = why or _words(link.last_error)
        self._rest.add_anywhere((spans.a_change, monotonic_ns(), link.uri, link.state_name, why))

    # -- `job_following.Follower`

    def job_waits(self, ticket: Ticket) -> None:
        self._held(ticket).waits = monotonic_ns()

    def job_granted(self, ticket: Ticket) -> None:
        self._held(ticket).granted = monotonic_ns()

    def job_abandoned(self, ticket: Ticket) -> None:
        held = self._jobs.get(ticket)
        if held is not None:
            held.marks.append((monotonic_ns(), "abandoned"))

    def job_over(self, ticket: Ticket, at: int) -> None:
        held = self._jobs.pop(ticket, None)
        if held is not None:
            held.over = at
            held.state = ticket.state.name.lower()
            self._rest.add_anywhere((spans.a_job, held, 0))

    def _held(self, ticket: Ticket) -> Held:
        held = self._jobs.get(ticket)
        if held is None:
            name, whose = self._tables.get(ticket.jobs, ("", None))  # type: ignore[call-overload]  # as was followed
            owner: Any = None if whose is None else whose()
            if hasattr(owner, "uri"):
                track = _track(JOBS, owner.uri, ticket.key, _name_of(owner, ticket.key))
            else:
                track = Track(JOBS, (name, ticket.key), f"{ticket.key} of {name}: jobs")
            held = self._jobs[ticket] = Held(track, ticket.job.value, str(ticket.owner))
        return held


def _track(kind: str, uri: str, key: Hashable, name: str | None) -> Track:
    """Return the track of a domain, or of the whole hypervisor if ``key`` is None."""
    if key is None:
        return Track(kind, (uri, None), f"{uri}: {kind}")
    return Track(kind, (uri, key), f"{name or key} of {uri}: {kind}")


def _name_of(connection: Any, key: Hashable) -> str | None:
    known = getattr(connection, "known", None)
    domain = None if known is None else known.get(key)
    return None if domain is None else domain.ref.name


def _words(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"[:500]
