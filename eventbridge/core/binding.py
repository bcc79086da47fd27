"""Which host loop serves a bridge, and how it goes from one to another (D9) and off the last (D8).

Theory of operation.  Where a bridge is *wanted* is one attribute, `Berth.host`, that anybody may change at any time;
where it is *served* changes in steps, one at a time: the serving host looks away from the poller's fd (`_leave`), the
wanted one begins to watch it (`_arrive`), or, where the bridge is closed, everything is given back there (`_end`).
Each step is taken on the thread of the host that it is about, and never within a pass: so the old loop's last pass is
over before the new one's first begins (D1).  After each step it is asked anew what is to be done (`_next`), so that
two moves at once, or a move and a close, end where the last of them wanted.

Whoever takes a step is *busy*, and nobody else takes one.  A step that belongs on another thread is left there with a
*ticket*; whoever comes by before it is used may void it and see to the step himself, so that a loop which has ended
with a step left on it holds up nothing.  A host that cannot watch the fd leaves the bridge where it was.

Any thread.  The lock is held over these few attributes alone, never while a host is called.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from eventbridge.errors import HostUnavailable

from .dispatcher import Dispatcher
from .host import HostLoop

Step: TypeAlias = Callable[[HostLoop], None]
Refusal: TypeAlias = tuple[HostLoop, Exception]


class Mover(Protocol):
    """Whose berth it is: a bridge."""

    def has_left(self, host: HostLoop) -> None:
        """No pass is made there any more.  On its thread, or where it is closed on any."""

    def has_ended(self, host: HostLoop) -> None:
        """It is closed, and nobody watches: give everything back.  The host's thread, where it has one still."""

    def could_not_move(self, error: HostUnavailable) -> None:
        """And nobody waits to be told.  Any thread."""


class Berth:
    """``host``: where the bridge is wanted; ``fd``: the poller's."""

    def __init__(self, host: HostLoop, fd: int, dispatcher: Dispatcher, mover: Mover) -> None:
        self.host = host
        self._fd = fd
        self._dispatcher = dispatcher
        self._mover = mover
        self._serving: HostLoop | None = None  # who watches the fd
        self._left: HostLoop | None = None  # where it was before, until it has arrived
        self._refused: HostLoop | None = None  # who could not take it, where it could not go back either
        self._closing = self._ended = False
        self._lock = threading.RLock()  # a signal's handler may come in
        self._busy = False
        self._ticket = 0

    @property
    def serving(self) -> HostLoop:
        """Who makes the passes now, or is to where nobody does."""
        return self._serving or self.host

    @property
    def is_served(self) -> bool:
        """Return whether a host watches the fd now; False while the bridge moves."""
        return self._serving is not None

    def begin(self) -> None:
        """Arrive for the first time; raises what its host does."""
        refusal = self._go_on()
        if refusal is not None:
            raise refusal[1]

    def move(self, host: HostLoop) -> None:
        """`HostUnavailable` where it cannot be: at once where that is found out here, else by `could_not_move`."""
        host.call_soon_threadsafe(_nothing)  # is it closed?  Then nothing has changed
        with self._lock:
            if self._serving is None and self._left is None and self.host is not self._refused:
                self._left = self.host  # to which it was on its way
            self.host, self._refused = host, None
        refusal = self._go_on()
        if refusal is not None:
            raise self._cannot(*refusal) from refusal[1]

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._closing = True
        self._go_on()

    # -- what is to be done, by whom

    def _go_on(self, ticket: int | None = None) -> Refusal | None:
        """Take the steps that can be taken here, and leave the next where it belongs; who could not take the bridge,
        and why, where that was one of them.
        """
        with self._lock:
            if self._busy or ticket not in (None, self._ticket):
                return None  # whoever is busy asks again, and whoever voided a ticket has seen to it
            self._busy = True
            self._ticket += 1
        refusal = None
        while (step := self._next()) is not None:
            is_here, cannot = self._take(*step)
            refusal = refusal or cannot
            if not is_here:
                break
        return refusal

    def _next(self) -> tuple[Step, HostLoop] | None:
        """What whoever is busy is to do, and whose thread's it is; None: nothing, and nobody is busy any more."""
        with self._lock:
            serving, host = self._serving, self.host
            if self._ended:
                pass
            elif serving is not None and (self._closing or serving is not host):
                return self._leave, serving
            elif serving is None and self._closing:
                return self._end, host
            elif serving is None and host is not self._refused:
                return self._arrive, host
            self._busy = False
            return None

    def _take(self, step: Step, host: HostLoop) -> tuple[bool, Refusal | None]:
        """Are we busy still?  And who refused, where one did."""
        if not host.is_loop_thread() and self._post(host):
            return False, None
        if self._dispatcher.in_pass:
            self._defer()
            return False, None
        try:
            step(host)
        except Exception as error:
            if step == self._arrive:
                return True, self._refuse(host, error)
            self._hand_out()
            raise
        except BaseException:
            self._hand_out()
            raise
        return True, None

    def _post(self, host: HostLoop) -> bool:
        """Leave the rest to that host's thread; False where it is closed for good, and so for us to do."""
        ticket = self._hand_out()
        try:
            host.call_soon_threadsafe(functools.partial(self._resume, ticket))
        except HostUnavailable:
            with self._lock:
                if self._busy or ticket != self._ticket:
                    return True  # somebody sees to it already
                self._busy = True
                self._ticket += 1
            return False
        return True

    def _defer(self) -> None:
        """Until the pass is over.  It is said first, then looked: one of the two sides sees to it."""
        ticket = self._hand_out()
        self._dispatcher.after_pass(functools.partial(self._resume, ticket))
        if not self._dispatcher.in_pass:
            self._resume(ticket)

    def _hand_out(self) -> int:
        with self._lock:
            self._busy = False
            return self._ticket

    def _resume(self, ticket: int) -> None:
        refusal = self._go_on(ticket)
        if refusal is not None:
            self._mover.could_not_move(self._cannot(*refusal))

    # -- the steps

    def _leave(self, host: HostLoop) -> None:
        open = host.is_loop_thread()
        try:
            if open:
                host.unwatch(self._fd)
        finally:
            with self._lock:
                self._serving = None
                self._left = self._left or (host if open else None)
        self._mover.has_left(host)

    def _arrive(self, host: HostLoop) -> None:
        if not host.is_loop_thread():
            raise HostUnavailable(f"this {host.name} loop is closed")
        if host is self._left:  # a way back: it may be closed by now, which not every host's watch says
            host.call_soon_threadsafe(_nothing)
        with self._lock:
            self._serving = host  # first: where nobody ran it until now, somebody may begin to
        host.watch(self._fd, self._dispatcher.run_pass)
        with self._lock:
            self._left = None

    def _refuse(self, host: HostLoop, error: Exception) -> Refusal:
        """It stays where it was, unless somebody wants it elsewhere by now."""
        with contextlib.suppress(Exception):  # what it may have begun
            if host.is_loop_thread():
                host.unwatch(self._fd)
        with self._lock:
            self._serving = None
            if self.host is host:
                if self._left is None or self._left is host:
                    self._refused = host
                else:
                    self.host = self._left
        return host, error

    def _end(self, host: HostLoop) -> None:
        with self._lock:
            self._ended = True
        self._mover.has_ended(host)

    def _cannot(self, host: HostLoop, error: Exception) -> HostUnavailable:
        lost = self._refused is not None
        where = "no loop serves it now: move it to one" if lost else f"it stays on the {self.host.name} loop"
        return HostUnavailable(f"the {host.name} loop cannot take this bridge: {error}; {where}")


def _nothing() -> None:
    pass
