"""What can be asked of the simulated hypervisor, in every state; what it does is told, once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from sim_watch import Asked, Watched, listed

from eventbridge.adapters.hypervisors.sim.commands import ASKED, SENT
from eventbridge.adapters.hypervisors.sim.guests import RUNS, TRANSITIONS, State, Step
from eventbridge.adapters.hypervisors.sim.operations import CALLS
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.model import State as Shown
from eventbridge.hypervisor.operations import OPERATIONS
from eventbridge.jobs import JobAborted

HOSTS = ("asyncio", "libuv", "select")
Watch = Callable[..., Watched]

on_each_host = pytest.mark.parametrize("host", HOSTS)
QUIET = "domains=4&events=0"
S0, S1 = "simulated-0", "simulated-1"


def test_it_does_what_can_be_asked_of_a_hypervisor_but_for_consoles(watch: Watch) -> None:
    """A simulated guest has no pty."""
    assert watch(QUIET).subscription.operations == OPERATIONS.keys() - {"console_info"}


@on_each_host
def test_a_life_by_calls_is_told_as_it_was_asked(watch: Watch, host: str) -> None:
    """One of each model; each event once, in order, and nobody else's."""
    watched = watch(QUIET, host)
    for domain in (S0, S1):
        for operation in ("start", "suspend", "resume", "reboot", "destroy", "undefine"):
            assert watched.answer(operation, domain) is None
    domains = watched.settle()
    for domain in (S0, S1):
        assert watched.kinds(domain) == [
            ("started", "booted"),
            ("suspended", "paused"),
            ("resumed", "unpaused"),
            ("rebooted", None),
            ("stopped", "destroyed"),
            ("undefined", "removed"),
        ]
    assert len(watched.events) == 12
    assert [event.sequence for event in watched.events] == list(range(1, 13))
    assert domains.keys() == {"simulated-2", "simulated-3"}
    assert not watched.errors


def steps_to(state: State) -> tuple[Step, ...]:
    """How the story gets one there that is off."""
    paths: dict[State, tuple[Step, ...]] = {State.OFF: (), State.SENT: (TRANSITIONS[State.OFF][0], SENT)}
    while state not in paths:
        for reached, path in list(paths.items()):
            for step in TRANSITIONS[reached]:
                paths.setdefault(step.to, (*path, step))
    return paths[state]


IN_TESTS_OF_THEIR_OWN = ("define", "create", "restore", "migrate", "migrate_confirm")
OF_A_DOMAIN = [operation for operation in ASKED if operation not in IN_TESTS_OF_THEIR_OWN]
PAIRS = [(state, operation) for state in State for operation in OF_A_DOMAIN]


@on_each_host
def test_every_operation_in_every_state_is_done_or_refused_as_the_table_says(watch: Watch, host: str) -> None:
    """Done: the table's event, once, and the table's state.  Refused: one error that names operation, domain and
    state; nothing is told, and nothing has changed.
    """
    watched = watch(f"domains={len(PAIRS)}&events=0&memory=1", host)
    world = watched.subscription.world
    with world.lock:
        for index, (state, _) in enumerate(PAIRS):
            world.take(world.cast[index], *steps_to(state))
    watched.settle()
    watched.events.clear()
    asked = [watched.ask(operation, f"simulated-{index}", path="f") for index, (_, operation) in enumerate(PAIRS)]
    watched.wait(lambda: all(one.done for one in asked))
    watched.settle()
    for index, ((state, operation), one) in enumerate(zip(PAIRS, asked, strict=True)):
        check_pair(watched, index, state, operation, one)
    assert not watched.errors


def check_pair(watched: Watched, index: int, state: State, operation: str, asked: Asked) -> None:
    guest, name = watched.subscription.world.cast[index], f"simulated-{index}"
    step = ASKED[operation].get(state)
    if step is not None:
        assert asked() is None, (state, operation)
        # without latency a guest that is asked to shut down is down at once
        ended = [("stopped", "shutdown")] if step.kind is Kind.SHUTDOWN else []
        after = State.OFF if ended else step.to
        assert watched.kinds(name) == [(str(step.kind), step.reason), *ended], (state, operation)
        assert guest.state is after
        return
    with pytest.raises(HypervisorError) as caught:
        asked()
    assert caught.value.operation == operation
    assert caught.value.domain == name
    assert isinstance(caught.value, NoSuchDomain) == (state is State.ABSENT)
    said = "there is no such domain" if state is State.ABSENT else f"it is {state.value}, and must be"
    assert str(caught.value).startswith(f"{watched.uri}: cannot {operation} {name}: {said}")
    assert watched.kinds(name) == []
    assert guest.state is state


def test_a_domain_is_found_by_its_uuid_then_its_name_then_its_id(watch: Watch) -> None:
    """The first of them that is given decides."""
    watched = watch(QUIET)
    watched.answer("start", S1)
    ref = watched.answer("info", S1).domain
    assert ref == DomainRef(S1, ref.uuid, 1)
    for by in (ref, DomainRef(None, ref.uuid), DomainRef("another", ref.uuid), DomainRef(S1), DomainRef(None, None, 1)):
        assert watched.answer("info", by).domain == ref
    for nobody in (DomainRef("another"), DomainRef(S1, "0"), DomainRef(None, None, 2), DomainRef(None)):
        with pytest.raises(NoSuchDomain, match="there is no such domain"):
            watched.answer("info", nobody)


def test_info_says_how_it_is(watch: Watch) -> None:
    """Memory in KiB, none while it is off."""
    watched = watch("domains=2&events=0&memory=2048")
    off = watched.answer("info", S0)
    assert (off.state, off.memory, off.max_memory, off.vcpus, off.persistent) == (Shown.STOPPED, 0, 2048, 1, True)
    watched.answer("start", S0, paused=True)
    paused = watched.answer("info", S0)
    assert (paused.state, paused.memory) == (Shown.PAUSED, 2048)
    watched.settle()
    assert watched.kinds(S0) == [("started", "booted"), ("suspended", "paused")]


@on_each_host
def test_a_guest_takes_as_long_to_shut_down_as_a_call_does(watch: Watch, host: str) -> None:
    """``shutdown`` is answered when it was asked; the end is told when it is."""
    watched = watch("domains=2&events=0&latency=20", host)
    watched.answer("start", S0)
    watched.answer("shutdown", S0)
    assert watched.answer("info", S0).state in (Shown.SHUTDOWN, Shown.STOPPED)
    watched.until(3)
    assert watched.kinds(S0) == [("started", "booted"), ("shutdown", "guest"), ("stopped", "shutdown")]
    assert watched.answer("info", S0).state is Shown.STOPPED


def test_one_that_is_destroyed_while_it_shuts_down_ends_once(watch: Watch) -> None:
    """Exactly one ``stopped``; and the next run is not taken down by the last one's end."""
    watched = watch("domains=2&events=0&latency=1")
    watched.answer("start", S0)
    shutdown = watched.ask("shutdown", S0)
    watched.wait(lambda: shutdown.done)
    world = watched.subscription.world
    with world.lock:
        guest = world.cast[0]
        if guest.state is State.SHUTTING_DOWN:
            world.take(guest, ASKED["destroy"][guest.state], ASKED["start"][State.OFF])
    watched.answer("info", S1)
    watched.answer("info", S1)
    watched.settle()
    assert guest.runs
    assert [kind for kind, _ in watched.kinds(S0)] == ["started", "shutdown", "stopped", "started"]


@on_each_host
def test_domains_are_defined_created_and_gone(watch: Watch, host: str) -> None:
    """A transient one is gone when it stops, and leaves no fd."""
    watched = watch(QUIET, host)
    handles = watched.bridge.stats().handles
    before = watched.answer("list")
    for number in range(6):  # of both models
        ref = watched.answer("define", definition=json.dumps({"name": f"d-{number}", "memory": 512}))
        assert (ref.name, ref.id) == (f"d-{number}", None)
        watched.answer("start", f"d-{number}")
        ref = watched.answer("create", definition={"name": f"t-{number}"}, paused=bool(number % 2))
        assert ref.id
    domains = watched.settle()
    assert listed(domains) == watched.folded(before)
    assert domains["d-0"].memory == 512
    assert domains["t-0"].persistent is False
    assert watched.kinds("d-0") == [("defined", "added"), ("started", "booted")]
    assert watched.kinds("t-1") == [("started", "booted"), ("suspended", "paused")]
    for number in range(6):
        watched.answer("destroy", f"t-{number}")
        watched.answer("destroy", f"d-{number}")
        watched.answer("undefine", f"d-{number}")
    domains = watched.settle()
    assert listed(domains) == watched.folded(before)
    assert len(domains) == 4
    watched.answer("define", definition={"name": "last"})
    assert watched.bridge.stats().handles <= handles + 2, "its own pipe, and perhaps a source"
    assert not watched.errors


def test_many_that_come_and_go_leave_nothing(watch: Watch) -> None:
    """Neither fds nor memory of their names."""
    watched = watch(QUIET)
    for number in range(200):
        watched.answer("create", definition={"name": f"t-{number}"})
        watched.answer("destroy", f"t-{number}")
        watched.settle()
    cast = watched.subscription.world.cast
    assert len(cast) <= 5
    assert len(cast.members) == 4
    assert watched.bridge.stats().handles <= 5
    assert len(watched.events) == 400
    assert not watched.errors


def test_a_definition_that_goes_leaves_what_runs_until_it_ends(watch: Watch) -> None:
    """Undefined while it runs it is transient; defined again it is not."""
    watched = watch(QUIET)
    for domain in (S0, S1):
        watched.answer("start", domain)
        watched.answer("undefine", domain)
        assert watched.answer("info", domain).persistent is False
        with pytest.raises(HypervisorError, match="it is running and transient: define it first"):
            watched.answer("undefine", domain)
    with pytest.raises(HypervisorError, match="cannot managed_save simulated-0: it is running and transient"):
        watched.answer("managed_save", S0)
    watched.answer("define", definition={"name": S1})
    watched.answer("destroy", S0)
    watched.answer("destroy", S1)
    domains = watched.settle()
    assert domains.keys() == {S1, "simulated-2", "simulated-3"}
    assert watched.kinds(S1)[-2:] == [("defined", "added"), ("stopped", "destroyed")]
    # it comes back by its name, as it was
    again = watched.answer("define", definition={"name": S0})
    assert again.uuid == watched.events[0].domain.uuid


REFUSED_DEFINITIONS = [
    ("{", "its definition is no JSON"),
    ("[" * 100_000, "its definition is no JSON"),
    ("[]", 'its definition must be as {"name": "web-1"'),
    (None, "found NoneType"),
    ({}, "its name must be 1 to 255 printable characters; found 'None'"),
    ({"name": ""}, "its name must be"),
    ({"name": "a\nb"}, "its name must be"),
    ({"name": "a", "uuid": "b"}, "its uuid must be one; found 'b'"),
    ({"name": "a", "memory": 0}, "its memory must be from 1 to"),
    ({"name": "a", "memory": True}, "its memory must be from 1 to"),
    ({"name": "a", "cpus": 1}, "its definition has no 'cpus'; there are: name, uuid, memory"),
    ({"name": S0, "uuid": "00000000-0000-0000-0000-000000000001"}, "there is simulated-0 already, with the uuid"),
]


@pytest.mark.parametrize(("definition", "complaint"), REFUSED_DEFINITIONS)
@pytest.mark.parametrize("operation", ["define", "create"])
def test_a_definition_that_is_not_understood_is_one_clear_error(
    watch: Watch, operation: str, definition: object, complaint: str
) -> None:
    """Nothing is told, nobody is there."""
    watched = watch(QUIET)
    with pytest.raises(HypervisorError) as caught:
        watched.answer(operation, definition=definition)
    assert f"cannot {operation}" in str(caught.value)
    assert complaint in str(caught.value)
    assert len(watched.settle()) == 4
    assert not watched.events


def test_one_uuid_is_one_domain(watch: Watch) -> None:
    """Another name with it is refused."""
    watched = watch(QUIET)
    uuid = watched.answer("info", S0).domain.uuid
    with pytest.raises(HypervisorError, match="there is simulated-0 already"):
        watched.answer("define", definition={"name": "another", "uuid": uuid.upper()})
    assert watched.answer("define", definition={"name": S0, "uuid": uuid.upper()}).uuid == uuid
    with pytest.raises(HypervisorError, match="it is running, and must be absent or off"):
        watched.answer("start", S0)
        watched.answer("create", definition={"name": S0})


@on_each_host
def test_a_list_of_ten_thousand_is_made_in_pieces_and_true_at_its_end(watch: Watch, host: str) -> None:
    """What changes while it is made is in it as it is at the end; the loop goes on meanwhile."""
    watched = watch("domains=3000&events=0", host)
    asked = watched.ask("list")
    changes = [watched.ask("start", f"simulated-{index}") for index in (0, 1, 2998, 2999)]
    changes += [watched.ask("undefine", "simulated-5")]
    watched.wait(lambda: asked.done)
    assert all(change.done for change in changes), "they went through while it was made"
    infos = {info.domain.name: info for info in asked()}
    assert len(infos) == 2999
    assert {name for name, info in infos.items() if info.state is Shown.RUNNING} == {
        "simulated-0",
        "simulated-1",
        "simulated-2998",
        "simulated-2999",
    }
    assert not watched.subscription.world.listings


@on_each_host
def test_many_calls_at_once_are_all_answered_in_time(watch: Watch, host: str) -> None:
    """``latency=MS``: each takes so long, all of them beside each other; from any thread; answered on the loop's."""
    watched = watch("domains=500&events=0&latency=30", host)
    asked: list[Asked] = []

    def other() -> None:
        asked.extend(watched.ask("start", f"simulated-{index}") for index in range(500))

    watched.run_beside(other)
    watched.wait(lambda: all(one.done for one in asked))
    assert all(one() is None for one in asked)
    assert set.union(*(one.threads for one in asked)) == {threading.get_ident()}
    watched.settle()
    assert len(watched.events) == 500
    assert watched.bridge.stats().handles <= 253, "nothing was registered for them"


@on_each_host
def test_nothing_is_answered_within_begin(watch: Watch, host: str) -> None:
    """It never blocks and never answers there, while it is open."""
    watched = watch(QUIET, host)
    asked = [watched.ask(operation, S0) for operation in ("info", "start", "list", "info")]
    assert not any(one.done for one in asked)
    watched.wait(lambda: all(one.done for one in asked))
    assert [asked[0]().state, asked[3]().state] == [Shown.STOPPED, Shown.RUNNING], "in the order they were asked"


def test_what_is_aborted_before_its_turn_is_not_done(watch: Watch) -> None:
    """`JobAborted`, and nothing happened."""
    watched = watch(QUIET)
    asked = watched.ask("start", S0)
    asked.request.abort()
    watched.wait(lambda: asked.done)
    with pytest.raises(JobAborted, match="start: aborted before it had begun"):
        asked()
    watched.settle()
    assert not watched.events


@on_each_host
def test_after_close_everything_is_refused_and_what_is_under_way_too(watch: Watch, host: str) -> None:
    """`ConnectionLost`, each once; nothing is done behind it."""
    watched = watch("domains=4&events=0&latency=60000", host)
    under_way = [watched.ask(operation, S0) for operation in ("start", "list", "info")]
    watched.subscription.close()
    after = watched.ask("info", S0)
    for one in (*under_way, after):
        with pytest.raises(ConnectionLost, match="open another"):
            one()
    watched.wait(watched.bridge.is_empty)
    assert not watched.events


def test_a_failing_receiver_of_answers_is_reported_and_the_others_are_answered(watch: Watch) -> None:
    """D4."""
    watched = watch(QUIET)

    class Failing(Asked):
        def ended(self, *given: object) -> None:
            super().ended(*given)
            raise RuntimeError("the receiver's own")

    failing = Failing("info", DomainRef(S0), {})
    watched.subscription.begin(failing.request)
    asked = watched.ask("info", S1)
    watched.wait(lambda: asked.done)
    assert failing.done
    assert [str(error) for error in watched.errors] == ["the receiver's own"]


def test_a_defect_is_reported_and_nobody_waits_for_ever(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, with its words; the next call is answered."""

    def defect(session: object, request: object) -> None:
        raise ZeroDivisionError("nothing left")

    monkeypatch.setitem(CALLS, "info", defect)
    watched = watch(QUIET)
    with pytest.raises(HypervisorError, match="cannot info: a defect of the simulation: ZeroDivisionError: nothing"):
        watched.answer("info", S0)
    assert [str(error) for error in watched.errors] == ["nothing left"]
    assert watched.answer("start", S0) is None


def test_each_state_of_the_table_is_one_that_is_shown() -> None:
    """A run is a run in both tables."""
    for state in RUNS:
        assert state in ASKED["destroy"]
    for row in ASKED.values():
        assert set(row) <= set(State)
