"""What other threads leave for the loop's: steps, taken one by one in the order they were left.

A library calls back on whichever thread is inside it; what comes of that belongs on the loop's thread, in order, and
never inside the library's own call.  So it is put here.  `Mailbox.put` is hook side: any thread, any lock held.  Steps
are taken in a pass (D1), or at the end of `Mailbox.collecting` where the loop's own thread was inside the library.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TypeAlias

from eventbridge.errors import BridgeClosed, BridgeForked, UnknownHandle

from .affinity import hook_side, loop_side
from .dispatcher import BUDGET_CALLBACKS, BUDGET_SECONDS
from .models import CallbackModel

Step: TypeAlias = Callable[[], object]


class Mailbox:
    """Steps on their way to ``bridge``'s loop.  It is one timeout on the bridge, from its making until `close`."""

    def __init__(self, bridge: CallbackModel) -> None:
        self._bridge = bridge
        self._steps: collections.deque[Step] = collections.deque()
        self._collector = 0  # the thread that will take what it puts itself
        self._finished = False
        self._timeout = bridge.add_timeout(-1, self._due)

    @hook_side
    def put(self, step: Step) -> bool:
        """Have ``step()`` called on the loop's thread, soon, after all that were put before it; False where that will
        never be, for the mailbox or the bridge is closed.  What it raises is the bridge's to report (D4).
        """
        self._steps.append(step)
        if self._collector == threading.get_ident() or self._wake():
            return True
        try:
            self._steps.remove(step)
        except ValueError:  # somebody has emptied it meanwhile: `finish` has taken it, `close` has dropped it
            return self._finished
        return False

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """On the loop's thread, around a call of the library's: what is put meanwhile is taken when that is over,
        without another pass.
        """
        outer, self._collector = self._collector, threading.get_ident()
        try:
            yield
        finally:
            self._collector = outer
            if self._steps and not outer:
                self._take()

    def close(self) -> None:
        """Drop what is left.  Any thread; idempotent."""
        self._steps.clear()
        self._remove()

    @loop_side
    def finish(self) -> None:
        """Close, but take all that was put first, so that each step for which `put` has returned True is taken."""
        self._finished = True
        self._remove()  # first: from here on `put` returns False
        error: BaseException | None = None
        while self._steps:
            try:
                self._steps.popleft()()
            except Exception as raised:
                error = error or raised
        if error is not None:  # the bridge's to report; the others of several are lost
            raise error

    def _remove(self) -> None:
        with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
            self._bridge.remove_timeout(self._timeout)

    def _due(self, id: int, opaque: object) -> None:
        try:
            self._bridge.update_timeout(id, -1)
        except UnknownHandle:  # another thread has closed it, just now
            return
        self._take()

    @loop_side
    def _take(self) -> None:
        """At most a pass's budget of them (D2)."""
        until = monotonic() + BUDGET_SECONDS
        try:
            for _ in range(BUDGET_CALLBACKS):
                if not self._steps or monotonic() > until:
                    break
                self._steps.popleft()()
        finally:
            if self._steps:
                self._wake()

    def _wake(self) -> bool:
        try:
            self._bridge.update_timeout(self._timeout, 0)
        except (UnknownHandle, BridgeClosed, BridgeForked):
            return False
        return True
