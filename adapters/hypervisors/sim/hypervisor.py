"""One simulated hypervisor: its domains, their story, its clock, and the connections that are told of it.

A URI that names a world shares it with every other that does, for as long as the process lives or until it is
forgotten; one that names none has its own.  While nobody is connected its time stands still.

One lock over everything of a world, held while bridges are called and fds written, never while an event is emitted,
a request answered, or an agenda's step taken; whoever needs two worlds takes them with `both`.  It has no thread:
whichever connection's clock is due first moves it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from eventbridge.errors import NoSuchDomain
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request

from . import guests
from .commands import refused
from .faults import Faults
from .guests import Guest, Happening, State, Step
from .population import Cast
from .scenario import Story
from .uri import Parameters, refusal
from .wire import encode

if TYPE_CHECKING:
    from .migration_in import Incoming
    from .migration_out import Transfer
    from .session import Session

AT_ONCE = 256
"""Happenings that are caught up with, or actions that are begun with, in one callback."""
BACKLOG = 4 * AT_ONCE
"""Happenings that are on their way at most, before the story goes on."""
PER_SOURCE = 100
"""Domains of the direct-fd model behind one fd."""

Action: TypeAlias = Callable[[], object]
_serial = itertools.count()


def lane_of(guest: int) -> int:
    """0 is the callback model's, of all even-numbered guests; each other a source's of the direct-fd model."""
    return 1 + guest // (2 * PER_SOURCE) if guest % 2 else 0


class World:
    """``uri`` is who made it."""

    def __init__(self, uri: str, parameters: Parameters) -> None:
        self.lock = threading.RLock()
        self.uri = uri
        self.parameters = parameters
        self.cast = Cast(parameters.seed, parameters.domains, parameters.memory)
        self.story = Story(parameters.seed, self.cast, lane_of, parameters.events)
        self.sessions: list[Session] = []
        self.transfers: dict[Guest, Transfer] = {}
        self.sent: dict[Guest, tuple[State, bool]] = {}  # how each was, and is its definition to go with it?
        self.incoming: list[Incoming] = []
        self.files: dict[str, tuple[str, str, int]] = {}  # what was saved where: name, uuid, memory
        self.faults = Faults(self)
        self.listings: list[set[Guest]] = []  # for each listing under way, who has changed since it began
        self.serial = next(_serial)
        self._started: float | None = None  # in monotonic time; None while nobody is connected
        self._lived = 0.0
        self._agenda: list[tuple[float, int, Action]] = []

    # -- who is told

    def join(self, session: Session) -> int:
        """Its time goes on; the number of what has happened before.  Under the lock."""
        if not self.sessions:
            self._started = monotonic() - self._lived
        self.sessions.append(session)
        return self.cast.number

    def leave(self, session: Session) -> None:
        """Under the lock."""
        if session in self.sessions:
            self.sessions.remove(session)
            if not self.sessions and self._started is not None:
                self._lived, self._started = monotonic() - self._started, None

    # -- the clock.  Under the lock

    def next_turn(self, lane: int) -> float | None:
        """When something next happens in a lane, in seconds of `time.monotonic`; None: never."""
        if self._started is None:
            return None
        number = self.story.peek(lane)
        return None if number is None else self._started + number / self.parameters.rate

    def next_at(self) -> float | None:
        """When the callback model's clock has something to do: its own lane's story, or somebody's call."""
        turn = self.next_turn(0)
        if not self._agenda:
            return turn
        return self._agenda[0][0] if turn is None else min(turn, self._agenda[0][0])

    def schedule(self, delay: float, action: Action) -> None:
        """Have ``action()`` done in so many seconds, by whichever connection looks first, without the lock."""
        heapq.heappush(self._agenda, (monotonic() + delay, next(_serial), action))

    def hand_on(self, actions: Iterable[Action]) -> None:
        """They are due, and whoever had them has gone."""
        for action in actions:
            self.schedule(0, action)
        self.wake()

    def wake(self) -> None:
        """Something was scheduled that is nobody's in particular."""
        for session in self.sessions:
            session.arm()

    def advance(self) -> None:
        """Let the story's happen that is due by now, at most AT_ONCE of it, and tell it.

        It waits for a loop that cannot follow, or fds and memory would fill; of several for the fastest.
        """
        if self._started is not None:
            room = BACKLOG - self.cast.number + max(session.told for session in self.sessions)
            self.happen((monotonic() - self._started) * self.parameters.rate, min(AT_ONCE, room))

    def happen(self, by: float, most: int) -> int:
        """As `advance`, by the story's own numbers; how much did."""
        happened: list[Happening] = []
        while len(happened) < most and (happening := self.story.take(by)) is not None:
            happened.append(happening)
        if happened:
            self._tell(happened)
        return len(happened)

    def due(self) -> deque[Action]:
        """What was scheduled for now, at most AT_ONCE of it: to be done without the lock."""
        now, agenda = monotonic(), self._agenda
        actions: deque[Action] = deque()
        while agenda and agenda[0][0] <= now and len(actions) < AT_ONCE:
            actions.append(heapq.heappop(agenda)[2])
        return actions

    # -- what happens.  Under the lock

    def take(self, guest: Guest, *steps: Step) -> None:
        """They happen to it, and everybody is told."""
        self._tell([self.cast.apply(guest, step) for step in steps])

    def _tell(self, happened: list[Happening]) -> None:
        for changed in self.listings:
            changed.update(self.cast[happening.guest] for happening in happened)
        if self.sessions:
            records = [(happening.guest, encode(happening)) for happening in happened]
            for session in self.sessions:
                session.send(records)

    # -- whom it happens to.  Under the lock

    def find(self, request: Request) -> Guest:
        """`NoSuchDomain` where there is none."""
        ref = request.domain or DomainRef(None)
        guest = self.cast.find(ref)
        if guest is None:
            whom = ref.name or ref.uuid or ref.id
            raise NoSuchDomain(
                f"{self.uri}: cannot {request.operation} {whom}: there is no such domain",
                operation=request.operation,
                domain=ref.name,
            )
        return guest

    def present(self, operation: str, name: str, uuid: str | None) -> Guest | None:
        """The guest of that name and uuid; None where there is none; `HypervisorError` where one of the two is
        another's.
        """
        named = self.cast.find(DomainRef(name))
        known = None if uuid is None else self.cast.find(DomainRef(None, uuid))
        for guest in (named, known):
            if guest is not None and (guest.name != name or uuid not in (None, guest.uuid)):
                raise refused(self.uri, operation, name, f"there is {guest.name} already, with the uuid {guest.uuid}")
        return named

    def claim(self, operation: str, name: str, uuid: str | None) -> Guest:
        """As `present`, but made where there is none, absent yet, and refused where it gets no fd."""
        return self.present(operation, name, uuid) or self.cast.absent(name, uuid) or self._make(operation, name, uuid)

    def _make(self, operation: str, name: str, uuid: str | None) -> Guest:
        self._reap()
        seed, memory = self.parameters.seed, self.parameters.memory
        guest = self.cast.make(name, uuid or guests.uuid_named(seed, name), memory)
        try:
            for session in self.sessions:
                session.attach(guest.index)
        except OSError as error:
            self.cast.unmake(guest)
            raise refused(self.uri, operation, name, f"it gets no fd of its own: {error}") from error
        return guest

    def _reap(self) -> None:
        """Close the channels of those who are gone, once everybody has been told."""
        told = min((session.told for session in self.sessions), default=self.cast.number)
        left = self.cast.left
        while left and left[0][0] <= told:
            guest = left.pop(0)[1]
            self.cast.forget(guest)
            for session in self.sessions:
                session.detach(guest.index)


@contextmanager
def both(one: World, other: World) -> Iterator[None]:
    """Under the locks of two worlds, which nobody holds yet."""
    first, second = sorted((one, other), key=lambda world: world.serial)
    with first.lock, second.lock:
        yield


_worlds: dict[str, World] = {}
_worlds_lock = threading.Lock()


def world_of(uri: str, parameters: Parameters) -> World:
    """The world that a URI means; `HypervisorError` where it is another than it says."""
    if parameters.world is None:
        return World(uri, parameters)
    with _worlds_lock:
        world = _worlds.setdefault(parameters.world, World(uri, parameters))
    for name in ("domains", "seed", "rate", "events", "memory"):
        there, wanted = getattr(world.parameters, name), getattr(parameters, name)
        if there != wanted:
            raise refusal(uri, f"the world {parameters.world!r} is there already, with {name}={there}, not {wanted}")
    return world


def forgotten(name: str) -> World | None:
    """The next URI with that name means a new one; who it was."""
    with _worlds_lock:
        return _worlds.pop(name, None)
