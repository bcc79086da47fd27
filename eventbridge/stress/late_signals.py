"""Handlers of signals that are put back while a signal may still be on its way to one of the threads."""

from __future__ import annotations

import signal
from collections.abc import Callable


def put_back(number: int, before: signal.Handlers | Callable[..., object] | int | None) -> None:
    """Main thread only.  Put back ``before`` where it is a function; else one that does nothing.

    The default would end the process.  To ignore it will not do either: CPython's part in C notes a signal on any
    thread, and where `signal.signal` changes the handler before the main thread looks, CPython writes "Signal 12
    ignored due to race condition" to standard error (Modules/signalmodule.c, 3.11).
    """
    signal.signal(number, before if callable(before) else _late)


def _late(number: int, frame: object) -> None:
    pass
