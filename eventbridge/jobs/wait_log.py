"""How long was waited: overall for ever, and by domain for those that were waited for last.

Nothing here locks: `JobManager` does.  Times are in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

from .info import Metrics, Waits
from .ticket import Ticket

BOUND = 10_000
"""Domains that are remembered by themselves: what has not been waited for longest is forgotten first."""


class _Sum:
    __slots__ = ("count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)

    def shown(self, queue: int) -> Waits:
        return Waits(self.count, self.total, self.longest, queue)


class WaitLog:
    """The sums."""

    def __init__(self) -> None:
        self._overall = _Sum()
        self._domains: OrderedDict[Hashable, _Sum] = OrderedDict()

    def note(self, ticket: Ticket, now: float) -> None:
        """A ticket waits no longer."""
        seconds = now - ticket.asked
        self._overall.add(seconds)
        domain = self._domains.get(ticket.key)
        if domain is None:
            domain = self._domains[ticket.key] = _Sum()
            if len(self._domains) > BOUND:
                self._domains.popitem(last=False)
        else:
            self._domains.move_to_end(ticket.key)
        domain.add(seconds)

    def forget(self, key: Hashable) -> None:
        """The domain has ended."""
        self._domains.pop(key, None)

    def metrics(self, queues: Mapping[Hashable, int], held: int) -> Metrics:
        domains = {key: domain.shown(queues.get(key, 0)) for key, domain in self._domains.items()}
        for key, queue in queues.items():
            domains.setdefault(key, Waits(queue=queue))
        return Metrics(self._overall.shown(sum(queues.values())), held, domains)
