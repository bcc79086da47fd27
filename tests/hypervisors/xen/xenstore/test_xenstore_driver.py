"""``xenstore:///``: the domains of a Xen host by xenstored's watches alone, on each host loop.

Over the real xenstored on the hypercall stand-in, through libxenstore (no path in the URI) and by the wire protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from store_rig import PATIENCE, wait_until

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.store_driver.driver import driver
from eventbridge.adapters.hypervisors.xen.store_driver.toolstack import REQUESTS, XenstoreToolstack
from eventbridge.adapters.hypervisors.xen.xenstore.store import Watched
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent
from tests.support.command import environment, running
from tests.support.descriptors import open_fds
from tests.support.xen.peers import as_nobody
from tests.support.xen.standin import CRASH, REBOOT, XenStandIn

HOSTS = ("asyncio", "libuv", "select")
WAYS = ("xenstore:///", "xenstore://{socket}")


class Scene:
    """One subscription, and what it told."""

    def __init__(self, xen: XenStandIn, bridge: Bridge, way: str) -> None:
        self.xen = xen
        self.bridge = bridge
        self.uri = way.format(socket=xen.socket)
        self.events: list[DomainEvent] = []
        self.handled: list[str] = []
        self.mailbox = Mailbox(bridge)
        self.subscription = driver.subscribe(self.uri, bridge, self.events.append)

    def told(self) -> list[str]:
        return [str(event) for event in self.events]

    def expect(self, *lines: str) -> None:
        """Exactly these, numbered without a gap; and nothing more comes."""
        self.bridge.run(until=lambda: len(self.events) >= len(lines), timeout=PATIENCE)
        self.bridge.run(timeout=0.02)
        assert self.told() == list(lines)
        assert [event.sequence for event in self.events] == list(range(1, len(lines) + 1))
        assert {event.source for event in self.events} <= {self.uri}

    def request(self, domid: int, request: str) -> None:
        """A toolstack's, and the guest sets about it: not before it is seen here, for nothing is left of it then."""
        path = f"/local/domain/{domid}/control/shutdown"
        self.until_handled(path, 1)  # as every watch it fires once at once
        for value in (request, ""):
            count = self.handled.count(path)
            self.xen.write(path, value)
            self.until_handled(path, count + 1)

    def until_handled(self, path: str, count: int) -> None:
        assert self.bridge.run(until=lambda: self.handled.count(path) >= count, timeout=PATIENCE)


@pytest.fixture(params=HOSTS)
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    errors: list[BaseException] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append(error)) as bridge:
        bridge.run(timeout=0.001)  # libuv's first loop opens fds that stay
        yield bridge
    assert errors == []


@pytest.fixture(params=WAYS, ids=["libxenstore", "wire"])
def scene(
    request: pytest.FixtureRequest, xen: XenStandIn, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    fds, threads = open_fds(), threading.active_count()
    xen.create(1, "first")
    fired = XenstoreToolstack.fired

    def noting(toolstack: XenstoreToolstack, watched: Watched) -> None:
        fired(toolstack, watched)
        scene.mailbox.put(lambda: scene.handled.append(watched.path))

    monkeypatch.setattr(XenstoreToolstack, "fired", noting)
    scene = Scene(xen, bridge, request.param)
    yield scene
    scene.subscription.close()
    scene.mailbox.close()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    if xen.xenstored.poll() is not None:
        xen.restart()
    wait_until(lambda: threading.active_count() == threads)
    wait_until(lambda: open_fds() == fds)


def test_the_story_of_some_domains(scene: Scene) -> None:
    """Those that were there are not started; each end is told once, with what its guest did where that is known."""
    xen = scene.xen
    web = xen.create(7, "web")
    scene.expect("web started")
    assert scene.events[0].domain.to_json() == {"name": "web", "uuid": str(web.uuid), "id": 7}
    scene.request(7, "poweroff")
    xen.shutdown(7)
    scene.expect("web started")  # the guest has stopped; that it was this one nobody knows before its end
    xen.die(7)
    told = ["web started", "web shutdown (guest)", "web stopped (shutdown)"]
    scene.expect(*told)
    xen.shutdown(1, reason=CRASH)
    xen.die(1, forget=False)  # its nodes are left over
    scene.expect(*told, "first stopped (destroyed)")


@pytest.mark.parametrize(
    ("request_", "events"),
    [
        ("halt", ["first shutdown (guest)", "first stopped (shutdown)"]),
        ("reboot", ["first rebooted", "first stopped (shutdown)"]),
        ("suspend", ["first suspended (guest)", "first stopped (saved)"]),
        ("crash", ["first crashed", "first stopped (crashed)"]),
        ("dance", ["first stopped (destroyed)"]),
    ],
)
def test_what_a_guest_was_asked_and_did_is_told_at_its_end(scene: Scene, request_: str, events: list[str]) -> None:
    assert (request_.encode() in REQUESTS) == (len(events) == 2)
    scene.request(1, request_)
    scene.xen.die(1)
    scene.expect(*events)


def test_what_a_guest_did_is_read_once_more_at_its_end(scene: Scene) -> None:
    """The watch on it is late, and the domain's nodes are left."""
    path = "/local/domain/1/control/shutdown"
    scene.until_handled(path, 1)
    scene.xen.write(path, "poweroff")
    scene.until_handled(path, 2)
    scene.subscription.lookout.on_watch = lambda watched: None
    scene.xen.write(path, "")
    scene.xen.die(1, forget=False)
    scene.expect("first shutdown (guest)", "first stopped (shutdown)")


def test_a_request_that_the_guest_never_took_up_is_not_told(scene: Scene) -> None:
    """Nor one before that: it had gone on since."""
    scene.request(1, "suspend")
    count = scene.handled.count(path := "/local/domain/1/control/shutdown")
    scene.xen.write(path, "poweroff")
    scene.until_handled(path, count + 1)
    scene.xen.die(1)
    scene.expect("first stopped (destroyed)")


def test_a_domain_whose_nodes_are_removed_ends_when_it_ends(scene: Scene) -> None:
    """A toolstack removes them first, one after another; it lives until xenstored is told otherwise."""
    scene.xen.rm("/local/domain/1/vm")
    scene.xen.create(7, "web")
    scene.expect("web started")
    scene.xen.rm("/local/domain/1")
    scene.xen.create(8, "mail")
    scene.expect("web started", "mail started")
    scene.xen.die(1)
    scene.expect("web started", "mail started", "first stopped (destroyed)")


def test_a_domid_that_is_used_again_is_two_domains(scene: Scene) -> None:
    """Told apart by their UUIDs, though xenstored says the same of both."""
    scene.request(1, "reboot")
    scene.xen.die(1)
    scene.xen.create(1, "second")
    scene.expect("first rebooted", "first stopped (shutdown)", "second started")
    scene.xen.die(1)
    scene.expect("first rebooted", "first stopped (shutdown)", "second started", "second stopped (destroyed)")


def test_a_hundred_domains_come_and_go_and_each_is_told_once(scene: Scene) -> None:
    scene.xen.create_many(range(10, 110))
    scene.bridge.run(until=lambda: len(scene.events) >= 100, timeout=PATIENCE)
    scene.xen.shutdown(*range(10, 60), reason=REBOOT)
    scene.xen.die(*range(10, 110))
    scene.bridge.run(until=lambda: len(scene.events) >= 200, timeout=PATIENCE)
    scene.bridge.run(timeout=0.02)
    told = scene.told()
    assert sorted(told[:100]) == sorted(f"guest{domid} started" for domid in range(10, 110))
    assert sorted(told[100:]) == sorted(f"guest{domid} stopped (destroyed)" for domid in range(10, 110))


def test_a_killed_xenstored_is_told_once_within_two_seconds_and_costs_nothing_after(scene: Scene) -> None:
    """One connection_lost, no busy loop; and a new connection works when it is back."""
    scene.bridge.run(timeout=0.02)
    scene.xen.kill()
    assert scene.bridge.run(until=lambda: bool(scene.events), timeout=PATIENCE)
    passes = scene.bridge.stats().passes
    scene.bridge.run(timeout=1.2)  # longer than from one probe to the next
    assert scene.bridge.stats().passes - passes < 20
    scene.expect("- connection_lost (eof)")
    scene.xen.restart()
    again = Scene(scene.xen, scene.bridge, scene.uri)
    scene.xen.die(1)
    again.expect("first stopped (destroyed)")
    again.subscription.close()
    again.mailbox.close()
    scene.expect("- connection_lost (eof)")


def test_a_frozen_xenstored_holds_up_neither_the_loop_nor_the_close(scene: Scene) -> None:
    """The lookout's worker waits; all else goes on, and what happened is told when it thaws."""
    ticks: list[int] = []
    scene.bridge.add_timeout(1, lambda id, opaque: ticks.append(id))
    scene.xen.create(7, "web")
    scene.xen.freeze()
    try:
        assert scene.bridge.run(until=lambda: len(ticks) >= 50, timeout=PATIENCE)
    finally:
        scene.xen.thaw()
    scene.expect("web started")
    scene.xen.die(7)
    scene.xen.freeze()
    try:
        scene.bridge.run(timeout=0.02)
        scene.subscription.close()
    finally:
        scene.xen.thaw()
    told = len(scene.events)
    scene.bridge.run(timeout=0.02)
    assert len(scene.events) == told, "after close"
    scene.bridge.remove_timeout(ticks[0])


def test_the_scheme_finds_it_and_it_says_what_it_speaks_through(
    xen: XenStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lookup.find("xenstore:///") is driver
    assert lookup.find("xenstore:///run/xenstored/socket") is driver
    assert driver.version() == "libxenstore.so.4"
    monkeypatch.setenv("EVENTBRIDGE_LIBXENSTORE", "/nonexistent")
    assert driver.version() == "the wire protocol, without libxenstore"


@pytest.mark.parametrize(
    "uri", ["xenstore://host/", "xenstore:///?a=b", "xenstore:", "xenstore:relative", "xenstore:///#x"]
)
def test_what_is_not_understood_is_one_clear_error(uri: str) -> None:
    with Bridge("select") as bridge:
        with pytest.raises(HypervisorError, match="write xenstore:/// for this machine's") as caught:
            driver.subscribe(uri, bridge, lambda event: None)
        assert bridge.is_empty()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_opened_leaves_nothing(xen: XenStandIn, way: str) -> None:
    uri = way.format(socket=xen.socket)
    with Bridge("select") as bridge:
        driver.subscribe(uri, bridge, lambda event: None).close()
        bridge.run(until=bridge.is_empty, timeout=PATIENCE)
        fds, threads = open_fds(), threading.active_count()
        with as_nobody(xen.socket), pytest.raises(HypervisorError, match="no permission"):
            driver.subscribe(uri, bridge, lambda event: None)
        xen.kill()
        with pytest.raises((HypervisorError, ConnectionLost), match="is xenstored running"):
            driver.subscribe(uri, bridge, lambda event: None)
        assert bridge.is_empty()
        xen.restart()
        assert (open_fds(), threading.active_count()) == (fds, threads)


@pytest.mark.parametrize("loop", HOSTS)
def test_the_command_watches_it(xen: XenStandIn, loop: str) -> None:
    """``eventbridge watch xenstore:///``, its JSON, and what it says when xenstored goes."""
    with running("watch", "xenstore:///", "--loop", loop, "--json", env=environment(**xen.environment)) as watch:
        watch.until("xenstore:///")
        web = xen.create(7, "web")
        (started,) = map(json.loads, watch.shows(1))
        assert (started["kind"], started["domain"]) == ("started", {"name": "web", "uuid": str(web.uuid), "id": 7})
        xen.die(7)
        (stopped,) = map(json.loads, watch.shows(1))
        assert (stopped["kind"], stopped["reason"], stopped["sequence"]) == ("stopped", "destroyed", 2)
        xen.kill()
        (lost,) = map(json.loads, watch.shows(1))
        assert (lost["kind"], lost["domain"], lost["source"]) == ("connection_lost", None, "xenstore:///")


def test_the_command_says_in_one_line_what_is_wrong(xen: XenStandIn) -> None:
    xen.kill()
    with running("watch", "xenstore:///", env=environment(**xen.environment)) as watch:
        code, out, err = watch.ends()
    assert code != 0
    assert out == ""
    assert "is xenstored running" in err
    assert "Traceback" not in err
