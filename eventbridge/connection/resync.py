"""What is known, compared with what the hypervisor says, while its events go on coming.

The session tells its events before it is asked, so nothing falls between; but an answer and the events around it may
overtake each other.  So: an answer is taken up two passes after it has come, when every event that was told before it
has been delivered; a domain of which an event came while its answer was on the way is asked about again, by itself, and
again while that happens.  What is left differs because nobody saw why, and is told.

A late event of a domain that was told about here, and that says no more than was told, says it twice: `Resync.is_echo`.

All of it belongs to the loop's thread; a step of it compares at most a few dozen domains.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any, Protocol

from eventbridge.core.mailbox import Step
from eventbridge.errors import NoSuchDomain
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainInfo, DomainRef

from .inventory import SAYS_HOW, Key, Known, Told, is_another_life

AT_ONCE = 32
"""Domains that are compared in one step, or asked about at once."""
ROUNDS = 20
"""How often a domain that changes all the time is asked about: then what its events say is taken for true."""


class Resynced(Protocol):
    """Whose domains they are: a connection."""

    known: Known

    def ask_plainly(
        self, operation: str, domain: DomainRef | None, answered: Callable[[Any, BaseException | None], object]
    ) -> None:
        """Without a job or a deadline; ``answered(value, error)`` on the loop's thread."""

    def after_passes(self, step: Step) -> None:
        """Call ``step()`` when every event that was told before now has been delivered."""

    def soon(self, step: Step) -> None:
        """Call ``step()`` in a pass."""

    def tell_missed(self, told: list[Told]) -> None:
        """Have these told, as synthetic events."""

    def resynced(self, resync: Resync, error: BaseException | None) -> None:
        """It is over; ``error`` where the hypervisor would not answer."""


class Resync:
    """One comparison.  ``quiet``: nothing is known yet but by events, so that what is there is taken as it is."""

    def __init__(self, connection: Resynced, quiet: bool) -> None:
        self._connection = connection
        self._quiet = quiet
        self._over = False
        self._touched: set[Key] = set()  # since the answer that is awaited was asked for
        self._listed: dict[Key, DomainInfo] = {}
        self._left: collections.deque[Key] = collections.deque()  # to be compared with what was listed
        self._again: collections.deque[Key] = collections.deque()  # to be asked about by themselves
        self._rounds: collections.Counter[Key] = collections.Counter()
        self._asked = 0
        self._told_about: set[Key] = set()
        self.told = 0
        """Synthetic events so far."""

    def begin(self) -> None:
        self._connection.ask_plainly("list", None, self._answered)

    def cancel(self) -> None:
        """The session is lost: whatever still comes is not for this one."""
        self._over = True

    def touched(self, event: DomainEvent) -> None:
        """An event was delivered."""
        if event.domain is not None and event.kind in SAYS_HOW:  # by others no answer is out of date
            self._touched.add(self._connection.known.key(event.domain))

    def is_echo(self, event: DomainEvent) -> bool:
        """Does it say what was told here already?"""
        if event.domain is None or not self._told_about or event.kind not in SAYS_HOW:
            return False
        known = self._connection.known
        key = known.key(event.domain)
        if key not in self._told_about:
            return False
        domain = known.get(key)
        if domain is not None and is_another_life(domain.ref, event.domain):
            return True  # of a life that was over when the hypervisor was asked
        starts = event.kind is Kind.STARTED and domain is not None and domain.runs
        if starts or known.is_news(event.kind, event.domain):
            self._told_about.discard(key)  # what comes after this has come after what was told
        return starts or not known.is_news(event.kind, event.domain)

    # -- the list

    def _answered(self, infos: list[DomainInfo], error: BaseException | None) -> None:
        if not self._over:
            self._connection.after_passes(functools.partial(self._take_list, infos, error))

    def _take_list(self, infos: list[DomainInfo], error: BaseException | None) -> None:
        if self._over:
            return
        if error is not None:
            self._end(error)
            return
        known = self._connection.known
        self._listed = {known.key(info.domain): info for info in infos}
        self._left.extend(dict.fromkeys([*(known.key(domain.ref) for domain in known), *self._listed]))
        self._compare_some()

    def _compare_some(self) -> None:
        if self._over:
            return
        for _ in range(min(AT_ONCE, len(self._left))):
            key = self._left.popleft()
            if key in self._touched:
                self._again.append(key)
            else:
                self._settle(key, self._listed.get(key))
        if self._left:
            self._connection.soon(self._compare_some)
        else:
            self._listed.clear()
            self._ask_again()

    # -- one by one

    def _ask_again(self) -> None:
        while self._again and self._asked < AT_ONCE:
            key = self._again.popleft()
            domain = self._connection.known.get(key)
            self._rounds[key] += 1
            if domain is None or self._rounds[key] > ROUNDS:
                continue  # it has gone, and its events have said so; or they say all that there is to be known
            self._touched.discard(key)
            self._asked += 1
            self._connection.ask_plainly("info", domain.ref, functools.partial(self._told_of, key))
        if not self._again and not self._asked:
            self._end(None)

    def _told_of(self, key: Key, info: DomainInfo | None, error: BaseException | None) -> None:
        if not self._over:
            self._connection.after_passes(functools.partial(self._take_one, key, info, error))

    def _take_one(self, key: Key, info: DomainInfo | None, error: BaseException | None) -> None:
        if self._over:
            return
        self._asked -= 1
        if error is not None and not isinstance(error, NoSuchDomain):
            self._end(error)
            return
        if key in self._touched:
            self._again.append(key)
        else:
            self._settle(key, None if error is not None else info)
        self._ask_again()

    def _settle(self, key: Key, info: DomainInfo | None) -> None:
        known = self._connection.known
        told = [] if self._quiet and info is not None else known.settle(key, info)
        if told:
            self.told += len(told)
            self._told_about.add(key)
            self._connection.tell_missed(told)
        if info is not None:
            known.learn(info)

    def _end(self, error: BaseException | None) -> None:
        self._over = True
        self._connection.resynced(self, error)
