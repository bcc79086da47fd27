"""What a world does wrong because a test has asked for it: it hangs, it refuses, it cannot be reached.

Under the world's lock.  `simulation` is the way in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.request import Request

from .commands import refused
from .guests import Guest

if TYPE_CHECKING:
    from .hypervisor import World

REMEMBERED = 10_000
"""Requests that were given up, the last of them."""


@dataclass(slots=True)
class Fault:
    """``times`` more calls of ``operation`` on ``guest`` (None: on whomever) fail with ``words``; those that take long
    once ``at`` of their bytes (0 to 1) are done.
    """

    operation: str
    guest: Guest | None
    words: str
    times: int
    at: float


class Faults:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.frozen: dict[Guest | None, frozenset[str]] = {}
        """Who is (None: everybody), and which operations are let through all the same."""
        self.hung: list[tuple[Request, Callable[[], object]]] = []
        """Requests whose turn came while they were frozen, and how they go on."""
        self.given_up: deque[Request] = deque(maxlen=REMEMBERED)
        self.planned: list[Fault] = []
        self.refusals = 0
        """How many more connections are refused."""

    def refuses_a_connection(self) -> bool:
        """Is this one of those that are refused?  It takes the lock."""
        with self._world.lock:
            refused = self.refusals > 0
            self.refusals -= refused
        return refused

    def hangs(self, request: Request, then: Callable[[], object]) -> bool:
        """Is it frozen?  It goes on with ``then`` where it thaws."""
        if not self._is_frozen(request):
            return False
        self.hung.append((request, then))
        return True

    def _is_frozen(self, request: Request) -> bool:
        if not self.frozen:
            return False
        guest = None if request.domain is None else self._world.cast.find(request.domain)
        return any(request.operation not in self.frozen[frozen] for frozen in {None, guest} & self.frozen.keys())

    def thawed(self) -> list[Callable[[], object]]:
        """Those that hang no more, in the order in which they came."""
        free = [(request, then) for request, then in self.hung if not self._is_frozen(request)]
        self.hung = [(request, then) for request, then in self.hung if self._is_frozen(request)]
        return [then for _, then in free]

    def planned_for(self, request: Request, done: float = 0.0) -> HypervisorError | None:
        """The error that was planned for such a call, once ``done`` (0 to 1) of it is; each is spent by that."""
        for fault in self.planned:
            if fault.operation != request.operation or fault.at > done or not self._concerns(fault, request):
                continue
            fault.times -= 1
            if not fault.times:
                self.planned.remove(fault)
            domain = None if request.domain is None else request.domain.name
            return refused(self._world.uri, request.operation, domain, fault.words)
        return None

    def _concerns(self, fault: Fault, request: Request) -> bool:
        if fault.guest is None:
            return True
        return request.domain is not None and self._world.cast.find(request.domain) is fault.guest
