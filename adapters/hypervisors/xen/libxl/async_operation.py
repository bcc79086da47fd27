"""libxl's asynchronous operations: begun with a how, ended by a callback, awaited, aborted.  Rules 2, 13 to 15 of
Xen's.

One C callback serves them all and never dies; a number that is never used again says whose end it is, for
``libxl_ao_abort`` finds an operation by just these two.  libxl calls back on whichever thread is inside it, perhaps
before the call that begins the operation has returned, and not at all where that call fails.  What is due to the
application then goes through the mailbox to the loop's thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.host_lookup import awaiting
from eventbridge.core.mailbox import Mailbox
from eventbridge.errors import HostUnavailable, HypervisorError

from ..support.reasons import ABORTED
from . import types
from .handle import Ctx

ERROR_NI = -4
ERROR_NOTFOUND = -23

log = logging.getLogger(__name__)

Call = Callable[[Any], int]
"""``call(how)`` begins an operation, ``how`` being a pointer to a libxl_asyncop_how; it returns what libxl does."""
OnDone = Callable[["Operation"], object]
Ready = Callable[[], bool]
"""Can it be aborted by now?  Where libxl would not survive that (see `..libxl.streams`)."""


class Operation:
    """One that was begun.  ``await operation`` on a host with tasks, `on_done` on any, `result` on a thread other than
    the loop's; each of them says how it ended.  An awaiting task that is cancelled leaves the operation to itself.
    """

    def __init__(self, owner: _Owner, key: int, name: str, domid: int | None, ready: Ready) -> None:
        self.name = name
        self.domid = domid
        self.ready = ready
        self.code: int | None = None
        """What libxl ended it with; None before, and where it was given up."""
        self.error: HypervisorError | None = None
        """Why it failed."""
        self._owner = owner
        self._key = key
        self._finished = threading.Event()
        self._callbacks: list[OnDone] = []
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        return self._finished.is_set()

    def on_done(self, callback: OnDone) -> None:
        """Have ``callback(operation)`` called on the loop's thread when it has ended; soon, if it has.  Any thread."""
        with self._lock:
            self._callbacks.append(callback)
        if self.done:
            self._owner.tell(self)

    def result(self, timeout: float | None = None) -> None:
        """Wait until it has ended, ``timeout`` seconds at most; raise where it failed, TimeoutError where it goes on.

        Any thread but the loop's, which is needed to bring it to its end.
        """
        if not self.done and self._owner.bridge.is_loop_thread():
            raise HypervisorError(
                f"{self!r} needs the loop that this thread runs, or nobody: await it, use on_done(), or wait for its "
                "result() on a thread of its own while the loop runs",
                operation=self.name,
            )
        if not self._finished.wait(timeout):
            raise TimeoutError(f"{self!r} goes on after {timeout} s")
        self._outcome()

    def abort(self) -> bool:
        """Ask libxl to cut it short: it then ends with ERROR_ABORTED (-22), or as it would have.  False where it has
        ended.  `HypervisorError` where this libxl cannot (before 4.6), or this operation cannot be.  Any thread.
        """
        return self._owner.abort(self, self._key)

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    def __repr__(self) -> str:
        of = "" if self.domid is None else f" of domain {self.domid}"
        state = "goes on" if not self.done else "failed" if self.error else "done"
        return f"<Operation {self.name}{of}: {state}>"

    async def _wait(self) -> None:
        if not self.done:
            host = awaiting(self._owner.bridge.host, "use on_done()")
            await host.wait_for(lambda done: self.on_done(lambda operation: done()), None)
        self._outcome()

    def _outcome(self) -> None:
        if self.error is not None:
            raise self.error

    # -- for `Operations`

    def finish(self, code: int | None, error: HypervisorError | None) -> None:
        """Once.  Hook side."""
        self.code, self.error = code, error
        self._finished.set()

    def tell(self) -> None:
        """Whoever asked and was not told yet.  Loop side."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
        for number, callback in enumerate(callbacks):
            try:
                callback(self)
            except BaseException:  # the bridge's to report (D4); the others are still to be told
                with self._lock:
                    self._callbacks[:0] = callbacks[number + 1 :]
                self._owner.tell(self)
                raise


class _Owner(Protocol):
    bridge: BridgeCore

    def tell(self, operation: Operation) -> None: ...

    def abort(self, operation: Operation, key: int) -> bool: ...


class Operations:
    """Those of one ctx.  ``completed`` is the callback of them all; it must outlive the ctx."""

    def __init__(self, ctx: Ctx, bridge: BridgeCore, mailbox: Mailbox) -> None:
        self.bridge = bridge
        self.completed = types.Completed(self._completed)
        self._ctx = ctx
        self._mailbox = mailbox
        self._keys = itertools.count(1)
        self._under_way: dict[int, Operation] = {}
        self._untold: set[Operation] = set()

    def start(self, name: str, domid: int | None, call: Call, ready: Ready = lambda: True) -> Operation:
        """Begin one.  Where libxl refuses to, it has failed, and the operation says so."""
        with self._ctx.inside(name, domid):
            operation, key = self._register(name, domid, ready)
            try:
                code = call(ctypes.byref(self._how(key)))
            except BaseException:
                self._forget(key)
                raise
            if code:
                self._end(key, code)
        return operation

    def start_synchronous(self, name: str, domid: int, call: Callable[[], int]) -> Operation:
        """One that this libxl cannot do asynchronously: on a thread of its own.  It cannot be aborted."""

        def work() -> None:
            try:
                with self._ctx.inside(name, domid, finishing=True):
                    self._end(key, call())
            except BaseException:
                log.exception("%r", operation)
                self._end(key, None)

        with self._ctx.inside(name, domid):
            operation, key = self._register(name, domid)
            threading.Thread(target=work, name=f"libxl {name} {domid}", daemon=True).start()
        return operation

    def abort(self, operation: Operation, key: int) -> bool:
        if operation.done:
            return False
        abort = getattr(self._ctx.library, "libxl_ao_abort", None)
        with self._ctx.inside("abort", operation.domid, finishing=True):
            if abort is None:
                raise self._ctx.refusal("abort", ERROR_NI, operation.domid, "libxl can do that from 4.6 on")
            code = abort(self._ctx.pointer, ctypes.byref(self._how(key)))
            if code == ERROR_NOTFOUND:
                if operation.done or key not in self._under_way:
                    return False  # it has ended meanwhile
                raise self._ctx.refusal("abort", code, operation.domid, f"its {operation.name} cannot be aborted")
            if code not in (0, ABORTED):  # ABORTED: asked for once already
                raise self._ctx.refusal("abort", code, operation.domid)
        return True

    def abort_all(self) -> None:
        """But those that are not ready: whoever began them does that in time."""
        for key, operation in list(self._under_way.items()):
            try:
                if operation.ready():
                    self.abort(operation, key)
            except HypervisorError as error:
                log.info("%s", error)

    def give_up(self, why: str) -> list[Operation]:
        """Nobody will bring them to an end: they have failed.  libxl does not know.  The loop's thread."""
        given_up = list(self._under_way.values())
        for operation in given_up:
            operation.finish(None, self._ctx.refusal(operation.name, None, operation.domid, why))
        for operation in [*given_up, *self._untold]:
            operation.tell()
        self._untold.clear()
        return given_up

    def tell(self, operation: Operation) -> None:
        """Its callbacks, on the loop's thread.  Any thread."""

        def tell() -> None:
            self._untold.discard(operation)
            operation.tell()

        self._untold.add(operation)
        if not self._mailbox.put(tell):
            with contextlib.suppress(HostUnavailable):  # then there is nobody to be told
                self.bridge.host.call_soon_threadsafe(tell)

    @property
    def untold(self) -> bool:
        """Is anybody still to be called on the loop's thread?"""
        return bool(self._untold)

    # -- an end

    def _completed(self, ctx: int | None, code: int, key: int | None) -> None:
        """Called by libxl, unlocked, on any thread (rule 13); raises nothing into it."""
        try:
            self._end(key or 0, code)
        except BaseException:
            log.exception("libxl's completion %s of operation %s was lost", code, key)

    def _end(self, key: int, code: int | None) -> None:
        operation = self._under_way.get(key)
        if operation is None:
            log.warning("libxl has completed an operation, %s, that it was not asked for", key)
            return
        try:
            if not operation.done:  # or it was given up
                words = "it was lost" if code is None else ""
                failed = code != 0
                operation.finish(
                    code, self._ctx.refusal(operation.name, code, operation.domid, words) if failed else None
                )
                self.tell(operation)
        finally:
            self._forget(key)

    def _register(self, name: str, domid: int | None, ready: Ready = lambda: True) -> tuple[Operation, int]:
        key = next(self._keys)
        operation = self._under_way[key] = Operation(self, key, name, domid, ready)
        self._ctx.lifetime.begin()
        return operation, key

    def _forget(self, key: int) -> None:
        if self._under_way.pop(key, None) is not None:
            self._ctx.lifetime.finished()

    def _how(self, key: int) -> types.How:
        return types.How(self.completed, key)
