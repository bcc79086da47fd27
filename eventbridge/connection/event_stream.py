"""One subscriber's events: a queue with a bound, and what happens at the bound.

A subscriber that does not keep up must neither hold the others up nor fill the memory, and must be told what it has
missed.  So at the bound its queue takes no more; how many events it missed is counted, and of the domains that they
were about it is remembered how they were before.  When the subscriber has read what is queued, it is told the count,
then the difference as synthetic events, and goes on with the stream: the state that its stream implies is true again.
The ends of the jobs that it was told had begun are part of that.

All of it belongs to the loop's thread, but for taking, which is done in a task.  That is the loop's, too, unless the
bridge has moved away from the task's loop (D9): then the queue alone is shared by two threads, and what else a reader
needs is done on the loop's thread for him.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from eventbridge.core.host import AwaitingHost, HostLoop
from eventbridge.core.host_lookup import awaiting
from eventbridge.core.waker import Bell
from eventbridge.errors import EventBridgeError
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainInfo

from .inventory import Key, Known, KnownDomain, Told, difference
from .job_events import name_of

LIMIT = 10_000
"""Events that wait for a subscriber, unless it says otherwise."""
LAGGED = "lagged"
"""The reason of the event, of kind ``other``, that says how many were missed."""

_JOB = frozenset((Kind.JOB_STARTED, Kind.JOB_ENDED))

OnFull: TypeAlias = Literal["resync", "raise"]


class StreamLagged(EventBridgeError, BufferError):
    """A subscriber did not keep up and had asked for ``on_full="raise"``; ``missed`` events are lost to it."""

    def __init__(self, message: str, missed: int) -> None:
        super().__init__(message)
        self.missed = missed


class Feed(Protocol):
    """Whose events they are: a connection."""

    uri: str
    known: Known

    @property
    def host(self) -> HostLoop: ...

    def soon(self, step: Callable[[], object]) -> None:
        """Have ``step()`` called on the loop's thread.  Any thread."""

    def leave(self, stream: EventStream) -> None:
        """It is closed.  The loop's thread."""


@dataclass(slots=True)
class _Lag:
    first: int
    last: int = 0
    missed: int = 0
    before: dict[Key, KnownDomain | None] = field(default_factory=dict)
    jobs: dict[Hashable, list[DomainEvent]] = field(default_factory=dict)
    """By job, what its reader must be told: the end of one that it was told had begun, the beginning of one that goes
    on.  A job that has begun and ended since is not there.
    """


class EventStream:
    """``async for event in stream`` in a task of the loop, `take` on any host; `close` or leaving ``async with`` ends
    it.  ``limit`` events wait at most; then ``on_full``: "resync", as above, or "raise": the stream ends with
    `StreamLagged`.
    """

    def __init__(self, feed: Feed, limit: int = LIMIT, on_full: OnFull = "resync") -> None:
        if limit < 1 or on_full not in ("resync", "raise"):
            raise ValueError(f"limit must be 1 or more and on_full 'resync' or 'raise'; found {limit}, {on_full!r}")
        self._feed = feed
        self._limit = limit
        self._on_full = on_full
        self._queue: collections.deque[DomainEvent] = collections.deque()
        self._lag: _Lag | None = None
        self._catching_up: Iterator[DomainEvent] | None = None
        self._bell = Bell()
        self._ended = False
        self._jobs: set[Hashable] = set()  # of which the reader was told that they have begun, and not that they ended
        self.missed = 0
        """Events that it was not given, because it did not keep up."""

    @property
    def waiting(self) -> int:
        """Events that it has not taken yet."""
        return len(self._queue)

    # -- the connection's

    def put(self, event: DomainEvent, key: Key, before: KnownDomain | None) -> None:
        """``before`` is how the event's domain was until then."""
        if self._ended:
            return
        if self._lag is None and len(self._queue) < self._limit:
            self._queue.append(event)
            if event.kind in _JOB:
                self._note(event, (key, *name_of(event)))
        else:
            self._miss(event, key, before)
        if self._bell.waits:
            self._bell.ring()

    def end(self) -> None:
        """There will be no more: what is queued can still be taken."""
        self._ended = True
        self._bell.ring()

    def _miss(self, event: DomainEvent, key: Key, before: KnownDomain | None) -> None:
        lag = self._lag
        if lag is None:
            lag = self._lag = _Lag(event.sequence)
        lag.last = event.sequence
        lag.missed += 1
        self.missed += 1
        if key is not None:
            lag.before.setdefault(key, before)
        if event.kind in _JOB:
            self._miss_job(lag, event, (key, *name_of(event)))

    def _note(self, event: DomainEvent, job: Hashable) -> None:
        """Its reader is told."""
        if event.kind is Kind.JOB_STARTED:
            self._jobs.add(job)
        else:
            self._jobs.discard(job)

    def _miss_job(self, lag: _Lag, event: DomainEvent, job: Hashable) -> None:
        missed = lag.jobs.setdefault(job, [])
        if event.kind is Kind.JOB_STARTED:
            missed.append(event)
        elif missed and missed[-1].kind is Kind.JOB_STARTED:
            missed.pop()
        elif not missed and job in self._jobs:
            missed.append(event)
        if not missed:
            del lag.jobs[job]

    # -- the subscriber's

    def take(self) -> DomainEvent | None:
        """The next event; None where there is none now.  `StreamLagged`, once, and the stream has ended.  The loop's
        thread.
        """
        lag = self._lag
        if lag is not None and self._is_behind():
            self._caught_up(lag)
        if self._catching_up is not None:
            event = next(self._catching_up, None)
            if event is not None:
                return event
            self._catching_up = None
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        """No more; what is queued is dropped.  Idempotent.  The loop's thread, or that of the task that reads."""
        self._ended = True
        self._queue.clear()
        self._lag = self._catching_up = None
        if self._feed.host.is_loop_thread():
            self._feed.leave(self)
        else:
            self._feed.soon(lambda: self._feed.leave(self))
        self._bell.ring()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> DomainEvent:
        while True:
            ended = self._ended  # before: what was put until then is there to be taken
            if self._lag is not None and self._is_behind() and not ended and not self._feed.host.is_loop_thread():
                await self._here().wait_for(self._catch_up_there, None)
            event = self.take()
            if event is not None:
                return event
            if ended:
                raise StopAsyncIteration
            await self._here().wait_for(self._wait, None)

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def _here(self) -> AwaitingHost:
        return awaiting(self._feed.host, "use subscribe() or take()")

    def _wait(self, done: Callable[[], None]) -> None:
        self._bell.wait(done, lambda: bool(self._queue) or self._lag is not None or self._ended)

    def _is_behind(self) -> bool:
        """Has the reader taken all that was put before some was missed?"""
        return self._lag is not None and self._catching_up is None and not self._queue

    def _catch_up_there(self, done: Callable[[], None]) -> None:
        """The reader's loop is not the bridge's any more: how things are now is known to the bridge's alone."""

        def catch_up() -> None:
            lag = self._lag
            if lag is not None and self._is_behind() and not self._ended and self._on_full == "resync":
                self._caught_up(lag)
            done()

        self._bell.wait(done, lambda: self._ended)
        self._feed.soon(catch_up)

    def _caught_up(self, lag: _Lag) -> None:
        self._lag = None
        if self._on_full == "raise":
            self.close()
            raise StreamLagged(
                f"{self._feed.uri}: {lag.missed} events came while {self._limit} waited to be taken: take them "
                "sooner, allow more (limit=), or go on from the difference (on_full='resync')",
                lag.missed,
            )
        # The state of now, at once: what comes from here on is queued behind.
        told = [
            told
            for key, before in lag.before.items()
            for told in difference(before, _as_info(self._feed.known.get(key)))
        ]
        jobs = [(job, event) for job, missed in lag.jobs.items() for event in missed]
        for job, event in jobs:  # no difference between states shows a job
            self._note(event, job)
        self._catching_up = self._catch_up(lag, [event for _, event in jobs], told)

    def _catch_up(self, lag: _Lag, jobs: list[DomainEvent], told: list[Told]) -> Iterator[DomainEvent]:
        now = time.time()
        raw = {"missed": lag.missed, "first": lag.first, "last": lag.last}
        yield DomainEvent(Kind.OTHER, None, LAGGED, self._feed.uri, lag.last, now, True, raw)
        for event in jobs:
            yield replace(event, sequence=lag.last, synthetic=True)
        for kind, domain, reason in told:
            yield DomainEvent(kind, domain, reason, self._feed.uri, lag.last, now, True, raw)


def _as_info(domain: KnownDomain | None) -> DomainInfo | None:
    return None if domain is None else DomainInfo(domain.ref, domain.state, persistent=domain.persistent)
