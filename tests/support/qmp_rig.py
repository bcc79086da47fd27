"""A bridge with QMP sessions on it, as a test holds them: requests are asked and answered while the loop runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.qmp import QmpDriver
from eventbridge.adapters.hypervisors.qmp.session import QmpSession
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from tests.support.patience import PATIENCE


class Asked:
    """One request, and what became of it."""

    def __init__(self, rig: Rig, operation: str, domain: DomainRef | None, arguments: dict[str, Any]) -> None:
        self.request = Request(operation, domain, arguments, self)
        self.answers: list[tuple[Any, BaseException | None]] = []
        self.progress: list[Any] = []
        self.on_progress: Callable[[Any], object] = lambda progress: None
        self._rig = rig

    @property
    def done(self) -> bool:
        return bool(self.answers)

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self.answers.append((value, error))

    def progressed(self, request: Request, progress: Any) -> None:
        self.progress.append(progress)
        self.on_progress(progress)

    def value(self) -> Any:
        """What it is answered with, or the error that it is refused with, raised; the loop runs until then."""
        self._rig.until(lambda: self.done)
        value, error = self.answers[0]
        if error is not None:
            raise error
        return value

    def error(self) -> BaseException:
        """That it is refused with."""
        self._rig.until(lambda: self.done)
        error = self.answers[0][1]
        assert error is not None, f"it was answered: {self.answers[0][0]}"
        return error


class Opened:
    """A session, and what it has told."""

    def __init__(self, rig: Rig, uri: str, driver: QmpDriver) -> None:
        self._rig = rig
        self.events: list[DomainEvent] = []
        self.on_event: Callable[[DomainEvent], object] = lambda event: None
        self.session: QmpSession = driver.subscribe(uri, rig.bridge, self._emit)

    def _emit(self, event: DomainEvent) -> None:
        self.events.append(event)
        self.on_event(event)

    @property
    def story(self) -> list[str]:
        """The events in words."""
        return [f"{event.kind}" if event.reason is None else f"{event.kind} {event.reason}" for event in self.events]

    @property
    def said(self) -> list[str]:
        """The story, without how the jobs get on."""
        return [words for words in self.story if not words.startswith("job_")]

    def begin(self, operation: str, domain: DomainRef | None = None, **arguments: Any) -> Asked:
        asked = Asked(self._rig, operation, domain, arguments)
        self.session.begin(asked.request)
        return asked

    def ask(self, operation: str, domain: DomainRef | None = None, **arguments: Any) -> Any:
        return self.begin(operation, domain, **arguments).value()

    def told(self, words: str) -> None:
        """Run until that has been."""
        self._rig.until(lambda: words in self.story, lambda: self.story)


class Rig:
    """A bridge on ``host``."""

    def __init__(self, host: str) -> None:
        self.errors: list[BaseException] = []
        self.bridge = Bridge(host, on_error=lambda error, context: self.errors.append(error))
        self.opened: list[Opened] = []

    def open(self, uri: str, driver: QmpDriver | None = None) -> Opened:
        self.opened.append(Opened(self, uri, driver or QmpDriver(open_seconds=PATIENCE)))
        return self.opened[-1]

    def until(self, condition: Callable[[], bool], found: Callable[[], object] = lambda: "") -> None:
        """Run the loop until it is so."""
        # A timeout of its own makes passes, for conditions that no pass of ours makes true.
        tick = self.bridge.add_timeout(5, lambda id, opaque: None)
        try:
            assert self.bridge.run(until=condition, timeout=PATIENCE), f"it did not come true: {found()} {self.errors}"
        finally:
            self.bridge.remove_timeout(tick)

    def beside(self, other: Callable[[], object]) -> Any:
        """Run the loop until ``other()``, on a thread of its own, has returned; what it returned or raised."""
        results: list[Any] = []

        def run() -> None:
            try:
                results.append((other(), None))
            except BaseException as error:
                results.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.until(lambda: bool(results))
        thread.join(PATIENCE)
        value, error = results[0]
        if error is not None:
            raise error
        return value

    def passes(self, count: int = 3) -> None:
        """Let the loop run through whatever is due."""
        before = self.bridge.stats().passes
        self.until(lambda: self.bridge.stats().passes >= before + count)

    def close(self) -> None:
        """Nothing of it is left: no handle, no timeout, no error."""
        for opened in self.opened:
            opened.session.close()
        assert self.bridge.run(until=self.bridge.is_empty, timeout=PATIENCE)
        self.bridge.close()
        assert not self.errors
