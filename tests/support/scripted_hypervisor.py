"""A hypervisor that does what a test says: a stand-in, for what real ones cannot be made to do at a chosen moment.

It has a truth (`Scripted.domains`), tells what happens to it, and answers from it; each of these can be held back, and
let go in whatever order.  Its URI is ``scripted:///NAME``.
"""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from eventbridge.bridge import Bridge
from eventbridge.connection.inventory import AFTER
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent, Emit, Kind
from eventbridge.hypervisor.model import DomainInfo, DomainRef, State
from eventbridge.hypervisor.request import Request
from eventbridge.plugins import BuiltIn
from tests.support.patience import PATIENCE

STATES = {"start": Kind.STARTED, "suspend": Kind.SUSPENDED, "resume": Kind.RESUMED, "destroy": Kind.STOPPED}
MIGRATES = frozenset("migrate migrate_prepare migrate_finish migrate_cancel migrate_confirm".split())
OPERATIONS = frozenset([*STATES, *MIGRATES, "list", "info", "save", "define", "undefine"])


def uuid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012}"


class Scripted:
    """One hypervisor."""

    def __init__(self, name: str) -> None:
        self.uri = f"scripted:///{name}"
        self.domains: dict[str, DomainInfo] = {}
        self.sessions: list[ScriptedSession] = []
        self.refusals = 0
        """How often opening it fails."""
        self.holds_answers = False
        self.holds_events = False
        self.held: collections.deque[Request] = collections.deque()
        self.asked: list[tuple[str, str | None]] = []
        self.given_up: list[str] = []
        self.opening = threading.Event()
        self.opening.set()
        self._ids = 0

    # -- its truth

    def add(self, number: int, state: State = State.STOPPED, persistent: bool = True) -> str:
        """There is one, and nobody is told."""
        key = uuid(number)
        id = None if state is State.STOPPED else self._next_id()
        self.domains[key] = DomainInfo(DomainRef(f"d{number}", key, id), state, persistent=persistent)
        return key

    def happen(self, kind: Kind, key: str, *, told: bool = True, number: int = 0) -> None:
        """Something happens; ``told``, to whoever is connected."""
        info = self.domains.get(key)
        if info is None:
            info = DomainInfo(DomainRef(f"d{int(key[-12:])}", key), State.STOPPED, persistent=False)
        ref = info.domain
        if kind is Kind.STARTED:
            ref = replace(ref, id=self._next_id())
        persistent = kind is Kind.DEFINED or (bool(info.persistent) and kind is not Kind.UNDEFINED)
        state = AFTER.get(kind, info.state)
        if state is State.STOPPED:
            ref = replace(ref, id=None)
        self.domains[key] = DomainInfo(ref, state, persistent=persistent)
        if state is State.STOPPED and not persistent:
            del self.domains[key]
        for session in self.sessions if told else ():
            session.emit(kind, ref)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    # -- its connections

    def break_off(self) -> None:
        """Everybody's connection is lost."""
        for session in list(self.sessions):
            session.break_off()

    def release_events(self) -> None:
        self.holds_events = False
        for session in self.sessions:
            session.release()

    def release_answers(self) -> None:
        self.holds_answers = False
        while self.held:
            self.answer(self.held.popleft())

    # -- its answers

    def answer(self, request: Request) -> None:
        self.asked.append((request.operation, request.domain and request.domain.name))
        operation, key = request.operation, request.domain and request.domain.uuid
        if operation == "list":
            request.answer(list(self.domains.values()))
        elif operation in MIGRATES:
            request.answer(self._step_of_migration(request))
        elif key not in self.domains:
            request.refuse(NoSuchDomain(f"{self.uri}: there is no domain {key}", operation=operation))
        elif operation == "info":
            request.answer(self.domains[key])
        elif operation in STATES:
            self._do(request, operation, key)
        else:
            request.refuse(HypervisorError(f"{operation}: not in the script", operation=operation))

    def _step_of_migration(self, request: Request) -> object:
        """It always succeeds; what happens to the domain is the test's to say."""
        if request.operation == "migrate_prepare":
            return "scripted:there"
        if request.operation == "migrate_finish":
            return DomainInfo(request.arguments["source"], State.RUNNING, persistent=False)
        return None

    def _do(self, request: Request, operation: str, key: str) -> None:
        runs = self.domains[key].state is not State.STOPPED
        if runs is (operation == "start"):
            request.refuse(HypervisorError(f"{operation} of {key}: it is {self.domains[key].state}", code=55))
            return
        self.happen(STATES[operation], key)
        request.answer()


class ScriptedSession:
    """A `driver.Session`."""

    operations = OPERATIONS

    def __init__(self, hypervisor: Scripted, bridge: Bridge, emit: Emit) -> None:
        self._hypervisor = hypervisor
        self._emit = emit
        self._mailbox = Mailbox(bridge)
        self._held: collections.deque[DomainEvent] = collections.deque()
        self._sequence = 0
        self.closed = False
        self.gone = False
        """It refuses everything, and does not say why."""

    def emit(
        self, kind: Kind, ref: DomainRef | None, reason: str | None = None, raw: Mapping[str, Any] | None = None
    ) -> None:
        self._sequence += 1
        self._held.append(DomainEvent(kind, ref, reason, self._hypervisor.uri, self._sequence, 0.0, raw=raw or {}))
        if not self._hypervisor.holds_events or kind is Kind.CONNECTION_LOST:
            self.release()

    def release(self) -> None:
        while self._held:
            self._mailbox.put(functools.partial(self._tell, self._held.popleft()))

    def _tell(self, event: DomainEvent) -> None:
        if not self.closed:
            self._emit(event)

    def break_off(self) -> None:
        self._hypervisor.sessions.remove(self)
        self.emit(Kind.CONNECTION_LOST, None, "eof")

    def begin(self, request: Request) -> None:
        if self.closed or self.gone:
            request.refuse(ConnectionLost("the script's session is closed"))
        elif self._hypervisor.holds_answers:
            self._hypervisor.held.append(request)
        else:
            self._hypervisor.answer(request)

    def given_up(self, request: Request) -> None:
        self._hypervisor.given_up.append(request.operation)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self in self._hypervisor.sessions:
            self._hypervisor.sessions.remove(self)
        self._mailbox.close()


class ScriptedDriver:
    """A `driver.Driver`."""

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> ScriptedSession:
        hypervisor = _hypervisors[uri]
        assert hypervisor.opening.wait(PATIENCE)
        if hypervisor.refusals:
            hypervisor.refusals -= 1
            raise HypervisorError(f"{uri}: refused, as the script has it", operation="open")
        session = ScriptedSession(hypervisor, bridge, emit)
        hypervisor.sessions.append(session)
        return session

    def version(self) -> str:
        return "scripted (a stand-in)"


driver = ScriptedDriver()
_hypervisors: dict[str, Scripted] = {}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Scripted]]:
    """``script(name)`` makes a hypervisor."""
    monkeypatch.setitem(lookup.DRIVERS.built_in, "scripted", BuiltIn(f"{__name__}:driver", "it is a stand-in"))

    def make(name: str = "one") -> Scripted:
        made = _hypervisors[f"scripted:///{name}"] = Scripted(name)
        return made

    yield make
    _hypervisors.clear()


@pytest.fixture
def scripted(script: Callable[[str], Scripted]) -> Scripted:
    return script("one")
