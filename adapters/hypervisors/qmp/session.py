"""One QEMU that is open: a `eventbridge.hypervisor.driver.Session`, natively asynchronous.

A request is a script (`scripts`) that is played on the loop's thread over the one socket (`source`); from other threads
it gets there by the mailbox.  There is no thread, and a QEMU that does not answer costs nobody else anything.

``_lock`` is held over what `begin`, `close` and the loop share, and never while anything of somebody else's is called.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from eventbridge.core.affinity import hook_side
from eventbridge.core.bridge import BridgeCore
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import BridgeClosed, BridgeForked, ConnectionLost, UnknownHandle
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress

from . import commands, migration_in, migration_out, queries
from .codec import Event
from .scripts import QemuEnded, Running, Script
from .source import QmpSource
from .vm import Vm

log = logging.getLogger(__name__)

Operation = Callable[[Vm, Request], Script]

OPERATIONS: dict[str, Operation] = {
    "list": queries.list_domains,
    "info": queries.info,
    "console_info": queries.console_info,
    "start": commands.start,
    "suspend": commands.suspend,
    "resume": commands.resume,
    "shutdown": commands.shutdown,
    "reboot": commands.reboot,
    "destroy": commands.destroy,
    "save": migration_out.save,
    "migrate": migration_out.migrate,
    "migrate_confirm": migration_out.confirm,
    "set_bandwidth": migration_out.set_limits,
    "set_downtime": migration_out.set_limits,
    "migrate_prepare": migration_in.prepare,
    "migrate_finish": migration_in.finish,
    "migrate_cancel": migration_in.cancel,
}
_LONG = frozenset(("save", "migrate"))
"""Given up, these are cut short; of the others no further command is sent."""
_LEFT_BEHIND = frozenset(("eof",))
"""Ends of a connection that are a domain's end."""


def _raise(error: Exception) -> None:
    raise error


class QmpSession:
    """``source`` is open, and nobody's yet; ``tell(kind, domain, reason, raw)`` is where events go."""

    operations = frozenset(OPERATIONS)

    def __init__(self, bridge: BridgeCore, source: QmpSource, vm: Vm, tell: Callable[..., object]) -> None:
        self._bridge = bridge
        self._source = source
        self._vm = vm
        self._tell = tell
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._telling = 0  # calls of `_tell` under way, one inside the other where it runs the loop,
        self._teller = 0  # on this thread
        self._under_way: dict[Request, Running | None] = {}
        self._lost: ConnectionLost | None = None
        self._closed = False
        self._attached = False
        self._mailbox = Mailbox(bridge)
        source.on_event = self._event
        source.on_end = self._ended

    def attach(self, early: list[Event]) -> None:
        """From now on the loop drains it; ``early`` events came while it was opened."""
        self._mailbox.put(functools.partial(self._events, early))
        self._bridge.add_source(self._source)
        self._attached = True

    # -- any thread

    @hook_side
    def begin(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.begin`."""
        with self._lock:
            lost = self._lost
            if lost is None:
                self._under_way[request] = None
        if lost is None and self._mailbox.put(functools.partial(self._start, request)):
            return
        self._finish(request, None, lost or self._closed_here())

    @hook_side
    def given_up(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.given_up`: a command that is not sent yet never is."""
        if request.operation in _LONG:
            request.abort()
        else:
            self._mailbox.put(functools.partial(self._give_up, request))

    def close(self) -> None:
        """As `eventbridge.hypervisor.driver.Subscription.close`.  QEMU runs on, and so does a migration that is under
        way.
        """
        with self._lock:
            first, self._closed = not self._closed, True
            while self._telling and self._teller != threading.get_ident():
                self._idle.wait()
        if not first:
            return
        self._refuse_all(self._closed_here())
        self._mailbox.close()
        if self._attached:
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                self._bridge.remove_source(self._source)  # which closes the socket, on the loop's thread
        else:
            self._source.detached()

    # -- the loop's thread

    def _start(self, request: Request) -> None:
        if self._closed or request.done:
            return
        try:
            self._vm.check(request)
        except LookupError as error:
            self._finish(request, None, error)
            return
        script = OPERATIONS[request.operation](self._vm, request)
        running = self._source.play(script, functools.partial(self._finish, request))
        with self._lock:
            if request in self._under_way:
                self._under_way[request] = running
        self._refresh()

    def _give_up(self, request: Request) -> None:
        running = self._under_way.get(request)
        if running is not None:
            self._source.player.give_up(running)
            self._refresh()

    def wake(self) -> None:
        """Scripts that wait look again.  Any thread."""
        self._mailbox.put(self._wake)

    def _wake(self) -> None:
        self._source.player.wake()
        self._source.flush()
        self._refresh()

    def _refresh(self) -> None:
        """What it is to be polled for, outside its own drain."""
        with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
            self._bridge.update_source(self._source)

    def _events(self, early: list[Event]) -> None:
        for event in early:
            self._event(event)

    def _event(self, event: Event) -> None:
        self._vm.life.take(event)
        if event.name == "MIGRATION":
            self._source.player.wake()

    def told(self, kind: Kind, reason: str | None, raw: Any) -> None:
        """`run_state.Tell`."""
        self._pass_on(kind, self._vm.ref, reason, raw)

    def _pass_on(self, *event: Any) -> None:
        with self._lock:
            if self._closed:
                return
            self._telling += 1
            self._teller = threading.get_ident()
        try:
            self._contained(self._tell, *event)
        finally:
            with self._lock:
                self._telling -= 1
                self._idle.notify_all()

    def _ended(self, reason: str, error: ConnectionLost) -> None:
        with self._lock:
            self._lost = self._lost or error
        migration_in.forget(self._vm)
        if reason in _LEFT_BEHIND:
            self._vm.life.ended({"connection": str(error)})
        # Answers come before the connection's end is told: to whoever asked for this end it is his answer, and whoever
        # hears of a lost connection takes all that is under way for lost.
        self._source.player.end(error)
        with self._lock:
            waiting = list(self._under_way)  # in the mailbox yet
        for request in waiting:
            self._finish(request, None, error)
        if reason != "closed":
            self._pass_on(Kind.CONNECTION_LOST, None, reason, {"error": str(error)})

    # -- answers

    def _finish(self, request: Request, value: Any, error: BaseException | None) -> None:
        with self._lock:
            self._under_way.pop(request, None)
        if error is None:
            self._contained(request.answer, value)
        elif isinstance(error, QemuEnded) and request.operation == "migrate_cancel":
            self._contained(request.answer, None)  # nothing of it is left, indeed
        else:
            self._contained(request.refuse, self._vm.told(request.operation, error))

    def tell(self, request: Request, progress: Progress) -> None:
        """A script's, of how far it is."""
        self._contained(request.tell, progress)

    def _contained(self, call: Callable[..., object], *arguments: Any) -> None:
        """Foreign code: what it raises is the bridge's to report (D4), and ends nothing here."""
        try:
            call(*arguments)
        except Exception as error:
            if not self._mailbox.put(functools.partial(_raise, error)):
                log.exception("%s: of %r", self._vm.uri, call)

    def _refuse_all(self, error: ConnectionLost) -> None:
        with self._lock:
            self._lost = self._lost or error
            under_way = list(self._under_way)
        for request in under_way:
            self._finish(request, None, error)

    def _closed_here(self) -> ConnectionLost:
        return ConnectionLost(f"{self._vm.uri}: the connection was closed here")
