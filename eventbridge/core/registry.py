"""Handles and timeouts: ids and lifetimes, and the lock over them.  Rules H1, H5-H8, T1-T6, D6; all of it is hook
side.

One lock, an RLock: a garbage collection inside a locked line may finalize an object of the hypervisor library's,
whose destructor removes a handle, on this very thread.  It is held over look-ups and epoll_ctl, never over foreign
code.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from eventbridge.errors import BridgeClosed, BridgeForked, UnknownHandle

from .affinity import hook_side
from .fdtable import FdTable
from .handles import FreeCallback, Handle
from .poller import PollerProtocol
from .timers import NEVER, Timer, Timers

INFINITY = float("inf")


class Registry:
    """What is registered on one bridge."""

    def __init__(self, poller: PollerProtocol) -> None:
        self.lock = threading.RLock()
        self.poller = poller
        self.table = FdTable(poller, self.wake)
        self.handles: dict[int, Handle] = {}
        self.timeouts: dict[int, Timer] = {}
        self.timers = Timers()
        self.next_handle = 1
        self.next_timeout = 1
        self.armed_for = NEVER  # ns; what the poller's timer is set to
        self.look_at = INFINITY  # s; before this, `take_due` has nothing: 0.0 while there are timeouts of every pass
        self.frees: deque[tuple[FreeCallback, Any, Handle | Timer]] = (
            deque()
        )  # owed: the function, its opaque, whose it was
        self.drained_to: list[Callable[[], None]] = []  # to be told once nothing is registered (D8)
        self.awake = False  # there is work that the poller will not report; the dispatcher has not seen to it since
        self.dispatching = False  # a pass is under way: it will see to it without being woken
        self.refusal: type[BridgeClosed | BridgeForked] | None = None
        self.dead_handles: dict[int, FreeCallback | None] = {}  # what was registered when it was closed
        self.dead_timeouts: dict[int, FreeCallback | None] = {}
        self._parents: object = None

    # -- handles

    @hook_side
    def add_handle(self, handle: Handle, *, though_closed: bool = False) -> int:
        """Register it and give it its id.  OSError where its fd cannot be watched: nothing is registered then."""
        with self.lock:
            if self.refusal is not None:
                self.check()
            # Taken at once, with no call between the two lines: the handler of a signal, or a finalizer, may come in
            # at any call from here on, on this very thread, and add a handle too (H1).
            id = handle.id = self.next_handle
            self.next_handle = id + 1
            self.table.join(handle, though_closed)
            self.handles[id] = handle
            return id

    @hook_side
    def update_handle(self, id: int, mask: int) -> None:
        with self.lock:
            handle = self.handles.get(id)
            if handle is None:
                self._unknown("handle", id)
            elif handle.mask != mask:
                self.table.turn(handle, mask)

    @hook_side
    def remove_handle(self, id: int, *, free: bool = True) -> None:
        with self.lock:
            handle = self.handles.pop(id, None)
            if handle is None:
                self._unknown("handle", id)
            else:
                self.table.leave(handle)
                self._removed(handle, free)

    # -- timeouts

    @hook_side
    def add_timeout(self, timer: Timer, milliseconds: int) -> int:
        """Register it and give it its id."""
        with self.lock:
            if self.refusal is not None:
                self.check()
            id = timer.id = self.next_timeout
            self.next_timeout = id + 1
            self.timeouts[id] = timer
            self.set_timer(timer, milliseconds)
            return id

    @hook_side
    def update_timeout(self, id: int, milliseconds: int) -> None:
        with self.lock:
            timer = self.timeouts.get(id)
            if timer is None:
                self._unknown("timeout", id)
            else:
                self.set_timer(timer, milliseconds)

    @hook_side
    def remove_timeout(self, id: int, *, free: bool = True) -> None:
        with self.lock:
            timer = self.timeouts.pop(id, None)
            if timer is None:
                self._unknown("timeout", id)
            else:
                self.timers.forget(timer)
                self._removed(timer, free)
                if free:  # or it is carried elsewhere, whole
                    timer.let_go()

    def _removed(self, item: Handle | Timer, free: bool) -> None:
        if free and item.free is not None:
            self.frees.append((item.free, item.opaque, item))
        if self.frees or self.drained_to:
            self.wake()

    def _unknown(self, what: str, id: int) -> None:
        self.check()
        raise UnknownHandle(f"no {what} {id} is registered here: it was removed, or belongs to another bridge")

    # -- deadlines

    def set_timer(self, timer: Timer, milliseconds: int) -> None:
        """Under the lock.  Takes effect while the loop sleeps, from any thread (T2)."""
        if milliseconds == 0 and not timer.deadline:
            return  # of every pass already
        self.timers.set(timer, milliseconds)
        if milliseconds > 0:
            if timer.queued < self.armed_for:
                self.arm_for(timer)
        elif milliseconds == 0:
            self.look_at = 0.0
            self.wake()
            if self.dispatching:  # the callback that sets it may run the host's loop again, which would sleep (D5)
                self.poller.wake()

    def arm_for(self, timer: Timer) -> None:
        """Under the lock.  The poller's timer is set only when the earliest deadline gets earlier."""
        if timer.queued < self.armed_for:
            self.armed_for = timer.queued
            self._set_look_at()  # before arming: the dispatcher asks it, without the lock, once the timer has fired
            self.poller.arm(self.armed_for)  # not timer.queued: a signal's handler may have set an earlier one since

    def _set_look_at(self) -> None:
        if self.timers.every_pass:
            self.look_at = 0.0
        elif self.armed_for == NEVER:
            self.look_at = INFINITY
        else:
            self.look_at = self.armed_for / 1e9 - 1e-6  # rounding must not make it late; too early costs one look

    def take_due(self) -> list[Timer]:
        """The timers that are due now, taken off the heap, and the poller armed for the next."""
        heap = self.timers.heap
        with self.lock:
            now = monotonic_ns()
            due = self.timers.due(now)
            if self.armed_for <= now:
                self.armed_for = NEVER
                if heap:
                    self.armed_for = heap[0][0]
                    self.poller.arm(self.armed_for)
            self._set_look_at()
        return due

    def next_period(self, timer: Timer) -> None:
        """A periodic timer is about to be called: its next deadline counts from now, however late this one is (T4)."""
        with self.lock:
            if timer.interval:
                self.timers.schedule(timer, monotonic_ns() + timer.interval)
                self.arm_for(timer)

    def put_back(self, timer: Timer) -> None:
        """Under the lock.  One that was taken as due, and could not be called: it is due still, unless it was set
        again.
        """
        if 0 < timer.deadline < NEVER and not timer.queued:
            self.timers.schedule(timer, timer.deadline)
            self.arm_for(timer)

    # -- the whole

    @hook_side
    def wake(self) -> None:
        """Have the dispatcher run as soon as possible.  One write, however often it is asked before the next pass;
        none during one.

        The order matters, here and at the end of `Dispatcher.run_pass`: each side first says what it does, then looks
        at the other, so that one of the two always sees to the work.
        """
        if not self.awake:
            self.awake = True
            if not self.dispatching:
                self.poller.wake()

    def check(self) -> None:
        """Raises `BridgeClosed` or `BridgeForked` where nothing can be registered any more."""
        if self.refusal is BridgeForked:
            raise BridgeForked(
                "this bridge belongs to the parent process: after a fork, make one of its own in the child"
            )
        if self.refusal is not None:
            raise BridgeClosed("this bridge is closed: make a new one")

    def is_empty(self) -> bool:
        """Nothing registered, and every ``free`` called."""
        return not (self.handles or self.timeouts or self.frees)

    def close(self) -> bool:
        """Forget everything, owe every ``free``, refuse what comes; False where that was so already."""
        with self.lock:
            if self.refusal is not None:
                return False
            self.refusal = BridgeClosed
            self._remember_the_dead()
            everything: list[Handle | Timer] = [*self.handles.values(), *self.timeouts.values()]
            for item in everything:
                if item.free is not None:
                    self.frees.append((item.free, item.opaque, item))
            for timer in self.timeouts.values():
                self.timers.disable(timer)
            self.handles.clear()
            self.timeouts.clear()
            self.table.clear()
            return True

    def _remember_the_dead(self) -> None:
        """Whose ids a library may still hold (see transfer.py)."""
        self.dead_handles = {id: handle.free for id, handle in self.handles.items()}
        self.dead_timeouts = {id: timer.free for id, timer in self.timeouts.items()}

    def abandon(self) -> None:
        """In a forked child (D7): as if nothing had ever been registered, with nothing of the parent's touched, nor
        finalized.
        """
        self.lock = threading.RLock()  # a thread of the parent's may have held it
        self.refusal = BridgeForked
        self._remember_the_dead()
        self._parents = (self.handles, self.timeouts, self.frees)
        self.handles, self.timeouts, self.frees = {}, {}, deque()
