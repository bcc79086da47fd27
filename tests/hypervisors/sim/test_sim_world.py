"""A world that connections share, and a test's hold on it: changes unseen, breaks, freezes, failures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sim_watch import Watched, listed, story_of

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim import simulation as control
from eventbridge.adapters.hypervisors.sim.driver import driver
from eventbridge.adapters.hypervisors.sim.simulation import simulation_of
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from tests.support.descriptors import open_fds

HOSTS = ("asyncio", "libuv", "select")
Watch = Callable[..., Watched]
on_each_host = pytest.mark.parametrize("host", HOSTS)
S0, S1 = "simulated-0", "simulated-1"


def query(world: str, more: str = "events=0") -> str:
    return f"world={world}&domains=4&{more}"


def simulation(world: str, more: str = "events=0") -> control.Simulation:
    return simulation_of(f"sim:///default?{query(world, more)}")


@on_each_host
def test_connections_of_one_world_share_its_domains_and_each_is_told_everything(
    watch: Watch, world: str, host: str
) -> None:
    """Whoever asked; each event once to each, in the same order; on bridges of their own."""
    one, other = watch(query(world), host), watch(query(world), "select")
    for name in (S0, S1):
        one.answer("start", name)
        other.answer("suspend", name)
    one.answer("define", definition={"name": "new"})
    domains = [one.settle(), other.settle()]
    assert listed(domains[0]) == listed(domains[1])
    assert story_of(one.events) == story_of(other.events)
    assert len(one.events) == 5
    assert {event.source for event in one.events} == {one.uri}


@on_each_host
def test_a_story_is_told_to_all_whichever_clock_moves_it(watch: Watch, world: str, host: str) -> None:
    """And it is its seed's."""
    one, other = watch(query(world, "rate=20000&events=500"), host), watch(query(world, "rate=20000&events=500"))
    one.until(500)
    other.until(500)
    alone = watch("domains=4&rate=20000&events=500")
    alone.until(500)
    assert [told[1:] for told in story_of(one.events)] == [told[1:] for told in story_of(alone.events)]
    # who came second may have missed the beginning, and nothing else
    assert [told[1:] for told in story_of(other.events)] == [told[1:] for told in story_of(one.events)][-500:]


def test_who_comes_later_is_told_what_happens_from_then_on(watch: Watch, world: str) -> None:
    """His numbers begin at 1."""
    one = watch(query(world))
    one.answer("start", S0)
    late = one.connect(query(world))
    late.answer("suspend", S0)
    domains = late.settle()
    one.settle()
    assert [(event.sequence, event.kind) for event in late.events] == [(1, Kind.SUSPENDED)]
    assert [event.sequence for event in one.events] == [1, 2]
    assert domains[S0].state is State.PAUSED
    late.disconnect()
    one.answer("resume", S0)
    one.settle()
    assert len(late.events) == 1


def test_a_world_outlives_its_connections_until_it_is_forgotten(watch: Watch, world: str) -> None:
    """Then the name means a new one, and who is connected has lost it."""
    first = watch(query(world))
    first.answer("start", S0)
    first.disconnect()
    again = first.connect(query(world))
    assert again.answer("info", S0).state is State.RUNNING
    control.forget(world)
    again.wait(lambda: bool(again.events))
    assert [event.kind for event in again.events] == [Kind.CONNECTION_LOST]
    new = first.connect(query(world))
    assert new.answer("info", S0).state is State.STOPPED
    new.disconnect()
    again.disconnect()


def test_a_world_is_refused_to_who_thinks_that_it_is_another(watch: Watch, world: str) -> None:
    """It says what is there; and only a name has controls."""
    watch(query(world))
    with Bridge("select") as bridge, pytest.raises(HypervisorError, match="is there already, with domains=4, not 5"):
        driver.subscribe(f"sim:///default?world={world}&domains=5", bridge, print)
    with pytest.raises(HypervisorError, match="add world=NAME"):
        simulation_of("sim:///default")


@on_each_host
def test_what_is_done_behind_everybodys_back_is_told_to_who_is_connected(watch: Watch, world: str, host: str) -> None:
    """Done at once, on any thread; without a connection too."""
    sim = simulation(world)
    sim.do("start", S0)
    watched = watch(query(world), host)
    assert watched.answer("info", S0).state is State.RUNNING

    def other() -> None:
        sim.do("suspend", S0)
        sim.do("create", definition={"name": "new"})

    watched.run_beside(other)
    domains = watched.settle()
    assert [str(event) for event in watched.events] == ["simulated-0 suspended (paused)", "new started (booted)"]
    assert sorted(sim.domains(), key=str) == sorted(domains.values(), key=str)
    assert sim.domain("new") == domains["new"]
    with pytest.raises(HypervisorError, match="it is paused, and must be running"):
        sim.do("suspend", S0)
    with pytest.raises(HypervisorError, match="only these take no time"):
        sim.do("save", S0)
    with pytest.raises(NoSuchDomain):
        sim.domain("nobody")


def test_the_story_can_be_told_by_hand(watch: Watch, world: str) -> None:
    """`Simulation.happen`: now, whenever it would have been; also while nobody is connected, when its time stands."""
    sim = simulation(world, "rate=1")
    assert sim.happen(100) == 100
    watched = watch(query(world, "rate=1"))
    assert sim.happen(50) == 50
    watched.until(50)
    assert [event.sequence for event in watched.events] == list(range(1, 51))
    assert watched.events[0].raw["number"] == 101
    other = simulation(f"{world}-short", "events=10")
    assert other.happen(100) == 10
    control.forget(f"{world}-short")


@on_each_host
def test_a_broken_connection_is_told_and_refuses_what_was_under_way(watch: Watch, world: str, host: str) -> None:
    """One ``connection_lost``, the last event; each request `ConnectionLost`, once; nothing of it is done."""
    watched = watch(query(world, "events=0&latency=5"), host)
    sim = simulation(world)
    under_way = [watched.ask("start", f"simulated-{index}") for index in range(4)]
    assert sim.break_connections() == 1
    assert sim.break_connections() == 0
    later = watched.ask("info", S0)
    with pytest.raises(ConnectionLost, match="cannot info: the connection was lost: open another"):
        later()
    watched.wait(lambda: all(one.done for one in under_way))
    for one in under_way:
        with pytest.raises(ConnectionLost, match="cannot start: the connection was lost"):
            one()
    sim.do("start", S0)
    assert watched.bridge.stats().handles == 0
    other = watched.connect(query(world))
    other.answer("start", S1)
    other.settle()
    other.disconnect()
    assert [(event.kind, event.reason, event.domain) for event in watched.events] == [
        (Kind.CONNECTION_LOST, "eof", None)
    ]
    assert {info.domain.name for info in sim.domains() if info.state is State.RUNNING} == {S0, S1}
    assert not watched.errors


def test_what_was_on_its_way_when_it_broke_is_never_told(watch: Watch, world: str) -> None:
    """It is the truth, and only asking says so."""
    watched = watch(query(world))
    sim = simulation(world)
    sim.do("start", S0)
    sim.do("start", S1)
    sim.break_connections(reason="keepalive")
    watched.wait(lambda: bool(watched.events))
    watched.bridge.run(timeout=0.02)
    assert [str(event) for event in watched.events] == ["- connection_lost (keepalive)"]
    again = watched.connect(query(world))
    assert {name for name, info in again.settle().items() if info.state is State.RUNNING} == {S0, S1}
    assert not again.events
    again.disconnect()


def test_a_broken_one_can_be_opened_again_when_it_has_been_refused_as_often_as_was_asked(
    watch: Watch, world: str
) -> None:
    """And nothing of the refused is left."""
    watched = watch(query(world))
    sim = simulation(world)
    sim.break_connections(refuse=3)
    before = open_fds()
    for _ in range(3):
        with pytest.raises(HypervisorError, match="refuses the connection") as caught:
            watched.connect(query(world))
        assert caught.value.operation == "open"
    assert open_fds() == before
    again = watched.connect(query(world))
    assert sim.connections == 1
    again.disconnect()
    assert sim.connections == 0
    sim.refuse_connections(1)
    with pytest.raises(HypervisorError):
        watched.connect(query(world))


def test_a_connection_may_be_broken_by_the_receiver_of_an_event(watch: Watch, world: str) -> None:
    """The loss is the next event, and the last."""
    sim = simulation(world)

    def emit(event: object) -> None:
        watched.events.append(event)
        if len(watched.events) == 1:
            sim.break_connections()

    watched = watch(query(world), emit=emit)
    for index in range(4):
        sim.do("start", f"simulated-{index}")
    watched.wait(lambda: len(watched.events) == 2)
    watched.bridge.run(timeout=0.02)
    assert [event.kind for event in watched.events] == [Kind.STARTED, Kind.CONNECTION_LOST]
    assert not watched.errors


@on_each_host
def test_a_frozen_domains_calls_hang_and_nobody_elses(watch: Watch, world: str, host: str) -> None:
    """Until it thaws; then each is done, in order, once; that one was given up is noted."""
    watched = watch(query(world), host)
    sim = simulation(world)
    sim.freeze(S0)
    frozen = [watched.ask("start", S0), watched.ask("suspend", S0)]
    assert watched.answer("start", S1) is None
    assert len(watched.answer("list")) == 4
    watched.wait(lambda: len(sim.hung) == 2)
    watched.subscription.given_up(frozen[0].request)
    assert list(sim.given_up) == [frozen[0].request]
    assert sim.domain(S0).state is State.STOPPED
    assert not any(one.done for one in frozen)
    sim.thaw(S0)
    watched.wait(lambda: all(one.done for one in frozen))
    assert [one() for one in frozen] == [None, None]
    watched.settle()
    assert watched.kinds(S0) == [("started", "booted"), ("suspended", "paused")]
    assert not sim.hung


def test_a_frozen_domain_can_be_destroyed_where_that_is_let_through(watch: Watch, world: str) -> None:
    """As a real one whose process does not answer; what hung finds it off when it thaws."""
    watched = watch(query(world))
    sim = simulation(world)
    sim.do("start", S0)
    sim.freeze(S0, but={"destroy"})
    hung = watched.ask("suspend", S0)
    watched.wait(lambda: bool(sim.hung))
    assert watched.answer("destroy", S0) is None
    assert not hung.done
    sim.thaw(S0)
    watched.wait(lambda: hung.done)
    with pytest.raises(HypervisorError, match="cannot suspend simulated-0: it is off, and must be running"):
        hung()


def test_everything_can_be_frozen_and_thawed(watch: Watch, world: str) -> None:
    """Also what is asked of the whole hypervisor; one that is frozen itself stays so."""
    watched = watch(query(world))
    sim = simulation(world)
    sim.freeze()
    sim.freeze(S1)
    asked = [watched.ask("list"), watched.ask("start", S0), watched.ask("start", S1)]
    watched.wait(lambda: len(sim.hung) == 3)
    sim.thaw(S1)
    watched.bridge.run(timeout=0.02)
    assert not any(one.done for one in asked)
    sim.thaw()
    watched.wait(lambda: all(one.done for one in asked))
    assert len(asked[0]()) == 4


@on_each_host
def test_hung_calls_are_refused_when_the_connection_breaks_or_closes(watch: Watch, world: str, host: str) -> None:
    """And are not done when their domain thaws."""
    watched = watch(query(world), host)
    other = watched.connect(query(world))
    sim = simulation(world)
    sim.freeze(S0)
    hung = [watched.ask("start", S0), other.ask("start", S0)]
    watched.wait(lambda: len(sim.hung) == 2)
    other.disconnect()
    assert hung[1].done
    sim.break_connections()
    watched.wait(lambda: hung[0].done)
    for one in hung:
        with pytest.raises(ConnectionLost):
            one()
    assert not sim.hung
    sim.thaw()
    again = watched.connect(query(world))
    assert again.answer("info", S0).state is State.STOPPED
    again.disconnect()


def test_a_call_fails_as_often_as_was_planned(watch: Watch, world: str) -> None:
    """With those words; of that domain; others' do not."""
    watched = watch(query(world))
    sim = simulation(world)
    sim.fail("start", S0, "no more memory", times=2)
    sim.fail("list", words="not today")
    assert watched.answer("start", S1) is None
    for _ in range(2):
        with pytest.raises(HypervisorError, match="cannot start simulated-0: no more memory"):
            watched.answer("start", S0)
    assert watched.answer("start", S0) is None
    with pytest.raises(HypervisorError, match="cannot list: not today"):
        watched.answer("list")
    assert len(watched.settle()) == 4
    assert len(watched.events) == 2
