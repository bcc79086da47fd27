"""One table of jobs: which job runs on which domain, and which jobs wait for it.

A domain on which nothing runs is not in the table.  A domain on which one job runs, and for which none waits, is there
as that job's `Ticket`: an uncontended job costs one object, one look-up to begin and one to end.  As soon as a second
job is requested, or more than the first one's name is wanted, a `Machine` takes the ticket's place until all have
ended.

One lock guards the table.  It is held for a look-up and a step of one machine, and never while foreign code runs or a
thread waits.  Keys are hashed and compared under it: they are str, bytes, numbers, UUIDs, or tuples of these.  The
callbacks that a step causes run after the lock is released, on the thread that made the step.

Every method may be called from any thread, and none blocks: `threads` and `coroutines` have the ways to wait.  A forked
child makes a table of its own, because the owners of the parent's jobs are not there to end them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import NoReturn

from eventbridge.errors import EventBridgeError

from .errors import JobBusy
from .info import HeldJob, JobInfo, Metrics, Progress
from .kinds import LETS_IN, Job
from .messages import error_of
from .notifier import Delivery
from .state_machine import DEFAULT_LIMIT, Listener, Machine, Output
from .step_lock import StepLock
from .ticket import OnSettled, State, Ticket
from .wait_log import WaitLog

DEFAULT_TIMEOUT = 30.0
"""Seconds for the whole of a wait: libvirt's VIR_JOB_WAIT_TIME."""
NEVER = float("inf")

_WAITING, _HELD, _ABANDONED, _ENDED = State.WAITING, State.HELD, State.ABANDONED, State.ENDED


class JobManager:
    """The table of jobs.

    ``clock()`` gives the seconds in which deadlines are, ``wall()`` those of Unix time.  At most ``limit`` jobs wait
    for one domain.  ``on_error(exception, context)`` is called with each exception of an ``on_settled`` or a listener
    (default: it is logged).
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        limit: int = DEFAULT_LIMIT,
        on_error: Callable[[BaseException, str], object] | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._limit = limit
        self._lock = StepLock()
        self._table: dict[Hashable, Ticket | Machine] = {}
        self._sequence = 0
        self._waits = WaitLog()
        self._delivery = Delivery(on_error or _log)
        self._left: deque[Ticket] = deque()  # a finalizer left them to the thread that releases the lock
        self._letting_go = threading.Lock()

    def __len__(self) -> int:
        """Return the number of domains on which a job runs."""
        return len(self._table)

    def __iter__(self) -> Iterator[Hashable]:
        """Iterate over a copy of the keys of those domains."""
        return iter(self._table.copy())

    def __bool__(self) -> bool:
        """A table is true, also while no job runs."""
        return True

    # -- one job, from its request to its end

    def request(
        self,
        key: Hashable,
        job: Job,
        owner: object,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        deadline: float | None = None,
        nowait: bool = False,
        of: Ticket | None = None,
        on_settled: OnSettled | None = None,
    ) -> Ticket:
        """Request a job; return at once, with a ticket that is granted, refused, or waits.

        ``str(owner)`` names the job's holder to others.  The wait ends ``timeout`` seconds from now (None: never), or
        at ``deadline`` in the clock's seconds, which takes precedence; the table has no timer, so the caller calls
        `expire` then.  ``nowait``: refuse with `JobBusy` instead of queueing.  ``of``: the token of the async job that
        this normal job is a part of.  ``on_settled(ticket)`` is called once when the ticket is granted or refused, on
        the thread that settles it, perhaps before this method returns; with no lock held; it must be short and not wait
        for a job.  It is not called for a ticket that was cancelled.
        """
        now = self._clock()
        ticket = Ticket(self, key, job, owner, now)
        if of is None and self._granted_at_once(ticket):
            if on_settled is not None:
                self._delivery.call(on_settled, ticket)
        else:
            until = now + timeout if timeout is not None else NEVER
            self._contend(ticket, until if deadline is None else deadline, nowait, of, on_settled)
        return ticket

    def end(self, token: Ticket) -> None:
        """End a job, abandoned or not, and grant the next ones.

        Raises `EventBridgeError` for a job that is not held: it has ended already, still waits, was refused, or belongs
        to another table.
        """
        key = token.key
        lock = self._lock
        with lock.raw:
            if lock.stepping:  # a finalizer, inside a step
                self._left.append(token)
                return
            lock.stepping = True
            try:
                alone = self._table.get(key) is token
                if alone:
                    del self._table[key]
                    token.state = _ENDED
            finally:
                lock.stepping = False
        if not alone and not self._end_in_machine(token):
            self._not_held(token)
        if self._left:
            self._let_go_of_the_left()

    def abandon(self, token: Ticket) -> bool:
        """Abandon a job: its owner no longer waits for a hypervisor's call that hangs.

        The job holds the domain until `end`, which stays legal, but no longer keeps DESTROY and ABORT out.  Returns
        False if the job has ended meanwhile.
        """
        now = self._clock()
        outputs: list[Output] = []
        with self._lock:
            if token.state is _HELD and token.jobs is self:
                outputs = self._machine(token.key).abandon(token, now)
                self._note(outputs, now)
            abandoned = token.state is _ABANDONED
        self._after(outputs)
        return abandoned

    def cancel(self, ticket: Ticket) -> bool:
        """Cancel a ticket that waits, or end a job that is held; see `Ticket.cancel`."""
        now = self._clock()
        with self._lock:
            waited = ticket.state is _WAITING and ticket.jobs is self
            if waited:
                self._machine(ticket.key).cancel(ticket)
                ticket.on_settled = None
                self._waits.note(ticket, now)
        if not waited and ticket.state is _HELD:
            self._end_in_machine(ticket)
        self._after([])
        return waited

    def expire(self, key: Hashable) -> None:
        """Refuse, with `JobTimeout`, the jobs that wait for this domain and whose deadline is past."""
        self._step(key, Machine.expire)

    def gone(self, key: Hashable) -> None:
        """Record that the domain has ended.

        The jobs that wait for it are refused with a `HypervisorError`, except START and MIGRATION_IN, which bring it
        up.  A running job goes on, and its end is legal; an abandoned one holds nothing any more.
        """
        self._step(key, Machine.gone)
        with self._lock:
            self._waits.forget(key)
        self._after([])

    # -- what runs, how long it was waited for, and why a job was refused

    def running(self, key: Hashable) -> JobInfo | None:
        """Return what runs on a domain and how many jobs wait for it, or None if nothing runs."""
        now = self._clock()
        with self._lock:
            found = self._table.get(key)
            machine = found if isinstance(found, Machine) else Machine()
            if isinstance(found, Ticket):
                machine.hold(found)
            normal, async_, abandoned = machine.normal, machine.async_, tuple(machine.abandoned)
            progress, abort_asked, queue = machine.progress, machine.abort_asked, machine.waiting
        self._after([])
        if found is None:
            return None
        return JobInfo(
            None if normal is None else self._held(normal, now),
            None if async_ is None else self._held(async_, now),
            tuple(self._held(ticket, now) for ticket in abandoned),
            progress,
            abort_asked,
            queue,
        )

    def metrics(self) -> Metrics:
        """Return how long jobs waited for which domain, and how many wait now.

        A domain has its own sum until it is `gone`, and while it is among the last 10,000 that were waited for.
        """
        table = self._table.copy()
        queues = {key: found.waiting for key, found in table.items() if isinstance(found, Machine) and found.waiting}
        with self._lock:
            metrics = self._waits.metrics(queues, len(table))
        self._after([])
        return metrics

    def error_of(self, ticket: Ticket) -> EventBridgeError:
        """Return the error of a refused ticket; see `Ticket.error`."""
        refusal = ticket.refusal
        blocker = refusal.blocker
        held = None if blocker is None else self._held(blocker, refusal.at, refusal.abandoned)
        return error_of(ticket, held)

    def _held(self, ticket: Ticket, now: float, abandoned: bool | None = None) -> HeldJob:
        held = max(0.0, now - ticket.since)
        since = self._wall() - (self._clock() - ticket.since)
        left = ticket.state is _ABANDONED if abandoned is None else abandoned
        return HeldJob(ticket.job, str(ticket.owner), since, held, left)

    # -- an async job: its progress, the request to abort it, and its followers

    def report(self, token: Ticket, progress: Progress) -> None:
        """Record an async job's progress, for its owner.

        Does nothing if the job has ended.  Raises ValueError for a normal job.
        """
        if not token.job.is_async:
            raise ValueError(f"{token!r} is no async job: it has no progress")
        outputs: list[Output] = []
        with self._lock:
            if token.jobs is self and self._async_of(token.key) is token:
                outputs = self._machine(token.key).report(progress)
        self._after(outputs)

    def abort(self, key: Hashable) -> bool:
        """Request that a domain's async job abort, once or again.

        Its owner learns of that (`follow`, `Ticket.abort_asked`), undoes what it did, and ends the job.  Returns False
        if no async job runs.  Raises `JobBusy` if the one that runs lets no ABORT in.
        """
        outputs: list[Output] = []
        refusing: Ticket | None = None
        with self._lock:
            running = self._async_of(key)
            if running is not None:
                machine = self._machine(key)
                if Job.ABORT in LETS_IN[running.job] or running.state is _ABANDONED:
                    outputs = machine.abort()
                else:
                    refusing = running
        self._after(outputs)
        if refusing is not None:
            held = self._held(refusing, self._clock())
            message = f"{key}: {held.job.value} is not to be aborted, only destroyed: {held}"
            raise JobBusy(message, holder=held.holder, job=held.job, since=held.since, held=held.held)
        return running is not None

    def abort_asked(self, token: Ticket) -> bool:
        """Return whether an async job was requested to abort; see `Ticket.abort_asked`."""
        machine = self._table.get(token.key)
        return isinstance(machine, Machine) and machine.async_ is token and machine.abort_asked

    def follow(self, key: Hashable, listener: Listener) -> bool:
        """Call ``listener(following)`` at each report of the domain's async job, at a request to abort it, and last at
        its end; in the way of ``on_settled``.  Returns False if no async job runs.
        """
        with self._lock:
            running = self._async_of(key)
            if running is not None:
                self._machine(key).follow(listener)
        self._after([])
        return running is not None

    def unfollow(self, key: Hashable, listener: Listener) -> None:
        """Stop following; a call that was decided before may still come."""
        with self._lock:
            machine = self._table.get(key)
            if isinstance(machine, Machine):
                machine.unfollow(listener)
        self._after([])

    # -- steps, which take the lock

    def _granted_at_once(self, ticket: Ticket) -> bool:
        """Grant the job if nothing runs on the domain: the fast path."""
        with self._lock.raw:
            granted = self._table.setdefault(ticket.key, ticket) is ticket
        if self._left:
            self._let_go_of_the_left()
        return granted

    def _contend(
        self, ticket: Ticket, deadline: float, nowait: bool, of: Ticket | None, on_settled: OnSettled | None
    ) -> None:
        """Let the domain's machine grant, refuse or queue the ticket."""
        if of is not None and ticket.job.is_async:
            raise ValueError(f"{ticket.job.name} cannot be part of an async job: only a normal job can")
        ticket.asked = ticket.since
        ticket.deadline = deadline
        ticket.of = of
        ticket.on_settled = on_settled
        with self._lock:
            self._sequence += 1
            machine = self._machine(ticket.key)
            outputs = machine.begin(ticket, self._sequence, ticket.asked, nowait=nowait)
            self._drop_if_idle(ticket.key, machine)
        self._after(outputs)

    def _end_in_machine(self, token: Ticket) -> bool:
        now = self._clock()
        outputs: list[Output] = []
        with self._lock:
            held = token.jobs is self and (token.state is _HELD or token.state is _ABANDONED)
            if held:
                machine = self._machine(token.key)
                outputs = machine.end(token, now)
                self._note(outputs, now)
                self._drop_if_idle(token.key, machine)
        self._after(outputs)
        return held

    def _step(self, key: Hashable, step: Callable[[Machine, float], list[Output]]) -> None:
        """Make one step of the domain's machine, if it has one: no job waits for a ticket by itself."""
        now = self._clock()
        outputs: list[Output] = []
        with self._lock:
            machine = self._table.get(key)
            if isinstance(machine, Machine):
                outputs = step(machine, now)
                self._note(outputs, now)
                self._drop_if_idle(key, machine)
        self._after(outputs)

    def _not_held(self, token: Ticket) -> NoReturn:
        if token.jobs is not self:
            raise EventBridgeError(f"cannot end {token!r}: it is another table's")
        raise EventBridgeError(f"cannot end {token!r}: only a job that is held can be ended, and once")

    # -- inside a step: the lock is held

    def _machine(self, key: Hashable) -> Machine:
        """Return the domain's machine, put in the place of nothing or of a ticket by itself if need be."""
        found = self._table.get(key)
        if isinstance(found, Machine):
            return found
        machine = Machine(self._limit)
        if found is not None:
            machine.hold(found)
        self._table[key] = machine
        return machine

    def _drop_if_idle(self, key: Hashable, machine: Machine) -> None:
        if machine.idle:
            del self._table[key]

    def _async_of(self, key: Hashable) -> Ticket | None:
        found = self._table.get(key)
        if isinstance(found, Machine):
            return found.async_
        return found if found is not None and found.job.is_async else None

    def _note(self, outputs: list[Output], now: float) -> None:
        for output in outputs:
            if isinstance(output, Ticket):
                self._waits.note(output, now)

    # -- after a step: the lock is released

    def _after(self, outputs: list[Output]) -> None:
        if outputs:
            self._delivery.deliver(outputs)
        if self._left:
            self._let_go_of_the_left()

    def let_go(self, ticket: Ticket) -> None:
        """End the job, or cancel the ticket, of an owner that has died; for finalizers.

        A finalizer may run inside a step of this very thread (see step_lock.py); then that step's end is followed by
        this.
        """
        if self._lock.entered_here():
            self._left.append(ticket)
        else:
            self._let_go(ticket)

    def _let_go_of_the_left(self) -> None:
        """One thread does this at a time; another that comes meanwhile leaves it to that one, which looks again."""
        while self._left and self._letting_go.acquire(blocking=False):
            try:
                while self._left:
                    self._let_go(self._left.popleft())
            finally:
                self._letting_go.release()

    def _let_go(self, ticket: Ticket) -> None:
        if not self.cancel(ticket):
            self._end_in_machine(ticket)  # abandoned, and its late end came in a finalizer


def _log(error: BaseException, context: str) -> None:
    logging.getLogger(__name__).error("exception %s", context, exc_info=error)
