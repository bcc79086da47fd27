"""Opening and closing on threads of their own, told on the loop's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from eventbridge import Bridge
from eventbridge.cli.connections import Sources
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Emit
from tests.support.patience import PATIENCE


class Told:
    """A listener that notes what it is told, and on which thread."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.threads: set[int] = set()

    def _note(self, what: str) -> None:
        self.told.append(what)
        self.threads.add(threading.get_ident())

    def opened(self, uri: str) -> None:
        self._note(f"opened {uri}")

    def failed(self, uri: str, error: Exception) -> None:
        self._note(f"failed {uri}: {error}")

    def slow(self, uri: str) -> None:
        self._note(f"slow {uri}")

    def event(self, event: DomainEvent) -> None:
        self._note(str(event))


class Gated:
    """A driver whose ``subscribe`` waits to be let through; ``log`` says what was done, and whether on the loop."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.log: list[str] = []
        self.closed = threading.Event()

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> Gated:
        self.gate.wait(PATIENCE)
        if uri == "b:///":
            raise OSError("out of luck")
        self.log.append(f"subscribe on {threading.current_thread().name}")
        return self

    def close(self) -> None:
        self.log.append(f"close on {threading.current_thread().name}")
        self.closed.set()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gated]:
    driver = Gated()
    monkeypatch.setattr(lookup, "find", lambda uri: driver)
    yield driver
    driver.gate.set()


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge("select") as bridge:
        yield bridge


def run_until(bridge: Bridge, condition: Callable[[], bool]) -> None:
    assert bridge.run(until=condition, timeout=PATIENCE)


def test_opening_and_closing_are_never_on_the_loops_thread_and_are_told_there(bridge: Bridge, driver: Gated) -> None:
    told = Told()
    sources = Sources(bridge, told)
    driver.gate.set()
    sources.start(["a:///"])
    run_until(bridge, lambda: bool(told.told))
    assert (told.told, set(sources.open), sources.opening) == (["opened a:///"], {"a:///"}, {})
    sources.close(PATIENCE)
    assert driver.log == ["subscribe on open a:///", "close on close a:///"]
    assert told.threads == {threading.get_ident()}
    assert (sources.open, sources.closing) == ({}, set())
    run_until(bridge, bridge.is_empty)


def test_one_that_fails_is_told_and_leaves_nothing(bridge: Bridge, driver: Gated) -> None:
    told = Told()
    sources = Sources(bridge, told)
    driver.gate.set()
    sources.start(["b:///"])
    run_until(bridge, lambda: bool(told.told))
    assert (told.told, sources.open, sources.opening) == (["failed b:///: out of luck"], {}, {})
    assert driver.log == []
    sources.close(PATIENCE)
    run_until(bridge, bridge.is_empty)


def test_one_that_opens_only_after_all_is_closed_is_closed_again_and_not_told(bridge: Bridge, driver: Gated) -> None:
    told = Told()
    sources = Sources(bridge, told)
    sources.start(["a:///"])
    sources.close(PATIENCE)
    assert (sources.opening, sources.closing) == ({}, set())
    driver.gate.set()
    assert driver.closed.wait(PATIENCE)
    bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert (told.told, sources.open) == ([], {})


def test_one_that_opens_only_after_the_bridge_is_closed_is_closed_again(bridge: Bridge, driver: Gated) -> None:
    sources = Sources(bridge, Told())
    sources.start(["a:///"])
    bridge.close()
    driver.gate.set()
    assert driver.closed.wait(PATIENCE)
