"""``qmp+unix:///path`` and ``qmp+tcp://host:port``: one QEMU by its own monitor; its machine is the one domain.

Opening blocks the thread that opens, with one deadline over all of it, and drives the same source that the loop does
afterwards.  A monitor serves one client at a time: a second one waits in its queue, and is told so.
"""

from __future__ import annotations

import contextlib
import errno
import select
from time import monotonic
from typing import Any, NamedTuple

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.masks import Events
from eventbridge.core.version import VERSION
from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.hypervisor.events import Emit, Kind, Sequencer
from eventbridge.hypervisor.model import DomainRef

from .codec import LINE_LIMIT, Event
from .migration_common import EVENTS, capabilities
from .run_state import Life
from .scripts import Command, CommandFailed, Script, Wait
from .session import QmpSession
from .source import QmpSource
from .transport import Address, Link, connect
from .vm import NO_UUID, Vm

OPEN_SECONDS = 10.0
"""For connecting, QEMU's greeting and a handful of replies, together."""


class QmpDriver:
    """`eventbridge.hypervisor.driver.Driver`.  ``open_seconds`` and ``line_limit`` (bytes) are for who needs others."""

    def __init__(self, open_seconds: float = OPEN_SECONDS, line_limit: int = LINE_LIMIT) -> None:
        self._open_seconds = open_seconds
        self._line_limit = line_limit

    def subscribe(self, uri: str, bridge: BridgeCore, emit: Emit) -> QmpSession:
        """As `eventbridge.hypervisor.driver.Driver.subscribe`."""
        until = monotonic() + self._open_seconds
        address = Address.parse(uri)
        link = connect(uri, address, self._open_seconds)
        source = QmpSource(uri, link, self._line_limit)
        try:
            found, early = _Opening(uri, source, until).run()
            return _session(uri, address, bridge, emit, source, link, found, early)
        except BaseException:
            source.detached()
            raise

    def version(self) -> str:
        return f"QMP, part of eventbridge {VERSION}"


def _session(
    uri: str,
    address: Address,
    bridge: BridgeCore,
    emit: Emit,
    source: QmpSource,
    link: Link,
    found: _Found,
    early: list[Event],
) -> QmpSession:
    ref = DomainRef(found.name or address.stem, None if found.uuid == NO_UUID else found.uuid, link.peer)
    tell = Sequencer(uri, emit)

    def told(kind: Kind, reason: str | None, raw: Any) -> None:
        session.told(kind, reason, raw)

    vm = Vm(
        uri,
        address,
        ref,
        Life(told, found.status),
        lambda: session.wake(),
        lambda request, progress: session.tell(request, progress),
    )
    session = QmpSession(bridge, source, vm, tell)
    try:
        session.attach(early)
    except BaseException:
        session.close()
        raise
    return session


class _Found(NamedTuple):
    """What the first questions are answered with."""

    name: str | None
    uuid: str
    status: str


class _Opening:
    """Until the first questions are answered."""

    def __init__(self, uri: str, source: QmpSource, until: float) -> None:
        self._uri = uri
        self._source = source
        self._until = until
        self._early: list[Event] = []
        self._doing = "its greeting"
        self._result: list[tuple[Any, BaseException | None]] = []
        source.on_event = self._early.append

    def run(self) -> tuple[_Found, list[Event]]:
        self._source.play(self._ask(), lambda value, error: self._result.append((value, error)))
        poll = select.poll()
        while not self._result:
            wanted = self._source.events()
            poll.register(self._source.fileno(), select.POLLIN | (select.POLLOUT if wanted & Events.WRITABLE else 0))
            left = 0.0 if self._source.deadline() is not None else self._until - monotonic()
            ready = poll.poll(max(0, left) * 1000)
            if monotonic() > self._until:
                raise self._late()
            self._source.drain(Events.READABLE if ready else 0)
        value, error = self._result[0]
        if error is not None:
            raise self._refusal(error)
        return value, self._early

    def _ask(self) -> Script:
        while self._source.greeting is None:
            yield Wait()
        self._doing = "an answer"
        oob = {"enable": ["oob"]} if "oob" in self._source.greeting.capabilities else {}
        yield Command("qmp_capabilities", oob)
        with contextlib.suppress(CommandFailed):  # a migration is under way, or this QEMU knows of none
            yield capabilities(EVENTS)
        name = yield Command("query-name")
        uuid = yield Command("query-uuid")
        status = yield Command("query-status")
        return _Found(name.get("name"), str(uuid.get("UUID", NO_UUID)).lower(), str(status.get("status")))

    def _late(self) -> HypervisorError:
        hint = (
            "another client has this monitor, which serves one at a time; or QEMU hangs"
            if self._source.greeting is None
            else "QEMU hangs"
        )
        return HypervisorError(
            f"{self._uri}: {self._doing} did not come in time: {hint}", code=errno.ETIMEDOUT, operation="open"
        )

    def _refusal(self, error: BaseException) -> BaseException:
        if isinstance(error, ConnectionLost | CommandFailed):
            return HypervisorError(f"{self._uri}: cannot be opened: {error}", operation="open")
        return (
            error
            if isinstance(error, EventBridgeError)
            else HypervisorError(
                f"{self._uri}: cannot be opened: its first answers are not QEMU's: {error!r}", operation="open"
            )
        )


driver = QmpDriver()
