"""Saves and migrations: with progress, abortable, and failing so that the domain goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sim_watch import Asked, Watched

from eventbridge.adapters.hypervisors.sim.simulation import simulation_of
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.model import DomainRef, State
from eventbridge.jobs import JobAborted

HOSTS = ("asyncio", "libuv", "select")
Watch = Callable[..., Watched]
on_each_host = pytest.mark.parametrize("host", HOSTS)
QUIET = "domains=4&events=0"
S0, S1 = "simulated-0", "simulated-1"
MIB = 1 << 20
LONG: dict[str, dict[str, Any]] = {"save": {"path": "/a"}, "managed_save": {}, "migrate": {}}


def prepared(here: Watched, there: Watched, name: str = S0) -> tuple[DomainRef, str]:
    """Who goes, and where to."""
    source = here.answer("info", name).domain
    return source, there.answer("migrate_prepare", source=source, listen=None)


def begun(here: Watched, operation: str, there: Watched | None = None, **more: Any) -> Asked:
    """One that will not end by itself, under way."""
    arguments = {**LONG[operation], **more, "bandwidth": 100}
    if there is not None:
        arguments["to"] = prepared(here, there)[1]
    asked = here.ask(operation, S0, **arguments)
    here.wait(lambda: asked.done or bool(asked.progress))
    return asked


@pytest.fixture
def two(watch: Watch, request: pytest.FixtureRequest) -> tuple[Watched, Watched]:
    """Two worlds, whose connections are on one bridge; the second has domains of its own."""
    here = watch(f"{QUIET}&memory=8192", getattr(request, "param", "select"))
    there = here.connect("domains=2&events=0&seed=2")
    request.addfinalizer(there.disconnect)
    for name in there.settle():
        there.answer("undefine", name)
    there.events.clear()
    here.answer("start", S0)
    here.answer("start", S1)
    here.settle()
    here.events.clear()
    return here, there


on_each_host_two = pytest.mark.parametrize("two", HOSTS, indirect=True)


@on_each_host
def test_a_save_moves_its_memory_in_steps_and_ends_it(watch: Watch, host: str) -> None:
    """Bytes add up and only grow; the domain answers meanwhile; one ``stopped``, saved; restored it runs again."""
    watched = watch(f"{QUIET}&memory=32768", host)
    watched.answer("start", S0)
    before = watched.answer("info", S0)
    asked = watched.ask("save", S0, path="/a")
    watched.wait(lambda: bool(asked.progress))
    assert watched.answer("info", S0).state is State.RUNNING
    watched.wait(lambda: asked.done)
    assert asked() is None
    assert [p.processed + p.remaining for p in asked.progress] == [32 * MIB] * len(asked.progress)
    processed = [p.processed for p in asked.progress]
    assert processed == sorted(set(processed))
    assert processed[-1] == 32 * MIB
    assert len(processed) == 4, "10 ms each at 1 GiB/s"
    assert watched.answer("info", S0).state is State.STOPPED
    assert watched.answer("restore", path="/a").uuid == before.domain.uuid
    watched.settle()
    assert watched.kinds(S0) == [("started", "booted"), ("stopped", "saved"), ("started", "restored")]
    with pytest.raises(HypervisorError, match="it is running, and must be absent or off"):
        watched.answer("restore", path="/a")
    with pytest.raises(HypervisorError, match="nothing was saved in '/b'; there are: /a"):
        watched.answer("restore", path="/b")
    assert not watched.errors


def test_a_managed_save_is_brought_back_by_start(watch: Watch) -> None:
    """And a transient domain is restored transient."""
    watched = watch(QUIET)
    watched.answer("start", S0)
    watched.answer("managed_save", S0)
    watched.answer("start", S0)
    watched.answer("create", definition={"name": "t", "memory": 64})
    watched.answer("save", "t", path="t")
    watched.answer("restore", path="t", paused=True)
    info = watched.settle()["t"]
    assert (info.state, info.persistent, info.max_memory) == (State.PAUSED, False, 64)
    assert watched.kinds(S0)[1:] == [("stopped", "saved"), ("started", "restored")]
    assert watched.kinds("t")[1:] == [("stopped", "saved"), ("started", "restored"), ("suspended", "paused")]


@on_each_host_two
@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_a_domain_migrates_and_is_the_same_there(two: tuple[Watched, Watched], confirm: bool, paused: bool) -> None:
    """``stopped`` (migrated) here, ``started`` (migrated) there; its name, uuid and memory; nobody else is touched."""
    here, there = two
    if paused:
        here.answer("suspend", S0)
    source, to = prepared(here, there)
    asked = here.ask("migrate", S0, to=to, live=True, confirm=confirm, persistent=True, undefine=True)
    here.wait(lambda: asked.done)
    assert asked() is None
    assert asked.progress[-1].remaining == 0
    if confirm:
        assert here.answer("info", S0).state is State.PAUSED
        assert there.answer("list") == []
    arrived = there.answer("migrate_finish", source=source)
    assert (arrived.domain.name, arrived.domain.uuid) == (source.name, source.uuid)
    assert arrived.state is (State.PAUSED if paused else State.RUNNING)
    if confirm:
        assert here.answer("migrate_confirm", S0, succeeded=True) is None
    assert S0 not in here.settle()
    assert there.settle()[S0] == arrived
    assert (arrived.persistent, arrived.max_memory) == (True, 8192)
    stood = [("suspended", "migrated")] if confirm and not paused else []
    was = [("suspended", "paused")] if paused else []
    assert here.kinds(S0) == [*was, *stood, ("stopped", "migrated"), ("undefined", "removed")]
    assert there.kinds(S0) == [("defined", "added"), ("started", "migrated"), *was]
    assert here.kinds(S1) == []
    assert not here.errors


@on_each_host_two
def test_it_may_be_waited_for_before_it_comes_and_goes_back_again(two: tuple[Watched, Watched]) -> None:
    """``migrate_finish`` is answered when it runs there; without ``persistent`` it is transient there."""
    here, there = two
    source, to = prepared(here, there)
    finish = there.ask("migrate_finish", source=source)
    here.answer("info", S1)
    assert not finish.done
    here.answer("migrate", S0, to=to)
    here.wait(lambda: finish.done)
    assert finish().persistent is False
    source, to = prepared(there, here)
    there.answer("migrate", S0, to=to)
    assert here.answer("migrate_finish", source=source).persistent is True, "its definition had stayed"
    assert there.settle() == {}
    assert here.settle()[S0].state is State.RUNNING
    assert there.kinds(S0) == [("started", "migrated"), ("stopped", "migrated")]


@on_each_host_two
@pytest.mark.parametrize("operation", LONG)
def test_what_takes_long_can_be_aborted_and_the_domain_goes_on(two: tuple[Watched, Watched], operation: str) -> None:
    """`JobAborted` that says how far it was; nothing is told; the destination is as it was."""
    here, there = two
    asked = begun(here, operation, there if operation == "migrate" else None)
    here.run_beside(asked.request.abort)
    here.wait(lambda: asked.done)
    with pytest.raises(JobAborted, match=rf"{operation} of simulated-0: aborted at \d+ of 8388608 bytes"):
        asked()
    if operation == "migrate":
        with pytest.raises(HypervisorError, match="aborted at"):
            there.answer("migrate_finish", source=DomainRef(S0))
        assert there.answer("migrate_cancel", source=DomainRef(S0)) is None
        assert here.answer("migrate_confirm", S0, succeeded=False) is None
    assert here.settle()[S0].state is State.RUNNING
    assert there.settle() == {}
    assert not here.events
    assert not there.events
    assert not here.subscription.world.transfers
    assert not there.subscription.world.incoming


@on_each_host_two
def test_bandwidth_and_downtime_are_limits_that_can_be_changed_on_the_way(two: tuple[Watched, Watched]) -> None:
    """Slow, it would take a day; then it is over at once."""
    here, there = two
    for operation, limit in (("set_bandwidth", {"bandwidth": 8 << 30}), ("set_downtime", {"downtime": 10**9})):
        asked = begun(here, "migrate", there)
        assert not asked.done
        assert asked.progress[-1].rate == 100
        assert here.answer(operation, S0, **limit) is None
        here.wait(lambda asked=asked: asked.done)
        assert asked() is None
        there.answer("migrate_finish", source=DomainRef(S0))
        there.answer("destroy", S0)
        here.answer("start", S0)
    for bad in (0, -1, True, "fast"):
        with pytest.raises(HypervisorError, match="nothing of it is being saved or migrated"):
            here.answer("set_bandwidth", S0, bandwidth=bad)
        with pytest.raises(HypervisorError, match="bandwidth must be a whole number from 1"):
            here.answer("save", S0, path="/a", bandwidth=bad)


@on_each_host_two
@pytest.mark.parametrize("operation", LONG)
def test_a_run_that_ends_meanwhile_fails_it(two: tuple[Watched, Watched], operation: str) -> None:
    """Also where it runs again at once: that is another run."""
    here, there = two
    asked = begun(here, operation, there if operation == "migrate" else None)
    destroy, start = here.ask("destroy", S0), here.ask("start", S0)
    here.wait(lambda: asked.done)
    assert destroy.done
    assert start() is None
    with pytest.raises(HypervisorError, match=f"cannot {operation} simulated-0: its run has ended meanwhile"):
        asked()
    assert here.settle()[S0].state is State.RUNNING
    assert here.kinds(S0) == [("stopped", "destroyed"), ("started", "booted")]
    assert there.settle() == {}


def cancelled(here: Watched, there: Watched) -> None:
    there.answer("migrate_cancel", source=DomainRef(S0))


def destination_closed(here: Watched, there: Watched) -> None:
    there.disconnect()


def destination_lost(here: Watched, there: Watched) -> None:
    there.subscription.lose("eof")


@on_each_host_two
@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (cancelled, "its destination has cancelled it"),
        (destination_closed, "its destination has gone"),
        (destination_lost, "its destination has gone"),
    ],
)
def test_a_destination_that_fails_leaves_the_domain_here(
    two: tuple[Watched, Watched], fails: Callable[[Watched, Watched], None], why: str
) -> None:
    """It says why, and the domain runs on."""
    here, there = two
    asked = begun(here, "migrate", there)
    fails(here, there)
    here.wait(lambda: asked.done)
    with pytest.raises(HypervisorError, match=f"cannot migrate simulated-0: {why}"):
        asked()
    assert here.settle()[S0].state is State.RUNNING
    assert not here.events
    assert not there.subscription.world.incoming


@on_each_host_two
def test_a_source_whose_connection_breaks_keeps_the_domain(two: tuple[Watched, Watched]) -> None:
    """The request is refused; who waits at the destination is told that it will not come."""
    here, there = two
    asked = begun(here, "migrate", there)
    finish = there.ask("migrate_finish", source=DomainRef(S0))
    there.answer("list")
    other = here.subscription.world
    # somebody else's connection to that world moves it on
    here.subscription.lose("eof")
    here.wait(lambda: asked.done)
    with pytest.raises(ConnectionLost):
        asked()
    assert other.cast.find(DomainRef(S0)).runs
    there.answer("migrate_cancel", source=DomainRef(S0))
    assert finish.done
    with pytest.raises(HypervisorError):
        finish()
    assert there.settle() == {}


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("operation", LONG)
def test_it_can_be_made_to_fail_when_that_much_is_done(watch: Watch, world: str, operation: str, at: float) -> None:
    """By a test; the domain goes on."""
    query = f"world={world}&{QUIET}&memory=65536"
    here = watch(query)
    there = here.connect("domains=1&events=0&seed=2")
    here.answer("start", S0)
    to = prepared(here, there)[1] if operation == "migrate" else None
    there.answer("undefine", S0)
    simulation_of(f"sim:///default?{query}").fail(operation, S0, "disk full", at=at)
    asked = here.ask(operation, S0, to=to, **LONG[operation])
    here.wait(lambda: asked.done)
    with pytest.raises(HypervisorError, match=f"cannot {operation} simulated-0: disk full"):
        asked()
    done = asked.progress[-1].processed / asked.progress[-1].total if asked.progress else 0.0
    assert (at <= done < at + 0.2) if at < 1 else done == 1
    assert here.settle()[S0].state is State.RUNNING
    assert len(here.events) == 1
    there.disconnect()


def test_a_destination_that_has_no_room_at_the_last_moment_leaves_it_here(two: tuple[Watched, Watched]) -> None:
    """Somebody of that name is there by then."""
    here, there = two
    asked = begun(here, "migrate", there)
    there.answer("create", definition={"name": S0})
    here.answer("set_downtime", S0, downtime=10**9)
    here.wait(lambda: asked.done)
    with pytest.raises(HypervisorError, match="cannot migrate simulated-0: there is simulated-0 already"):
        asked()
    assert here.settle()[S0].state is State.RUNNING
    assert not here.events


def test_one_that_is_to_be_confirmed_is_whole_on_one_side_whatever_is_decided(two: tuple[Watched, Watched]) -> None:
    """Taken back: it goes on here, and nothing of it is left there, even where it ran by then."""
    here, there = two
    for finished in (False, True):
        source, to = prepared(here, there)
        here.answer("migrate", S0, to=to, confirm=True)
        for operation in ("suspend", "save", "reboot"):
            with pytest.raises(HypervisorError, match="it is sent, and must be"):
                here.answer(operation, S0, path="/a")
        if finished:
            there.answer("migrate_finish", source=source)
        there.answer("migrate_cancel", source=source)
        assert there.settle() == {}
        here.answer("migrate_confirm", S0, succeeded=False)
        assert here.settle()[S0].state is State.RUNNING
    assert here.kinds(S0) == [("suspended", "migrated"), ("resumed", "migrated")] * 2
    assert there.kinds(S0) == [("started", "migrated"), ("stopped", "destroyed")]


def test_one_that_is_nowhere_else_is_not_cancelled(two: tuple[Watched, Watched]) -> None:
    """Without confirmation it has ended at its source."""
    here, there = two
    source, to = prepared(here, there)
    here.answer("migrate", S0, to=to)
    with pytest.raises(HypervisorError, match="it has arrived, runs here and has ended at its source"):
        there.answer("migrate_cancel", source=source)
    assert there.settle()[S0].state is State.RUNNING


def test_what_cannot_be_migrated_is_refused_with_one_clear_error(two: tuple[Watched, Watched]) -> None:
    """Each names what is wrong; nothing is told."""
    here, there = two
    source, to = prepared(here, there)
    refusals = [
        (there, "migrate_prepare", None, {"source": source}, "it is expected already: cancel that first"),
        (here, "migrate_prepare", None, {"source": source}, "here it is running"),
        (here, "migrate_prepare", None, {"source": None}, "source must say who comes; found None"),
        (there, "migrate_finish", None, {"source": DomainRef("x")}, "nobody is expected: prepare it first"),
        (here, "migrate", S0, {"to": "tcp:there"}, "nobody of this process listens at 'tcp:there'"),
        (here, "migrate", S0, {"to": None}, "nobody of this process listens at None"),
        (here, "migrate", S1, {"to": to}, "expects "),
        (here, "migrate", "simulated-2", {"to": to}, "it is off, and must be running or paused"),
        (here, "migrate_confirm", S0, {"succeeded": True}, "it is running, and must be sent"),
        (here, "save", S0, {"path": ""}, "path must say where to; found ''"),
        (here, "restore", None, {"path": "/a", "definition": "x"}, "is restored as it was saved"),
    ]
    for whom, operation, domain, arguments, why in refusals:
        with pytest.raises(HypervisorError) as caught:
            whom.answer(operation, domain, **arguments)
        assert f"cannot {operation}" in str(caught.value)
        assert why in str(caught.value)
    itself = here.answer("migrate_prepare", source=DomainRef("simulated-2"))
    here.answer("start", "simulated-2")
    with pytest.raises(HypervisorError, match="its destination is the world that it is in"):
        here.answer("migrate", "simulated-2", to=itself)
    asked = begun(here, "save")
    with pytest.raises(HypervisorError, match=r"its save is under way: \d+ of 8388608 bytes"):
        here.answer("migrate", S0, to=to)
    asked.request.abort()
    assert there.answer("migrate_cancel", source=DomainRef("nobody")) is None
    assert there.settle() == {}
    assert [str(event) for event in here.events] == ["simulated-2 started (booted)"]


@on_each_host_two
def test_what_is_frozen_hangs_in_the_middle_and_goes_on(two: tuple[Watched, Watched]) -> None:
    """Its progress stands still, and others' calls do not."""
    here, _ = two
    asked = begun(here, "save")
    faults = here.subscription.world.faults
    guest = here.subscription.world.cast.find(DomainRef(S0))
    faults.frozen[guest] = frozenset()
    here.wait(lambda: bool(faults.hung))
    told = len(asked.progress)
    here.answer("suspend", S1)
    here.bridge.run(timeout=0.03)
    assert len(asked.progress) == told
    faults.frozen.clear()
    here.subscription.world.hand_on(faults.thawed())
    here.wait(lambda: len(asked.progress) > told)
    asked.request.abort()
    here.wait(lambda: asked.done)
