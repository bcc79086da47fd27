"""The direct-fd model: a source is polled for what it wishes, drained, and called at its deadline."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from eventbridge import Bridge, Events, UnknownHandle
from eventbridge.testing import SteppingHost


class Pipe:
    """A DirectSource over a pipe, that says what happened to it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.wishes = int(Events.READABLE)
        self.due: float | None = None
        self.happened: list[Any] = []
        self.then: Any = None

    def fileno(self) -> int:
        return self.reader

    def events(self) -> int:
        return self.wishes

    def deadline(self) -> float | None:
        return self.due

    def drain(self, events: int) -> None:
        self.happened.append(events)
        if events & Events.READABLE:
            os.read(self.reader, 100)
        else:
            self.due = None
        if self.then is not None:
            self.then()

    def detached(self) -> None:
        self.happened.append("detached")
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def host() -> SteppingHost:
    return SteppingHost()


@pytest.fixture
def bridge(host: SteppingHost) -> Any:
    with Bridge(host) as bridge:
        yield bridge
    host.step_until_idle()


def test_a_ready_source_is_drained(bridge: Bridge, host: SteppingHost) -> None:
    source = Pipe()
    bridge.add_source(source)
    host.step_until_idle()
    assert not source.happened
    os.write(source.writer, b"x")
    host.step_until_idle()
    assert source.happened == [Events.READABLE]
    bridge.remove_source(source)


def test_a_source_is_called_at_its_deadline_and_not_before(bridge: Bridge, host: SteppingHost) -> None:
    """T3."""
    source = Pipe()
    source.due = time.monotonic() + 0.005
    due = source.due
    bridge.add_source(source)
    while not source.happened:
        host.step(1)
    assert source.happened == [0]
    assert time.monotonic() >= due
    host.step_until_idle()
    assert source.happened == [0]


def test_wishes_that_change_in_a_drain_are_taken(bridge: Bridge, host: SteppingHost) -> None:
    source = Pipe()

    def no_more() -> None:
        source.wishes = 0

    source.then = no_more
    bridge.add_source(source)
    os.write(source.writer, b"x")
    host.step_until_idle()
    os.write(source.writer, b"y")
    host.step_until_idle()
    assert source.happened == [Events.READABLE]
    source.wishes = int(Events.READABLE)
    bridge.update_source(source)
    host.step_until_idle()
    assert source.happened == [Events.READABLE] * 2


def test_a_source_is_told_once_when_it_is_detached(bridge: Bridge, host: SteppingHost) -> None:
    source = Pipe()
    source.due = time.monotonic() + 3600
    bridge.add_source(source)
    bridge.remove_source(source)
    host.step_until_idle()
    assert source.happened == ["detached"]
    assert bridge.is_empty()
    with pytest.raises(UnknownHandle):
        bridge.remove_source(source)


def test_a_source_may_remove_itself_in_its_drain(bridge: Bridge, host: SteppingHost) -> None:
    source = Pipe()
    source.then = lambda: bridge.remove_source(source)
    bridge.add_source(source)
    os.write(source.writer, b"x")
    host.step_until_idle()
    assert source.happened == [Events.READABLE, "detached"]
    assert not host.reported


def test_closing_the_bridge_detaches_every_source(host: SteppingHost) -> None:
    bridge, sources = Bridge(host), [Pipe(), Pipe()]
    for source in sources:
        bridge.add_source(source)
    bridge.close()
    assert [source.happened for source in sources] == [["detached"], ["detached"]]


def test_the_same_source_twice_is_refused(bridge: Bridge) -> None:
    source = Pipe()
    bridge.add_source(source)
    with pytest.raises(ValueError, match="already"):
        bridge.add_source(source)
    assert bridge.stats().handles == 1


def test_a_wish_that_was_asked_for_earlier_does_not_undo_a_later_one(bridge: Bridge, host: SteppingHost) -> None:
    """D6: the loop asks after a drain, while another thread changes what is wished and says so."""
    source = Pipe()
    bridge.add_source(source)
    asked: list[int] = []

    def deadline() -> float | None:
        asked.append(1)
        if len(asked) == 1:  # the loop's own look: before it is done, the wish changes, and is told of
            bridge.update_source(source)
            return None
        return time.monotonic()

    source.deadline = deadline  # type: ignore[method-assign]  # a stand-in for a thread at the worst moment
    os.write(source.writer, b"x")
    host.step()
    assert host.step_until(lambda: 0 in source.happened, 10), "the deadline that was told of is lost"
    bridge.remove_source(source)
