"""Telling owners what came of a step: one call after the other, on the thread that made the step, no lock held.

A call may end a job, which settles others: these are told when it has returned, not inside it, however long the chain.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from .state_machine import Change, Output
from .ticket import Ticket

_Call: TypeAlias = tuple[Callable[[Any], object], Any]


class Delivery:
    """The calls that are owed, by thread."""

    def __init__(self, on_error: Callable[[BaseException, str], object]) -> None:
        self._on_error = on_error
        self._local = threading.local()

    def deliver(self, outputs: list[Output]) -> None:
        """Tell whom these outputs of a machine concern."""
        calls: list[_Call] = []
        for output in outputs:
            if isinstance(output, Change):
                calls += [(listener, output.now) for listener in output.listeners]
            elif output.on_settled is not None:
                calls.append((output.on_settled, output))
                output.on_settled = None  # once; and whoever waited may refer to the ticket, without a cycle
        if calls:
            self._run(calls)

    def call(self, on_settled: Callable[[Ticket], object], ticket: Ticket) -> None:
        """Tell one."""
        self._run([(on_settled, ticket)])

    def _run(self, calls: list[_Call]) -> None:
        owed: deque[_Call] | None = getattr(self._local, "owed", None)
        if owed is not None:  # inside a call: this thread is below us, in the loop
            owed.extend(calls)
            return
        owed = self._local.owed = deque(calls)
        stopped: BaseException | None = None
        try:
            while owed:
                stopped = self._call(*owed.popleft()) or stopped
        finally:
            self._local.owed = None
        if stopped is not None:
            raise stopped

    def _call(self, function: Callable[[Any], object], argument: object) -> BaseException | None:
        """The others are told whatever one of them raises; a KeyboardInterrupt or SystemExit goes on after that."""
        try:
            function(argument)
        except Exception as error:
            self._on_error(error, f"in {function!r}, told of {argument!r}")
        except BaseException as error:
            return error
        return None
