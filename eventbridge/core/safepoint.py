"""Steps that are to be taken between two passes of a bridge: nothing of it is being called then, nor will be until they
are done (D1).

A step is left here from any thread, and taken here and now where nobody makes passes, or where this thread does and
makes none at the moment; else on the loop's thread, soon, or once the pass that is under way is over.  Who takes one
has taken it out: a step that was left in two places is taken once.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable
from typing import TypeAlias

from eventbridge.errors import HostUnavailable

from .dispatcher import Dispatcher
from .host import HostLoop
from .registry import Registry

Step: TypeAlias = Callable[[], None]


class Between:
    """Those of one bridge.  ``serving()``: the host that makes its passes, now."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, serving: Callable[[], HostLoop]) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._serving = serving
        self._steps: collections.deque[Step] = collections.deque()

    def add(self, step: Step) -> None:
        """Any thread."""
        self._steps.append(step)
        self._see_to_them()

    def take(self) -> None:
        """Whatever is left, here and now."""
        while self._steps:
            try:
                step = self._steps.popleft()
            except IndexError:  # another thread has taken the last
                return
            step()

    def _see_to_them(self) -> None:
        if self._steps and not (self._registry.refusal is None and self._is_left_to_another()):
            self.take()

    def _is_left_to_another(self) -> bool:
        host = self._serving()
        if not host.is_loop_thread():
            with contextlib.suppress(HostUnavailable):  # it is closed: nobody makes passes but one that goes on still
                host.call_soon_threadsafe(self._see_to_them)
                return True
        if not self._dispatcher.in_pass:
            return False
        self._dispatcher.after_pass(self.take)
        return self._dispatcher.in_pass  # asked again: a pass that is over by now has perhaps not seen it
