"""One subscription of a Xen host: what xenstored announces and a toolstack knows, joined, whatever falls between.

Over scripted stand-ins, for the moment at which things happen is the subject; the real libraries are met in the
adapters' own tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from scripted import ScriptedStore, ScriptedToolstack

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.domain_watcher import Facts, Lookout, Seen, Toolstack
from eventbridge.adapters.hypervisors.xen.xenstore.store import INTRODUCED, RELEASED
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.events import DomainEvent
from tests.support.patience import PATIENCE

URI = "libxl:///"
POWEROFF, SUSPEND, CRASH = 0, 2, 3


class Scene:
    """A lookout over stand-ins, on a bridge of its own."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.events: list[DomainEvent] = []
        self.store = ScriptedStore()
        self.toolstack: ScriptedToolstack
        self.before: list[int] = []
        self.lookout: Lookout | None = None

    def open(self) -> Lookout:
        self.lookout = Lookout.open(URI, self.bridge, self.events.append, self.store, self._open_toolstack)
        return self.lookout

    def _open_toolstack(self, uri: str, bridge: Bridge, facts: Facts) -> Toolstack:
        self.toolstack = ScriptedToolstack(facts, self.store)
        for domid in self.before:
            self.toolstack.create(domid)
        return self.toolstack

    def told(self) -> list[str]:
        return [str(event) for event in self.events]

    def until_another_thread(self, has_done: Callable[[], bool]) -> None:
        """The loop runs until then; as nobody wakes it for that, it looks for itself."""
        looking = self.bridge.add_timeout(1, lambda id, opaque: None)
        assert self.bridge.run(until=has_done, timeout=PATIENCE)
        self.bridge.remove_timeout(looking)

    def expect(self, *lines: str) -> None:
        """Exactly these, numbered without a gap; and nothing more comes."""
        self.bridge.run(until=lambda: len(self.events) >= len(lines), timeout=PATIENCE)
        self.bridge.run(timeout=0.02)
        assert self.told() == list(lines)
        assert [event.sequence for event in self.events] == list(range(1, len(lines) + 1))


@pytest.fixture(params=["asyncio", "libuv", "select"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    errors: list[BaseException] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append(error)) as bridge:
        yield bridge
    assert errors == []


@pytest.fixture
def scene(bridge: Bridge) -> Iterator[Scene]:
    scene = Scene(bridge)
    yield scene
    if scene.lookout is not None:
        scene.lookout.close()
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
        assert scene.toolstack.closed == 1
        assert scene.store.closed >= 1


def test_domains_that_come_and_end_are_told_with_their_names(scene: Scene) -> None:
    scene.before = [1]
    scene.open()
    scene.toolstack.create(2)
    scene.expect("d2 started")
    scene.toolstack.stop(2, POWEROFF)
    scene.toolstack.destroy(2)
    scene.toolstack.destroy(1)
    scene.expect("d2 started", "d2 shutdown (guest)", "d2 stopped (shutdown)", "d1 stopped (destroyed)")
    scene.bridge.run(until=lambda: len(scene.toolstack.forgotten) == 2, timeout=PATIENCE)
    assert sorted(scene.toolstack.forgotten) == [1, 2] == sorted(scene.toolstack.followed)


def test_a_domain_that_dies_before_it_is_followed_is_told_all_the_same(scene: Scene) -> None:
    scene.open()
    scene.toolstack.on_follow = lambda domid: scene.toolstack.destroy(domid, tell=False)
    scene.toolstack.create(5)
    scene.expect("d5 started", "d5 stopped (destroyed)")


def test_a_guest_that_stops_before_it_is_followed_is_told_all_the_same(scene: Scene) -> None:
    scene.open()
    scene.toolstack.on_follow = lambda domid: scene.toolstack.stop(domid, POWEROFF, tell=False)
    scene.toolstack.create(5)
    scene.expect("d5 started", "d5 shutdown (guest)")


def test_an_end_that_the_library_tells_waits_for_what_the_worker_has_seen(scene: Scene) -> None:
    """The worker has seen how the guest stopped, and is held before it says so; then the library tells the death."""
    scene.before = [5]
    lookout = scene.open()
    looked, said = threading.Event(), threading.Event()
    shut_down = lookout.shut_down

    def held(domid: int, reason: int) -> None:
        looked.set()
        assert said.wait(PATIENCE)
        shut_down(domid, reason)

    lookout.shut_down = held  # type: ignore[method-assign]
    scene.toolstack.stop(5, CRASH, tell=False)
    scene.until_another_thread(looked.is_set)
    scene.toolstack.destroy(5)
    passes = scene.bridge.stats().passes
    scene.until_another_thread(lambda: scene.bridge.stats().passes > passes + 3)
    assert scene.told() == []
    said.set()
    scene.expect("d5 crashed", "d5 stopped (crashed)")


def test_an_end_that_the_worker_sees_waits_for_what_the_library_has_seen(scene: Scene) -> None:
    """The loop's thread is inside the library, which has seen how the guest stopped, and has not said so yet; meanwhile
    the worker finds the domain gone."""
    scene.before = [5]
    lookout = scene.open()
    scene.bridge.run(timeout=0.01)
    found = threading.Event()

    def inside(id: int, opaque: object) -> None:
        scene.bridge.remove_timeout(id)
        with lookout.mailbox.collecting():
            del scene.toolstack.domains[5]
            lookout._work.put(lookout._survey)
            lookout._work.put(found.set)
            assert found.wait(PATIENCE)
            scene.toolstack.facts.shut_down(5, CRASH)

    scene.bridge.add_timeout(0, inside)
    scene.expect("d5 crashed", "d5 stopped (crashed)")


def test_a_shutdown_that_is_told_late_is_not_taken_for_the_next_domain_of_its_domid(scene: Scene) -> None:
    scene.before = [5]
    lookout = scene.open()
    scene.bridge.run(timeout=0.01)
    found = threading.Event()

    def inside(id: int, opaque: object) -> None:
        scene.bridge.remove_timeout(id)
        with lookout.mailbox.collecting():
            scene.toolstack.create(5, generation=2)
            lookout._work.put(lookout._survey)
            lookout._work.put(found.set)
            assert found.wait(PATIENCE)
            scene.toolstack.facts.shut_down(5, CRASH)

    scene.bridge.add_timeout(0, inside)
    scene.expect("d5 crashed", "d5 stopped (crashed)", "d5 started")
    assert scene.events[-1].domain != scene.events[0].domain


def test_what_is_on_its_way_when_xenstored_is_lost_is_told_before_the_loss(scene: Scene) -> None:
    scene.before = [4, 5]
    scene.open()
    scene.bridge.run(timeout=0.01)
    scene.toolstack.domains[4] = Seen(scene.toolstack.domains[4].ref, CRASH)
    scene.toolstack.domains[5] = Seen(scene.toolstack.domains[5].ref, POWEROFF, dying=True)
    scene.store.dead = True
    scene.expect("d4 crashed", "d5 shutdown (guest)", "d5 stopped (shutdown)", "- connection_lost (eof)")


def test_a_domain_that_a_list_leaves_out_is_looked_at_before_it_is_ended(scene: Scene) -> None:
    """A library's list may be cut off."""
    scene.before = [5]
    scene.open()
    scene.toolstack.list = list  # type: ignore[method-assign,assignment]  # an empty one
    scene.store.fire(RELEASED)
    scene.toolstack.stop(5, POWEROFF, tell=False)
    scene.expect("d5 shutdown (guest)")


def test_a_domid_that_is_used_again_is_two_domains(scene: Scene) -> None:
    scene.before = [3]
    scene.open()
    scene.toolstack.create(3, generation=2)
    scene.expect("d3 stopped (destroyed)", "d3 started")
    assert scene.events[0].domain != scene.events[1].domain
    assert scene.toolstack.followed == [3, 3]
    assert scene.toolstack.forgotten == [3]
    scene.toolstack.destroy(3)
    scene.bridge.run(until=lambda: len(scene.toolstack.forgotten) == 2, timeout=PATIENCE)
    scene.expect("d3 stopped (destroyed)", "d3 started", "d3 stopped (destroyed)")


def test_a_domain_that_is_still_being_made_is_told_once_it_has_its_name(scene: Scene) -> None:
    """Xen lists it from its first moment; what it is called is written next, and then it is introduced."""
    scene.open()
    scene.toolstack.make(5)
    scene.toolstack.create(6)
    scene.expect("d6 started")
    scene.toolstack.create(5)
    scene.expect("d6 started", "d5 started")


def test_a_domain_that_gets_its_name_while_it_is_looked_at_is_told_with_it(scene: Scene) -> None:
    """It had none at the look, and was introduced before that was asked for: its name is there by then."""
    scene.open()
    scene.toolstack.make(5)
    scene.store.on_asked = lambda domid: None if domid in scene.store.introduced else scene.toolstack.create(domid)
    scene.toolstack.create(6)
    scene.bridge.run(until=lambda: len(scene.events) == 2, timeout=PATIENCE)
    assert sorted(scene.told()) == ["d5 started", "d6 started"]


def test_a_domain_that_has_no_name_when_it_is_introduced_is_told_without(scene: Scene) -> None:
    scene.open()
    scene.toolstack.make(5)
    scene.store.introduced.add(5)
    scene.store.fire(INTRODUCED)
    scene.expect("uuid-5-1 started")


def test_a_suspended_domain_that_goes_on_is_followed_anew(scene: Scene) -> None:
    """libxl tells of a shutdown once for each following; of the next one it must be asked again."""
    scene.before = [4]
    scene.open()
    scene.toolstack.stop(4, SUSPEND)
    scene.expect("d4 suspended (guest)")
    scene.toolstack.resume(4)
    scene.store.fire(RELEASED)
    scene.expect("d4 suspended (guest)", "d4 resumed")
    scene.toolstack.stop(4, POWEROFF)
    scene.expect("d4 suspended (guest)", "d4 resumed", "d4 shutdown (guest)")
    assert scene.toolstack.followed == [4, 4]


def test_a_resumed_domain_is_noticed_without_any_announcement(scene: Scene) -> None:
    scene.before = [4]
    scene.open()
    scene.toolstack.stop(4, SUSPEND)
    scene.toolstack.resume(4)
    scene.expect("d4 suspended (guest)", "d4 resumed")


def test_a_toolstack_that_tells_no_ends_is_asked(scene: Scene) -> None:
    scene.before = [1, 2]
    scene.open()
    scene.toolstack.destroy(1, tell=False)
    scene.expect("d1 stopped (destroyed)")


def test_a_lost_xenstored_is_told_once_and_costs_no_more_passes(scene: Scene) -> None:
    """It never makes the fd readable: the probe finds out, within 2 s."""
    scene.open()
    scene.bridge.run(timeout=0.01)
    scene.store.dead = True
    scene.bridge.run(until=lambda: bool(scene.events), timeout=PATIENCE)
    before = scene.bridge.stats().passes
    scene.expect("- connection_lost (eof)")
    assert scene.bridge.stats().passes - before <= 3


def test_nothing_is_told_after_close(scene: Scene) -> None:
    lookout = scene.open()
    scene.toolstack.create(7)
    scene.toolstack.facts.gone(7)
    lookout.close()
    lookout.close()
    scene.bridge.run(timeout=0.02)
    assert scene.told() == []


def test_a_consumer_may_close_inside_an_event(bridge: Bridge) -> None:
    scene = Scene(bridge)
    scene.before = [1, 2]

    def once(event: DomainEvent) -> None:
        scene.events.append(event)
        assert scene.lookout is not None
        scene.lookout.close()

    scene.lookout = Lookout.open(URI, bridge, once, scene.store, scene._open_toolstack)
    scene.toolstack.destroy(1)
    scene.toolstack.destroy(2)
    bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert scene.told() == ["d1 stopped (destroyed)"]
    assert scene.toolstack.closed == 1


def test_an_opening_that_fails_leaves_nothing(bridge: Bridge) -> None:
    store = ScriptedStore()
    threads = threading.active_count()

    def refuse(uri: str, bridge: Bridge, facts: Facts) -> Toolstack:
        raise HypervisorError("libxl:///: no permission")

    with pytest.raises(HypervisorError, match="no permission"):
        Lookout.open(URI, bridge, lambda event: None, store, refuse)
    assert store.closed == 1
    assert threading.active_count() == threads
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


def test_a_worker_that_hangs_in_a_library_keeps_neither_loop_nor_close(scene: Scene) -> None:
    """A frozen xenstored: the call never returns."""
    scene.open()
    hanging, thawed = threading.Event(), threading.Event()

    def hang(domid: int) -> None:
        hanging.set()
        thawed.wait(PATIENCE)

    scene.toolstack.on_follow = hang
    scene.toolstack.create(9)
    scene.expect("d9 started")
    assert hanging.wait(PATIENCE)
    scene.bridge.run(timeout=0.01)
    assert scene.lookout is not None
    scene.lookout.close()
    assert scene.toolstack.closed == 1
    thawed.set()
