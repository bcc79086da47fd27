"""A simulator's controls: what a test can do to a simulated hypervisor that no hypervisor offers.

Of worlds that have a name (``sim:///default?world=NAME``), in this process, on any thread, at once: it is changed
behind everybody's back, its connections are broken, its calls hang or fail, each when the test says so and not by
chance.  Nothing here exists for a real hypervisor, and nothing here is told apart from the real thing by whoever is
connected.

    simulation = simulation_of("sim:///default?world=a&domains=3&events=0")
    simulation.freeze("simulated-1")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eventbridge.errors import NoSuchDomain
from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request

from .commands import refused
from .faults import Fault
from .guests import Guest, State
from .hypervisor import World, forgotten, world_of
from .operations import STEPS
from .uri import parse, refusal


class Simulation:
    """One world, from above.  Domains are named by their names."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.parameters = world.parameters

    # -- what is so

    def domains(self) -> list[DomainInfo]:
        """All that there are: the truth."""
        with self.world.lock:
            return [guest.info() for guest in self.world.cast if guest.state is not State.ABSENT]

    def domain(self, name: str) -> DomainInfo:
        """`NoSuchDomain` where there is none."""
        with self.world.lock:
            return self._guest(name).info()

    @property
    def connections(self) -> int:
        """How many are open: neither closed nor broken."""
        return len(self.world.sessions)

    @property
    def hung(self) -> Sequence[Request]:
        """Requests that are frozen, in the order in which their turns came."""
        with self.world.lock:
            return [request for request, _ in self.world.faults.hung if not request.done]

    @property
    def given_up(self) -> Sequence[Request]:
        """Requests that nobody waits for any more, the last 10,000 of them."""
        with self.world.lock:
            return list(self.world.faults.given_up)

    # -- behind everybody's back

    def do(self, operation: str, domain: str | None = None, **arguments: Any) -> Any:
        """Have it done now, as if somebody else had asked: an operation that takes no time, and its answer.  Who is
        connected is told; nothing that is planned or frozen concerns it.  `HypervisorError` as a call.
        """
        if operation not in STEPS:
            raise refused(self.world.uri, operation, domain, f"only these take no time: {', '.join(sorted(STEPS))}")
        request = Request(operation, None if domain is None else DomainRef(domain), arguments, _Nobody())
        with self.world.lock:
            return STEPS[operation](self, request)

    def happen(self, count: int = 1) -> int:
        """Let so much of the story happen now, whenever it would have; how much did, for a story may end before."""
        with self.world.lock:
            return self.world.happen(float("inf"), count)

    # -- connections

    def break_connections(self, refuse: int = 0, reason: str = "eof") -> int:
        """Every one of them is lost: what was on its way is never told, requests under way are refused with
        `ConnectionLost`.  The next ``refuse`` attempts to connect fail, too.  How many were lost.
        """
        with self.world.lock:
            self.world.faults.refusals = refuse
            sessions = list(self.world.sessions)
            for session in sessions:
                session.lose(reason)
        return len(sessions)

    def refuse_connections(self, count: int) -> None:
        """The next ``count`` attempts to connect fail."""
        with self.world.lock:
            self.world.faults.refusals = count

    # -- calls

    def freeze(self, domain: str | None = None, but: Iterable[str] = ()) -> None:
        """Requests on that domain (None: all requests) hang from now on when their turn comes, also those that take
        long in the middle; queries of the whole hypervisor only where all do.  ``but``: operations that do not, as
        destroy, which a real hypervisor can do to a process that does not answer.
        """
        with self.world.lock:
            self.world.faults.frozen[None if domain is None else self._guest(domain)] = frozenset(but)

    def thaw(self, domain: str | None = None) -> None:
        """They go on, also those that were given up; that domain's only, or (None) all there are."""
        with self.world.lock:
            faults = self.world.faults
            if domain is None:
                faults.frozen.clear()
            else:
                faults.frozen.pop(self._guest(domain), None)
            self.world.hand_on(faults.thawed())

    def fail(
        self,
        operation: str,
        domain: str | None = None,
        words: str = "simulated failure",
        times: int = 1,
        at: float = 0.0,
    ) -> None:
        """The next ``times`` calls of an operation (on that domain; None: on whomever) are refused with those words;
        what takes long once ``at`` (0 to 1) of its bytes are moved.
        """
        with self.world.lock:
            guest = None if domain is None else self._guest(domain)
            self.world.faults.planned.append(Fault(operation, guest, words, times, at))

    def _guest(self, name: str) -> Guest:
        guest = self.world.cast.find(DomainRef(name))
        if guest is None:
            raise NoSuchDomain(f"{self.world.uri}: there is no domain {name!r}", domain=name)
        return guest


class _Nobody:
    """Who is told how a request ends that nobody else has made."""

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        pass

    def progressed(self, request: Request, progress: object) -> None:
        pass


def simulation_of(uri: str) -> Simulation:
    """The controls of the world that ``uri`` names, made if it is not there; `HypervisorError` where it names none."""
    parameters = parse(uri)
    if parameters.world is None:
        raise refusal(uri, "only a world with a name has controls: add world=NAME")
    return Simulation(world_of(uri, parameters))


def forget(name: str) -> None:
    """The world of that name is no more: its connections are lost, and the next URI that names it means a new one."""
    world = forgotten(name)
    if world is not None:
        Simulation(world).break_connections()
