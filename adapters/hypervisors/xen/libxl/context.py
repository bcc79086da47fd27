"""A libxl_ctx served by a bridge: what an application holds.  Rules 1, 2, 10 to 13 and 15 of Xen's, and the end of it.

libxl is told of its fds and timeouts in the bridge's callbacks; what it then calls back with goes through the mailbox,
and is delivered as soon as libxl has returned, on the loop's thread, with nothing of libxl's held.

Its end.  ``libxl_ctx_free`` needs that nobody is inside libxl and no operation is under way, and it speaks to
xenstored, which may be frozen.  So `close` aborts what is under way, and the last one out has the ctx freed on a
thread of its own. What can never come to an end, an operation whose bridge is closed or whose xenstored never
answers, keeps its ctx, unfreed: a leak is the least evil there, for freeing it would abort the process."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable
from typing import Any

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import BridgeClosed, BridgeForked, HypervisorError, UnknownHandle
from eventbridge.hypervisor.model import DomainInfo

from . import children, domains, types
from .async_operation import Call, Operation, Operations
from .domains import Domains
from .events import Event, Generators, read
from .handle import Ctx
from .hooks import Hooks

CLOSE_SECONDS = 2.0
"""How long `Context.close` waits for libxl."""
ERROR_NI = -4
_ALL_EVENTS = 2**64 - 1

log = logging.getLogger(__name__)

OnEvent = Callable[[Event], object]

_living: set[Context] = set()
"""Those that libxl may call back: whatever their owners do, they are not to be collected."""


class Context:
    """``Context(bridge)``; ``on_event(event)`` is called on the loop's thread for each of libxl's events.

    ``tell(event)`` is called instead where it is given, at once and on whichever thread is inside libxl, for who has a
    ``mailbox`` of his own.  ``library`` is for tests.  Opening blocks for a moment.

    `HypervisorUnavailable` where there is no libxl of 4.2 or later, `HypervisorError` where it cannot be opened here.
    """

    def __init__(
        self,
        bridge: BridgeCore,
        uri: str = "libxl:///",
        on_event: OnEvent | None = None,
        *,
        tell: OnEvent | None = None,
        mailbox: Mailbox | None = None,
        library: Any = None,
    ) -> None:
        library = library or types.Library()
        children.check(uri)
        self.uri = uri
        self.disaster: str | None = None
        """What libxl said when it could not go on; its events may be missing from then on.  Close it, open another."""
        self._bridge = bridge
        self._on_event = on_event
        self._tell = tell or self._put
        self._freed = threading.Event()
        self._ctx = Ctx(library, uri, self._last_one_out)
        try:
            self._mailbox = mailbox or Mailbox(bridge)
            self._own_mailbox = mailbox is None
            self._alarm = bridge.add_timeout(-1, _never, None, self._bridge_has_gone)
        except BaseException:
            self._ctx.free()
            raise
        self._hooks = Hooks(bridge, self)
        self._operations = Operations(self._ctx, bridge, self._mailbox)
        self.generators = Generators(self._ctx)
        self._domains = Domains(self._ctx)
        self._event_hooks = types.EventHooks(
            _ALL_EVENTS, types.EventOccurs(self._event_occurs), types.Disaster(self._disaster)
        )
        self._child_hooks = children.hooks(library.version)
        _living.add(self)
        with self._ctx.inside("open"):
            self._register()

    def _register(self) -> None:
        """Before anything else is asked of libxl (rule 1)."""
        library, pointer = self._ctx.library, self._ctx.pointer
        library.libxl_osevent_register_hooks(pointer, ctypes.byref(self._hooks.struct), None)
        library.libxl_event_register_callbacks(pointer, ctypes.byref(self._event_hooks), None)
        if self._child_hooks is not None:
            library.libxl_childproc_setmode(pointer, ctypes.byref(self._child_hooks), None)

    @property
    def library(self) -> Any:
        """libxl's functions, by name: for what is not here."""
        return self._ctx.library

    @property
    def pointer(self) -> ctypes.c_void_p:
        """The libxl_ctx.  Who calls libxl with it does so within `start` or `call`."""
        return self._ctx.pointer

    @property
    def closed(self) -> bool:
        return self._ctx.lifetime.closed

    @property
    def freed(self) -> bool:
        """Has libxl let go of everything?"""
        return self._freed.is_set()

    # -- domains; these block

    def list(self) -> list[DomainInfo]:
        """Every domain, domain 0 included.  Blocks; `HypervisorError`."""
        self._must_not_block("list the domains")
        return [domains.info(facts, self._domains.name(facts.get("domid", 0))) for facts in self._domains.all()]

    def info(self, domid: int) -> DomainInfo:
        """Blocks; `HypervisorError` (-21) where there is no such domain."""
        self._must_not_block("look at a domain")
        facts = self._domains.one(domid)
        if facts is None:
            raise self._domains.no_such(domid)
        return domains.info(facts, self._domains.name(domid))

    @property
    def domains(self) -> Domains:
        """What `list` and `info` are made of, for a thread that knows that it may block."""
        return self._domains

    # -- operations

    def start(
        self, operation: str, domid: int | None, call: Call, ready: Callable[[], bool] = lambda: True
    ) -> Operation:
        """Begin whatever takes a how: ``call(how)`` calls libxl with ``how``, a pointer, and returns what it returns.
        All that it gives to libxl besides must live until the operation is done.  `close` aborts it where it is
        ``ready()`` for that; otherwise whoever began it does, in time.  Any thread.
        """
        return self._operations.start(operation, domid, call, ready)

    def destroy(self, domid: int) -> Operation:
        return self._begin("libxl_domain_destroy", domid)

    def shutdown(self, domid: int) -> Operation:
        """Ask the guest to; done when it has heard it."""
        return self._begin("libxl_domain_shutdown", domid)

    def reboot(self, domid: int) -> Operation:
        return self._begin("libxl_domain_reboot", domid)

    def pause(self, domid: int) -> Operation:
        return self._begin("libxl_domain_pause", domid)

    def unpause(self, domid: int) -> Operation:
        return self._begin("libxl_domain_unpause", domid)

    def suspend(self, domid: int, fd: int, flags: int = 0) -> Operation:
        """Save the guest's memory to ``fd``, which stays the caller's; the domain is left suspended
        (LIBXL_SUSPEND_*)."""
        return self._begin("libxl_domain_suspend", domid, fd, flags)

    def resume(self, domid: int, cooperative: bool = True) -> Operation:
        """Let a suspended guest go on.  ``cooperative``: it knows of that, as a paravirtual guest does."""
        return self._begin("libxl_domain_resume", domid, int(cooperative))

    def _begin(self, function: str, domid: int, *arguments: int) -> Operation:
        library, pointer = self._ctx.library, self._ctx.pointer
        name = function.removeprefix("libxl_domain_")
        given = getattr(library, function)
        if library.version >= types.HOW_SINCE.get(function, (0, 0)):
            return self._operations.start(name, domid, lambda how: given(pointer, domid, *arguments, how))
        # An older one takes no how; the argument that it does not know, it does not look at.
        return self._operations.start_synchronous(name, domid, lambda: given(pointer, domid, *arguments, None))

    def call(self, function: str, *arguments: Any, domid: int | None = None) -> int:
        """``function(ctx, *arguments)`` of libxl's, synchronously: where it takes a how, that is to be None.  Blocks;
        `HypervisorError` for what it returns below 0.  Any thread but a running loop's (rule 15).
        """
        self._must_not_block(f"call {function}")
        found = getattr(self._ctx.library, function, None)
        if found is None:
            raise self._ctx.refusal(f"call {function}", ERROR_NI, domid, f"{self._ctx.library.name} has none")
        return self._ctx.call(function, domid, found, *arguments)

    def _must_not_block(self, what: str) -> None:
        """A call that blocks needs the loop, if only for its lock; on the loop's own thread it would stop
        everything."""
        # Asked twice: the loop may have begun to run, elsewhere, while it was asked.
        if self._bridge.is_running_here() and self._bridge.is_loop_thread():
            raise HypervisorError(
                f"{self.uri}: cannot {what} on the loop's thread, which would stand still until libxl is done: "
                "begin an operation, or call it on a thread of its own",
                operation=what,
            )

    # -- what the bridge tells libxl: loop side (`hooks.Occurred`)

    def fd_occurred(self, for_libxl: int | None, fd: int, events: int, revents: int) -> None:
        self._occurred(self._ctx.library.libxl_osevent_occurred_fd, for_libxl, fd, events, revents)

    def timeout_occurred(self, for_libxl: int | None, when: types.TimeVal) -> None:
        self._occurred(self._expire, for_libxl, when)

    def _expire(self, pointer: ctypes.c_void_p, for_libxl: int | None, when: types.TimeVal) -> None:
        """libxl has a bug here, in 4.17 and in 2026 still: what has really expired, when it is told of that by
        ``libxl_osevent_occurred_timeout``, stays among what an abort is to cut short.  If the operation goes on and is
        aborted later, by `close` perhaps, an assertion fails: SIGABRT.  Its own loop takes it out.  So ``afterpoll``,
        without fds, is asked first to see to what is due (libxl_event.h: the two ways may be mixed), and what is told
        then is stale, as after any modify{0,0}.  Without abort, before 4.6, there is no such bug; and before 4.2.2
        nothing stale may be told.
        """
        library = self._ctx.library
        if getattr(library, "libxl_ao_abort", None) is not None and when.seconds:
            library.libxl_osevent_afterpoll(pointer, 0, None, when)
        library.libxl_osevent_occurred_timeout(pointer, for_libxl)

    def _occurred(self, function: Any, *arguments: Any) -> None:
        lifetime = self._ctx.lifetime
        with self._mailbox.collecting():  # what is collected is delivered when this thread is out of libxl again
            if self._ctx.enter(finishing=True):
                try:
                    function(self._ctx.pointer, *arguments)
                finally:
                    lifetime.leave()

    # -- what libxl tells: hook side, but unlocked

    def _event_occurs(self, user: int | None, event: Any) -> None:
        try:
            try:
                told = read(event.contents)
            finally:
                self._ctx.library.libxl_event_free(self._ctx.pointer, event)
            if told.for_user and told.vdev is None:
                told = told._replace(vdev=self.generators.vdev_of(told))
            if not self.closed:
                self._tell(told)
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupted(error)
        except BaseException:
            log.exception("%s: an event of libxl's was lost", self.uri)

    def _put(self, event: Event) -> None:
        self._mailbox.put(lambda: self._deliver(event))

    def _deliver(self, event: Event) -> None:
        if self._on_event is not None and not self.closed:
            self._on_event(event)

    def _disaster(self, user: int | None, type: int, message: bytes | None, error: int) -> None:
        """Without this libxl would exit(-1).  It may not be called from here (rule 13)."""
        with contextlib.suppress(Exception):
            words = (message or b"").decode(errors="replace")
            self.disaster = f"{words} (errno {error}, event type {type})"
            log.error("%s: libxl cannot go on: %s", self.uri, self.disaster)

    def interrupted(self, error: BaseException) -> None:
        """A Ctrl-C that has met a callback of libxl's is raised in one of the bridge's (D4)."""

        def again() -> None:
            raise error

        self._mailbox.put(again)

    # -- the end

    def close(self) -> None:
        """Abort what is under way, and have the ctx freed when all of it has ended and nobody is inside libxl.  No
        event is delivered any more, but by a call that another thread has begun.

        Any thread, also within a consumer or an operation's callback.  Waits at most `CLOSE_SECONDS`, and not where it
        could only wait for itself.  Idempotent.
        """
        self._begin_to_close()
        needs_us = self._ctx.lifetime.busy and self._bridge.is_loop_thread()
        if not needs_us and not self._ctx.lifetime.is_inside():
            self._freed.wait(CLOSE_SECONDS)

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin_to_close(self) -> None:
        if self._ctx.lifetime.close():
            if not self._ctx.lifetime.busy:
                self._hooks.retire()  # the loop calls libxl no more, whoever is inside it, and however long
            threading.Thread(target=self._finish, name="libxl close", daemon=True).start()

    def _finish(self) -> None:
        try:
            self._operations.abort_all()
        finally:
            self._ctx.lifetime.release()

    def _last_one_out(self) -> None:
        """On whichever thread that was: xenstored may be frozen, and the loop is not to be."""
        threading.Thread(target=self._free, name="libxl_ctx_free", daemon=True).start()

    def _free(self) -> None:
        self._hooks.retire()
        self._ctx.free()
        self._freed.set()
        _living.discard(self)
        if self._own_mailbox:
            # After what is still to be told, in its order.
            if not self._operations.untold or not self._mailbox.put(self._mailbox.close):
                self._mailbox.close()
        # Last: its free wakes the loop, where somebody may run it until the bridge is empty.
        with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
            self._bridge.remove_timeout(self._alarm)

    def _bridge_has_gone(self, opaque: object) -> None:
        """The bridge is closed, or the ctx is freed: the alarm's free."""
        if self.freed:
            return
        given_up = self._operations.give_up("the bridge was closed before it had ended")
        if given_up:
            log.warning(
                "%s: the bridge was closed while libxl was at %s: its ctx cannot be freed, and is left as it is",
                self.uri,
                ", ".join(map(repr, given_up)),
            )
        self._begin_to_close()


def _never(id: int, opaque: object) -> None:
    """The alarm's timeout is disabled."""
