"""Who asks a session of Xen's in a test, in place of eventbridge's own connection: requests and their ends."""

from __future__ import annotations

import contextlib
import threading
from time import monotonic
from typing import Any

from eventbridge import Bridge
from eventbridge.errors import EventBridgeError
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.driver import Session
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress
from tests.support.patience import PATIENCE


class Asked:
    """One request; the `eventbridge.hypervisor.request.Reply` of it, which must be called once."""

    def __init__(self, operation: str, domain: DomainRef | None, arguments: dict[str, Any], deadline: float | None):
        self.request = Request(operation, domain, arguments, self, deadline)
        self.ends: list[tuple[Any, BaseException | None]] = []
        self.progress: list[Progress] = []
        self.done = threading.Event()

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self.ends.append((value, error))
        self.done.set()

    def progressed(self, request: Request, progress: Progress) -> None:
        self.progress.append(progress)

    @property
    def error(self) -> BaseException | None:
        return self.ends[0][1] if self.ends else None

    def value(self) -> Any:
        ((value, error),) = self.ends
        if error is not None:
            raise error
        return value


class Asking:
    """A session, on a bridge that the test runs while it waits; ``events`` has what it told."""

    def __init__(self, bridge: Bridge, uri: str = "libxl:///") -> None:
        self.bridge = bridge
        self.uri = uri
        self.events: list[DomainEvent] = []
        self.session: Session = lookup.find(uri).subscribe(uri, bridge, self.events.append)

    def begin(
        self,
        operation: str,
        domain: DomainRef | int | str | None = None,
        *,
        seconds: float | None = None,
        **arguments: Any,
    ) -> Asked:
        """Without waiting; ``domain`` may be its id or its name."""
        if isinstance(domain, int):
            domain = DomainRef(None, None, domain)
        elif isinstance(domain, str):
            domain = DomainRef(domain)
        asked = Asked(operation, domain, arguments, None if seconds is None else monotonic() + seconds)
        self.session.begin(asked.request)
        return asked

    def wait(self, asked: Asked) -> Any:
        """Its value; raises its error."""
        self.until(asked.done.is_set)
        return asked.value()

    def ask(self, operation: str, domain: DomainRef | int | str | None = None, **arguments: Any) -> Any:
        return self.wait(self.begin(operation, domain, **arguments))

    def refused(self, operation: str, domain: DomainRef | int | str | None = None, **arguments: Any) -> BaseException:
        """Why."""
        asked = self.begin(operation, domain, **arguments)
        self.until(asked.done.is_set)
        assert asked.error is not None, f"{asked.request!r} was done"
        return asked.error

    def until(self, happened: Any) -> None:
        # A timeout of its own makes passes, after which it is looked at what a worker has made true.
        tick = self.bridge.add_timeout(5, lambda id, opaque: None)
        try:
            assert self.bridge.run(until=happened, timeout=PATIENCE), f"it did not happen within {PATIENCE} s"
        finally:
            with contextlib.suppress(EventBridgeError):  # the bridge is closed by what was waited for
                self.bridge.remove_timeout(tick)

    def settle(self) -> None:
        """A few passes more, for what must not come."""
        self.bridge.run(timeout=0.02)

    def told(self) -> list[str]:
        return [str(event) for event in self.events]

    def expect(self, *lines: str) -> None:
        """Exactly these events; and no more come."""
        self.until(lambda: len(self.events) >= len(lines))
        self.settle()
        assert self.told() == list(lines)
