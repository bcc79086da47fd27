"""Nothing that may be called on the loop's thread waits there, whatever hangs: each public method and property, found
by inspection, is called on it while the hypervisor answers nobody, or cannot be opened, or its library is stuck with
its lock held.  No time is measured: what waits does not come back.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pty
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from eventbridge import Bridge, Connection, Domain, EventStream, Job, LongCall
from eventbridge.connection.call import Abort, Call
from eventbridge.connection.console import ConsoleSession
from eventbridge.connection.resync import Resync
from eventbridge.errors import EventBridgeError, HypervisorError
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Emit, Kind
from eventbridge.hypervisor.model import ConsoleInfo, ConsoleKind, DomainInfo, DomainRef, State
from eventbridge.hypervisor.operations import OPERATIONS
from eventbridge.hypervisor.request import Request
from eventbridge.hypervisor.worker_pool import BlockingSession
from eventbridge.jobs import Progress
from eventbridge.plugins import BuiltIn
from tests.connection.sim_rig import S0, Rig
from tests.support.patience import PATIENCE

UUID = "00000000-0000-0000-0000-000000000001"
REF = DomainRef("d1", UUID, 1)
GONE = DomainEvent(Kind.CONNECTION_LOST, None, "eof", "stuck:///", 1, 0.0, raw={"error": "it has gone"})
EVENT = DomainEvent(Kind.SUSPENDED, REF, None, "stuck:///", 1, 0.0)

# -- a hypervisor whose library is stuck


class Library:
    """It has one lock, as libraries have, and whoever is in it may stay there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opening = threading.Event()
        self.opening.set()

    def do(self, request: Request) -> object:
        with self.lock:
            info = DomainInfo(REF, State.RUNNING, persistent=True)
            return {"list": [info], "info": info}.get(request.operation)


class StuckSession(BlockingSession):
    """A `driver.Session`."""

    def __init__(self, uri: str, library: Library, emit: Emit) -> None:
        super().__init__(uri)
        self._library = library
        self.calls = dict.fromkeys(OPERATIONS, library.do)
        self.emit = emit

    def close(self) -> None:
        with self._library.lock:
            self.close_calls()


class StuckDriver:
    """A `driver.Driver`."""

    library: Library

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> StuckSession:
        assert self.library.opening.wait(PATIENCE)
        with self.library.lock:
            return StuckSession(uri, self.library, emit)

    def version(self) -> str:
        return "stuck (a stand-in)"


driver = StuckDriver()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    monkeypatch.setitem(lookup.DRIVERS.built_in, "stuck", BuiltIn(f"{__name__}:driver", "it is a stand-in"))
    driver.library = Library()
    yield driver.library
    while PTYS:
        os.close(PTYS.pop())


# -- the ways in which something hangs: each gives a connection, and what lets go

Stuck: TypeAlias = tuple[Connection, Callable[[], object]]


def it_is_being_opened(rig: Rig, library: Library) -> Stuck:
    library.opening.clear()
    return rig.connect("stuck:///"), library.opening.set


def its_library_is_stuck(rig: Rig, library: Library) -> Stuck:
    connection = rig.connect("stuck:///")
    rig.ok(connection.opened)
    library.lock.acquire()
    for number in range(20):  # more than there are threads
        connection.ask("info", DomainRef(f"other-{number}"))
    return connection, library.lock.release


def it_is_lost_and_cannot_be_closed_nor_opened(rig: Rig, library: Library) -> Stuck:
    connection = rig.connect("stuck:///")
    rig.ok(connection.opened)
    library.lock.acquire()
    session = connection.session
    assert isinstance(session, StuckSession)
    connection.soon(lambda: session.emit(GONE))
    rig.until(lambda: connection.state == "lost")
    return connection, library.lock.release


def its_world_is_frozen(rig: Rig, library: Library) -> Stuck:
    world = rig.world("domains=2").running(S0)
    connection = rig.connect(world.uri)
    rig.ok(connection.opened)
    world.simulation.freeze()
    for domain in connection.known:
        connection.ask("info", domain.ref)
    return connection, world.simulation.thaw


def it_is_closed(rig: Rig, library: Library) -> Stuck:
    connection = rig.connect("stuck:///")
    rig.ok(connection.opened)
    rig.ok(connection.close())
    return connection, lambda: None


WAYS = [
    it_is_being_opened,
    its_library_is_stuck,
    it_is_lost_and_cannot_be_closed_nor_opened,
    its_world_is_frozen,
    it_is_closed,
]

# -- what there is to be called, and with what

Arguments: TypeAlias = "tuple[Any, ...] | Callable[[Connection], tuple[Any, ...]]"


def nothing(*_: object) -> None:
    pass


def a_call(connection: Connection) -> Call[Any]:
    return connection.ask("info", REF)


def a_long_call(connection: Connection) -> LongCall[Any]:
    return connection.ask_long("save", REF, arguments={"path": "/a"})


def a_domain(connection: Connection) -> Domain:
    known = next(iter(connection.known), None)
    return Domain(connection, REF if known is None else known.ref)


PTYS: list[int] = []


def a_console(connection: Connection) -> tuple[Any, ...]:
    main, tty = pty.openpty()
    name = os.ttyname(tty)
    PTYS.extend((main, tty))
    info = ConsoleInfo(ConsoleKind.PV, 0, None, 1, tty=name)
    return (info, nothing)


LIFE: dict[str, Arguments] = {"__aenter__": (), "__aexit__": (None, None, None)}
ANY_CALL: dict[str, Arguments] = {
    "__await__": (),
    "cancel": (),
    "cancels": (nothing,),
    "on_done": (nothing,),
    "result": (),
    "settle": (None,),
    "soon": (nothing,),
}

TABLE: dict[type, tuple[Callable[[Connection], Any], dict[str, Arguments]]] = {
    Connection: (
        lambda connection: connection,
        {
            **LIFE,
            "after_passes": (nothing,),
            "ask": ("info", REF),
            "ask_long": ("save", REF),
            "ask_plainly": ("list", None, nothing),
            "close": (),
            "create": ({"name": "a"},),
            "define": ({"name": "a"},),
            "domain": ("a",),
            "domains": (),
            "events": (),
            "job_began": lambda connection: (_Doing(),),
            "job_ended": lambda connection: (_Doing(), None),
            "leave": lambda connection: (EventStream(connection),),
            "link_event": (EVENT,),
            "link_failed": (HypervisorError("no"),),
            "link_lost": (None, None, "no"),
            "link_opened": (),
            "lost": (),
            "new_call": ("a",),
            "restore": ("/a",),
            "resynced": lambda connection: (Resync(connection, True), None),
            "soon": (nothing,),
            "subscribe": (nothing,),
            "suspect": (),
            "tell_missed": ([(Kind.SUSPENDED, REF, None)],),
        },
    ),
    Domain: (
        a_domain,
        {
            **dict.fromkeys("info start suspend resume shutdown reboot destroy undefine managed_save".split(), ()),
            "abort_job": (),
            "console_info": (),
            "hold": (Job.MODIFY,),
            "migrate": lambda connection: (connection,),
            "open_console": (),
            "save": ("/a",),
            "set_bandwidth": (1,),
            "set_downtime": (1,),
            "stream_console": a_console,
        },
    ),
    Call: (a_call, ANY_CALL),
    LongCall: (
        a_long_call,
        {
            **LIFE,
            **ANY_CALL,
            "__aiter__": (),
            "abort": (),
            "aborts": (nothing,),
            "on_progress": (nothing,),
            "progressed": (Progress(),),
        },
    ),
    Abort: (lambda connection: a_long_call(connection).abort(), {"__await__": (), "result": ()}),
    EventStream: (
        lambda connection: connection.events(),
        {**LIFE, "__aiter__": (), "__anext__": (), "close": (), "end": (), "put": (EVENT, UUID, None), "take": ()},
    ),
    ConsoleSession: (
        lambda connection: a_domain(connection).open_console(),
        {**LIFE, "__aiter__": (), "__anext__": (), "write": (b"a",)},
    ),
}
AWAITED = {"__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__"}


class _Doing:
    """An `invocation.Doing`."""

    operation, job, domain, key = "save", Job.SAVE, REF, UUID


def members(kind: type) -> dict[str, object]:
    found = dict(inspect.getmembers_static(kind))
    return {name: member for name, member in found.items() if not name.startswith("_") or name in AWAITED}


def methods(kind: type) -> set[str]:
    return {name for name, member in members(kind).items() if inspect.isroutine(member)}


def properties(kind: type) -> set[str]:
    return {name for name, member in members(kind).items() if isinstance(member, property)}


@pytest.mark.parametrize("kind", TABLE)
def test_every_method_is_in_the_table(kind: type) -> None:
    """A new one is to be added there: so it cannot be forgotten."""
    assert methods(kind) == TABLE[kind][1].keys()


def on_the_loop(rig: Rig, step: Callable[[], object]) -> None:
    """The loop runs, and calls it; what it raises comes out here."""
    outcome: list[BaseException | None] = []

    def due(id: int, opaque: object) -> None:
        rig.bridge.remove_timeout(id)
        try:
            step()
        except BaseException as error:
            outcome.append(error)
        else:
            outcome.append(None)

    rig.bridge.add_timeout(0, due)
    rig.until(lambda: bool(outcome))
    if outcome[0] is not None:
        raise outcome[0]


class Enough(BaseException):
    """It waits, so it has not waited."""


def as_far_as_it_goes(found: Any) -> None:
    """What is to be awaited goes on until it waits for the loop."""
    if inspect.isasyncgen(found):
        found = found.__anext__()
    if hasattr(found, "send"):
        with contextlib.suppress(Enough, StopIteration, StopAsyncIteration, EventBridgeError):
            found.send(None)
            found.throw(Enough())
    elif hasattr(found, "close") and hasattr(found, "write"):  # a console's stream
        found.close()


def call(kind: type, name: str, connection: Connection) -> None:
    make, table = TABLE[kind]
    arguments = table[name]
    with contextlib.suppress(EventBridgeError, AssertionError):  # refused at once, or not entered before
        bound = getattr(make(connection), name)
        as_far_as_it_goes(bound(*(arguments(connection) if callable(arguments) else arguments)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", TABLE)
def test_none_of_them_waits(rig: Rig, library: Library, kind: type, way: Callable[[Rig, Library], Stuck]) -> None:
    names = sorted(methods(kind))
    for name in names:
        connection, let_go = way(rig, library)
        try:
            on_the_loop(rig, lambda name=name, connection=connection: call(kind, name, connection))
        finally:
            let_go()
        rig.ok(connection.close())
        rig.connections.remove(connection)


@pytest.mark.parametrize("way", WAYS)
def test_no_property_waits(rig: Rig, library: Library, way: Callable[[Rig, Library], Stuck]) -> None:
    connection, let_go = way(rig, library)

    def look() -> None:
        for kind, (make, _) in TABLE.items():
            found = make(connection)
            for name in [*properties(kind), "__repr__", "__hash__"]:
                value = getattr(found, name)
                assert not name.startswith("__") or value() is not None

    on_the_loop(rig, look)
    let_go()


def test_a_result_is_refused_on_the_loops_thread_and_waited_for_on_another(rig: Rig, library: Library) -> None:
    connection, let_go = its_library_is_stuck(rig, library)
    found = a_call(connection)
    with pytest.raises(HypervisorError, match="this thread runs the loop"):
        on_the_loop(rig, found.result)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(found.result(PATIENCE)))
    thread.start()
    let_go()
    rig.join(thread)
    assert results == [DomainInfo(REF, State.RUNNING, persistent=True)]
