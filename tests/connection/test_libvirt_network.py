"""A bad network before libvirt's daemon: whatever it does, the connection is found again and knows the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from eventbridge import Backoff, Bridge, Connection
from eventbridge.errors import ConnectionLost, EventBridgeError
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobTimeout
from tests.support import wanted
from tests.support.libvirtd import Libvirtd, private_libvirtd
from tests.support.patience import PATIENCE
from tests.support.proxy import Proxy, proxied

pytestmark = pytest.mark.libvirt

libvirt = wanted.module("libvirt")


@pytest.fixture
def daemon() -> Iterator[Libvirtd]:
    with private_libvirtd() as daemon:
        yield daemon


@pytest.fixture
def proxy(daemon: Libvirtd) -> Iterator[Proxy]:
    with proxied(("127.0.0.1", daemon.port)) as proxy:
        yield proxy


class Far:
    """A connection through the proxy; ``behind`` is one of libvirt's own that has none in between."""

    def __init__(self, host: str, proxy: Proxy, daemon: Libvirtd) -> None:
        assert isinstance(proxy.address, tuple)
        self.bridge = Bridge(host)
        self.uri = f"test+tcp://127.0.0.1:{proxy.address[1]}/default"
        self.connection = Connection(self.uri, self.bridge, reconnect=Backoff(first=0.01, most=0.05))
        self.events: list[DomainEvent] = []
        self.connection.subscribe(self.events.append)
        self.until(lambda: self.connection.opened.done)
        self.connection.opened.result()
        self.behind = libvirt.open(daemon.unix_uri).lookupByName("test")

    def until(self, happened: Callable[[], bool]) -> None:
        assert self.bridge.run(until=happened, timeout=PATIENCE), f"it did not happen: {self.connection} {self.told()}"

    def told(self) -> list[str]:
        return [f"{event}{' *' if event.synthetic else ''}" for event in self.events]

    def count(self, kind: Kind) -> int:
        return sum(event.kind is kind for event in self.events)

    def knows(self, running: bool) -> bool:
        """And by its stream alone?"""
        (known,) = self.connection.known
        told = [event.kind for event in self.events if event.kind in (Kind.SUSPENDED, Kind.RESUMED)]
        return (known.state is State.RUNNING) is running and (told[-1:] != [Kind.SUSPENDED]) is running

    def close(self) -> None:
        closed = self.connection.close()
        self.until(lambda: closed.done)
        self.bridge.close()


@pytest.fixture(params=["asyncio", "libuv", "select"])
def far(request: pytest.FixtureRequest, proxy: Proxy, daemon: Libvirtd) -> Iterator[Far]:
    far = Far(request.param, proxy, daemon)
    yield far
    far.close()


def test_what_happened_while_the_network_was_cut_is_told(far: Far, proxy: Proxy) -> None:
    proxy.refuses = True
    proxy.cut()
    far.until(lambda: far.count(Kind.CONNECTION_LOST) == 1)
    far.behind.suspend()
    proxy.refuses = False
    far.until(lambda: far.count(Kind.CONNECTION_RESTORED) == 1)
    assert far.told()[1:] == ["test suspended (inferred) *", "- connection_restored"]


def test_every_cut_in_mid_word_is_survived(far: Far, proxy: Proxy) -> None:
    """Each time so many bytes more get through."""
    for number in range(12):
        proxy.lets_through = 40 + 61 * number
        call = far.connection.domains()
        far.until(lambda call=call: call.done)  # type: ignore[misc]
        (far.behind.suspend if number % 2 == 0 else far.behind.resume)()
        proxy.lets_through = None
        proxy.cut()
        running = far.behind.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        far.until(lambda running=running: far.knows(running))  # type: ignore[misc]
    far.until(lambda: far.count(Kind.CONNECTION_LOST) == far.count(Kind.CONNECTION_RESTORED) > 3)
    assert [event.sequence for event in far.events] == list(range(1, len(far.events) + 1))


def test_a_slow_network_is_waited_for_up_to_the_deadline(far: Far, proxy: Proxy) -> None:
    (known,) = far.connection.known
    proxy.delay = 0.02
    patient, hasty = far.connection.ask("info", known.ref), far.connection.ask("info", known.ref, seconds=0.01)
    far.until(lambda: patient.done and hasty.done)
    assert patient.error is None
    assert isinstance(hasty.error, JobTimeout)
    proxy.delay = 0


def test_a_network_that_says_nothing_costs_the_calls_alone(far: Far, proxy: Proxy) -> None:
    (known,) = far.connection.known
    proxy.frozen = True
    call = far.connection.ask("info", known.ref, seconds=0.1)
    far.until(lambda: call.done)
    assert isinstance(call.error, JobTimeout | ConnectionLost)
    proxy.frozen = False
    again = far.connection.ask("list")
    far.until(lambda: again.done)
    assert again.error is None or isinstance(again.error, EventBridgeError)
