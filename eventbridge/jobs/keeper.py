"""What is kept of all domains, and the one lock over it: a table from a domain's key to what runs on it.

A domain on which nothing runs is not in the table.  One on which one job runs, and nobody waits, is there as that job's
`Ticket` itself: an uncontended job costs that one object, one look-up to begin and one to end.  Only where a second one
asks, or the first is to be seen in more than its name, a `Machine` takes the ticket's place, until all have ended.

The lock is held over a look-up and a step of one machine; never while anybody else's code runs, and no wait is under
it.  Keys are hashed and compared under it: they are str, bytes, numbers, UUIDs, or tuples of these.  What comes of a
step is told when the lock is released, on the thread that made the step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator

from .notifier import Delivery
from .state_machine import DEFAULT_LIMIT, Machine, Output
from .step_lock import StepLock
from .ticket import Ticket
from .wait_log import WaitLog


class Keeper:
    """The table.

    ``clock()`` gives the seconds in which deadlines are, ``wall()`` those of Unix time; at most ``limit`` wait for one
    domain; ``on_error(exception, context)`` is told of an exception of an ``on_settled`` or a listener (default: the
    log).
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
        self._left: deque[Ticket] = deque()  # to be let go by whoever releases the lock
        self._letting_go = threading.Lock()
        self._threads = threading.local()  # of the face for threads

    def __len__(self) -> int:
        """How many domains something runs on."""
        return len(self._table)

    def __iter__(self) -> Iterator[Hashable]:
        """Their keys, as they are now."""
        return iter(self._table.copy())

    def __bool__(self) -> bool:
        """A table is one, also while nothing runs."""
        return True

    # -- under the lock

    def _machine(self, key: Hashable) -> Machine:
        """The domain's, in the place of nothing or of a ticket by itself."""
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

    def _is_running(self, token: Ticket) -> bool:
        return self._async_of(token.key) is token

    def _note(self, outputs: list[Output], now: float) -> None:
        for output in outputs:
            if isinstance(output, Ticket):
                self._waits.note(output, now)

    # -- with the lock released

    def _after(self, outputs: list[Output]) -> None:
        if outputs:
            self._delivery.deliver(outputs)
        if self._left:
            self._let_go_of_the_left()

    def let_go(self, ticket: Ticket) -> None:
        """What a finalizer calls: end, or take out of its queue, the ticket of an owner that has died.

        It may run inside a step of this very thread (see step_lock.py); then that step's end is followed by this.
        """
        if self._lock.entered_here():
            self._left.append(ticket)
        else:
            self._let_go(ticket)

    def _let_go_of_the_left(self) -> None:
        """One thread at a time; who comes meanwhile leaves it to that one, which looks again at its end."""
        while self._left and self._letting_go.acquire(blocking=False):
            try:
                while self._left:
                    self._let_go(self._left.popleft())
            finally:
                self._letting_go.release()

    def _let_go(self, ticket: Ticket) -> None:
        raise NotImplementedError


def _log(error: BaseException, context: str) -> None:
    logging.getLogger(__name__).error("exception %s", context, exc_info=error)
