"""libxl's hooks onto a bridge: what it wants watched, each registration by itself.  Rules 2 to 12 and 16 of Xen's.

libxl may register one fd several times, recycles its ``for_libxl`` pointers, and counts on exactly one
``occurred_timeout`` for each timeout.  So a registration is a number of ours that is never used again, with one
handle or timeout of the bridge's behind it, and is forgotten before libxl is told of its end.

The hooks are hook side: any thread that is inside libxl, whose lock it holds.  They take no lock but the bridge's,
take effect at once and so in libxl's order, and never raise.  `_ready` and `_overdue` are loop side."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from eventbridge.core.affinity import hook_side, loop_side
from eventbridge.core.bridge import LONGEST_TIMEOUT
from eventbridge.core.masks import FROM_KERNEL
from eventbridge.core.models import CallbackModel
from eventbridge.errors import BridgeClosed, BridgeForked, EventBridgeError, UnknownHandle

from . import types

ERROR_OSEVENT_REG_FAIL = -12

# poll(2)'s bits are epoll's: `FROM_KERNEL` is libxl's to ours, and this is back, ERROR and HANGUP included (rule 8).
TO_POLL = [FROM_KERNEL.index(mask) for mask in range(len(FROM_KERNEL))]
_BITS = len(FROM_KERNEL) - 1

_GONE = (UnknownHandle, BridgeClosed, BridgeForked)

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Fd:
    key: int
    fd: int
    events: int
    for_libxl: int | None
    handle: int = 0
    live: bool = True


@dataclass(slots=True, eq=False)
class _Timeout:
    key: int
    address: int  # of libxl's own note of the key
    when: types.TimeVal  # as libxl has it
    deadline: int  # ns of time.monotonic
    for_libxl: int | None
    timeout: int = 0


class Occurred(Protocol):
    """What a context does with what has become of a registration: it tells libxl, unless that is no more."""

    def fd_occurred(self, for_libxl: int | None, fd: int, events: int, revents: int) -> None: ...

    def timeout_occurred(self, for_libxl: int | None, when: types.TimeVal) -> None:
        """``when`` is as libxl has it: what is due by then is due."""

    def interrupted(self, error: BaseException) -> None:
        """A KeyboardInterrupt or SystemExit has met a hook: it is to be raised elsewhere."""


class Hooks:
    """The hooks of one ctx.  ``struct`` is what libxl is given; it must outlive the ctx (rule 1)."""

    def __init__(self, bridge: CallbackModel, context: Occurred) -> None:
        self._bridge = bridge
        self._context = context
        self._keys = itertools.count(1)
        self._fds: dict[int, _Fd] = {}
        self._timeouts: dict[int, _Timeout] = {}
        self._retired = False
        self.struct = types.OsEventHooks(
            types.FdRegister(self._guarded(self.fd_register)),
            types.FdModify(self._guarded(self.fd_modify)),
            types.FdDeregister(self._guarded(self.fd_deregister, None)),
            types.TimeoutRegister(self._guarded(self.timeout_register)),
            types.TimeoutModify(self._guarded(self.timeout_modify)),
            types.TimeoutDeregister(self._guarded(self.timeout_deregister, None)),
        )

    # -- fds

    @hook_side
    def fd_register(self, user: int | None, fd: int, out: Any, events: int, for_libxl: int | None) -> int:
        record = _Fd(next(self._keys), fd, events, for_libxl)
        try:
            record.handle = self._bridge.add_handle(fd, FROM_KERNEL[events & _BITS], self._ready, record)
            self._fds[record.key] = record
            out[0] = record.key
        except BaseException:
            self._forget_fd(record)
            raise
        if self._retired:  # looked at last: `retire` may be under way on another thread
            self._forget_fd(record)
        return 0

    @hook_side
    def fd_modify(self, user: int | None, fd: int, update: Any, events: int) -> int:
        record = self._fds.get(update[0])
        if record is None and self._retired:
            return 0
        if record is None:
            raise UnknownHandle(f"libxl has no registration {update[0]} of fd {fd}")
        self._bridge.update_handle(record.handle, FROM_KERNEL[events & _BITS])
        record.events = events
        return 0

    @hook_side
    def fd_deregister(self, user: int | None, fd: int, key: int | None) -> None:
        record = self._fds.get(key or 0)
        if record is not None:
            self._forget_fd(record)

    def _forget_fd(self, record: _Fd) -> None:
        record.live = False
        if record.handle:
            with contextlib.suppress(*_GONE):
                self._bridge.remove_handle(record.handle)
        self._fds.pop(record.key, None)

    @loop_side
    def _ready(self, id: int, fd: int, events: int, record: _Fd) -> None:
        # Another thread may have deregistered it since this call was decided on (H6): libxl takes a stale one from
        # 4.2.2 on (its commit bc7e8a2a81), and is rarely given one.
        if record.live:
            self._context.fd_occurred(record.for_libxl, record.fd, record.events, TO_POLL[events])

    # -- timeouts

    @hook_side
    def timeout_register(self, user: int | None, out: Any, when: types.TimeVal, for_libxl: int | None) -> int:
        address = ctypes.cast(out, ctypes.c_void_p).value or 0
        record = _Timeout(next(self._keys), address, when, _deadline(when), for_libxl)
        self._timeouts[record.key] = record  # before it can fall due, on the loop's thread
        try:
            record.timeout = self._bridge.add_timeout(_milliseconds(record.deadline), self._overdue, record)
            out[0] = record.key
        except BaseException:
            self._forget_timeout(record)
            raise
        if self._retired:
            self._forget_timeout(record)
        return 0

    @hook_side
    def timeout_modify(self, user: int | None, update: Any, when: types.TimeVal) -> int:
        record = self._timeouts.get(update[0])
        if record is not None:  # or it has fired, or is just firing (rule 5)
            record.when, record.deadline = when, _deadline(when)
            with contextlib.suppress(UnknownHandle):
                self._bridge.update_timeout(record.timeout, _milliseconds(record.deadline))
        return 0

    @hook_side
    def timeout_deregister(self, user: int | None, registration: int | None) -> None:
        """Only 4.2.0 and 4.2.1 call it, and give the address where the registration is (rule 6)."""
        for record in list(self._timeouts.values()):
            if registration in (record.key, record.address):
                self._forget_timeout(record)

    def _forget_timeout(self, record: _Timeout) -> None:
        if record.timeout:
            with contextlib.suppress(*_GONE):
                self._bridge.remove_timeout(record.timeout)
        self._timeouts.pop(record.key, None)

    @loop_side
    def _overdue(self, id: int, record: _Timeout) -> None:
        deadline = record.deadline
        if deadline > time.monotonic_ns():  # farther off than a timeout of the bridge's can be
            self._bridge.update_timeout(id, _milliseconds(deadline))
            if record.deadline != deadline:  # modified just now: ours must not be the later word
                self._bridge.update_timeout(id, _milliseconds(record.deadline))
            return
        if self._timeouts.pop(record.key, None) is None:  # whoever takes it out is the one who tells
            return
        with contextlib.suppress(*_GONE):
            self._bridge.remove_timeout(id)
        self._context.timeout_occurred(record.for_libxl, record.when)

    # -- all of them

    def retire(self) -> None:
        """libxl is not to be told of anything any more: whoever is inside it still sees to his own fds (a synchronous
        call does), and is not to fail for what he registers.  Any thread.
        """
        self._retired = True
        for fd in list(self._fds.values()):
            self._forget_fd(fd)
        for timeout in list(self._timeouts.values()):
            self._forget_timeout(timeout)

    def __len__(self) -> int:
        """How many registrations there are."""
        return len(self._fds) + len(self._timeouts)

    def _guarded(self, hook: Callable[..., Any], failed: int | None = ERROR_OSEVENT_REG_FAIL) -> Callable[..., Any]:
        """What libxl calls: ``hook`` that never raises.  ctypes would return garbage for it (rule 16)."""

        def called(*given: Any) -> Any:
            try:
                try:
                    return hook(*given)
                except (KeyboardInterrupt, SystemExit) as error:  # not the hook's own: a signal's, on the main thread
                    self._context.interrupted(error)
                    return hook(*given)
            except (EventBridgeError, OSError) as error:
                log.warning("libxl asked for %s%r: %s", hook.__name__, given[1:], error)
            except BaseException:
                log.exception("libxl asked for %s%r", hook.__name__, given[1:])
            return failed

        return called


def _deadline(when: types.TimeVal) -> int:
    """Wall clock to monotonic clock, once (rule 3); both in ns.  The past is now."""
    left: int = when.seconds * 1_000_000_000 + when.microseconds * 1000 - time.time_ns()
    return time.monotonic_ns() + max(0, left)


def _milliseconds(deadline: int) -> int:
    """Until then, rounded up: never early (T3)."""
    left = deadline - time.monotonic_ns()
    return min(max(0, -(-left // 1_000_000)), LONGEST_TIMEOUT)
