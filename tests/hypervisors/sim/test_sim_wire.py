"""How a happening travels: nothing is lost, whatever the fd does."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim import wire
from eventbridge.adapters.hypervisors.sim.population import Cast
from eventbridge.adapters.hypervisors.sim.scenario import Story
from eventbridge.adapters.hypervisors.sim.wire import RECORD, Channel, decode, encode
from eventbridge.hypervisor.events import DomainEvent

MAKERS = {"pipe": Channel.pipe, "socketpair": Channel.socketpair}


@pytest.fixture(params=MAKERS)
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    made = MAKERS[request.param]()
    yield made
    made.close()


def happenings(count: int) -> list:
    story = Story(1, Cast(1, 5, 1), lambda guest: 0, count)
    return [story.take(count) for _ in range(count)]


def test_a_record_says_all_of_a_happening() -> None:
    """Encoded and decoded it is the same."""
    sent = happenings(200)
    assert decode(b"".join(map(encode, sent))) == sent


def test_a_full_fd_loses_nothing(channel: Channel) -> None:
    """What does not fit waits, in order, also within a record."""
    sent = happenings(20_000)
    for happening in sent:
        channel.send(encode(happening))
    assert channel.blocked
    received = []
    while channel.blocked or len(received) < len(sent):
        arrived = channel.receive()
        assert arrived, "blocked, and nothing to read"
        received += arrived
        channel.flush()
    assert received == sent
    assert channel.receive() == []


def test_a_record_may_arrive_in_pieces(channel: Channel) -> None:
    """A read that ends within a record keeps the piece."""
    sent = happenings(300)
    data = b"".join(map(encode, sent))
    pieces = random.Random(1)
    received = []
    while data:
        length = pieces.randrange(1, 2 * RECORD.size)
        os.write(channel.writer, data[:length])
        data = data[length:]
        received += channel.receive()
    assert received == sent


def test_a_pipe_that_is_full_is_waited_for(watch: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback model's writable handle is there while a pipe is full, then gone; nothing is lost."""

    def small() -> Channel:
        made = pipe()
        fcntl.fcntl(made.writer, fcntl.F_SETPIPE_SZ, 4096)
        return made

    pipe, waits = Channel.pipe, []
    add_handle = Bridge.add_handle

    def noting(self: Bridge, fd: int, events: int, *rest: object, **named: object) -> int:
        waits.extend([fd] if events == 2 else [])
        return add_handle(self, fd, events, *rest, **named)

    monkeypatch.setattr(wire.Channel, "pipe", staticmethod(small))
    monkeypatch.setattr(Bridge, "add_handle", noting)

    def held_up(event: DomainEvent) -> None:
        watched.events.append(event)
        until = monotonic() + 0.01
        while len(watched.events) == 1 and monotonic() < until:
            pass  # a loop that is late: the guest goes on, a thousand records further

    watched = watch("domains=1&rate=100000&events=5000", emit=held_up)
    watched.until(5000)
    assert waits, "4 KiB were never full"
    assert [event.sequence for event in watched.events] == list(range(1, 5001))
    assert watched.bridge.stats().handles == 1
    assert not watched.errors
