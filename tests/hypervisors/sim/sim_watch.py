"""A bridge with one simulated hypervisor on it, for a test to watch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim.driver import driver
from eventbridge.connection.inventory import Known
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.hypervisor.model import DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress
from tests.support.patience import PATIENCE


def story_of(events: list[DomainEvent]) -> list[tuple[Any, ...]]:
    """What must be the same wherever it is told."""
    return [
        (event.sequence, event.kind, event.reason, event.domain.name, event.domain.uuid, event.domain.id)
        for event in events
        if event.domain is not None
    ]


class Asked:
    """What was asked, and what became of it; ``asked()`` is the answer, or raises the error."""

    def __init__(self, operation: str, domain: DomainRef | None, arguments: dict[str, Any]) -> None:
        self.request = Request(operation, domain, arguments, self)
        self.outcomes: list[tuple[Any, BaseException | None]] = []
        self.progress: list[Progress] = []
        self.threads: set[int] = set()

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self.outcomes.append((value, error))
        self.threads.add(threading.get_ident())

    def progressed(self, request: Request, progress: Progress) -> None:
        self.progress.append(progress)

    @property
    def done(self) -> bool:
        return bool(self.outcomes)

    def __call__(self) -> Any:
        ((value, error),) = self.outcomes
        if error is not None:
            raise error
        return value


@dataclass
class Watched:
    """A bridge with one simulation on it."""

    bridge: Bridge
    uri: str
    emit: Callable[[DomainEvent], None] | None = None
    events: list[DomainEvent] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def open(self) -> None:
        self.subscription = driver.subscribe(self.uri, self.bridge, self.emit or self.events.append)

    def connect(self, query: str) -> Watched:
        """Another simulation on the same bridge: the test's to disconnect."""
        other = Watched(self.bridge, f"sim:///default?{query}", errors=self.errors)
        other.open()
        return other

    def disconnect(self) -> None:
        self.subscription.close()

    def ask(self, operation: str, domain: str | DomainRef | None = None, **arguments: Any) -> Asked:
        """Begin it."""
        ref = DomainRef(domain) if isinstance(domain, str) else domain
        asked = Asked(operation, ref, arguments)
        self.subscription.begin(asked.request)
        return asked

    def answer(self, operation: str, domain: str | DomainRef | None = None, **arguments: Any) -> Any:
        """Ask, and run the loop until it is answered."""
        asked = self.ask(operation, domain, **arguments)
        self.wait(lambda: asked.done)
        return asked()

    def wait(self, condition: Callable[[], bool]) -> None:
        until = monotonic() + PATIENCE
        while not condition():  # run() also ends where somebody else has stopped it
            assert monotonic() < until, f"not so, with {self.events[-5:]}, {self.errors[:3]}"
            self.bridge.run(until=condition, timeout=PATIENCE)

    def settle(self) -> dict[str, DomainInfo]:
        """Run the loop until all that has happened is told; the domains by name, as ``list`` answers."""
        world = self.subscription.world
        self.wait(lambda: self.subscription.told == world.cast.number)
        return {info.domain.name: info for info in self.answer("list")}

    def folded(self, before: list[DomainInfo] | None = None) -> dict[str, tuple[Any, ...]]:
        """What the events imply of each domain."""
        known = Known()
        for info in before or []:
            known.learn(info)
        for event in self.events:
            known.apply(event)
        return {domain.ref.name: (domain.ref, domain.state, domain.persistent) for domain in known}

    def kinds(self, name: str) -> list[tuple[str, str | None]]:
        """What was told of a domain."""
        return [(str(e.kind), e.reason) for e in self.events if e.domain is not None and e.domain.name == name]

    def until(self, count: int) -> None:
        self.bridge.run(until=lambda: len(self.events) >= count, timeout=PATIENCE)
        assert len(self.events) >= count, f"{len(self.events)} events of {count}, errors: {self.errors[:3]}"

    def close(self) -> None:
        self.subscription.close()
        self.bridge.run(until=self.bridge.is_empty, timeout=PATIENCE)
        assert self.bridge.is_empty()
        self.bridge.close()

    def run_beside(self, other: Callable[[], None]) -> None:
        """Run the loop here until ``other()``, in a thread, has returned."""
        over = threading.Event()

        def run() -> None:
            try:
                other()
            finally:
                over.set()
                self.bridge.stop()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert self.bridge.run(until=over.is_set, timeout=PATIENCE)
        thread.join()


def listed(domains: dict[str, DomainInfo]) -> dict[str, tuple[Any, ...]]:
    """As `Watched.folded` shows them."""
    return {name: (info.domain, info.state, info.persistent) for name, info in domains.items()}
