"""The loop that a command runs on, by name: every host there is, and asyncio's loop as others make it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.core import host_lookup
from eventbridge.core.bridge import ErrorHandler
from eventbridge.errors import HostUnavailable

DRAIN_SECONDS = 1.0

# Name: module, and what makes a loop there.
ON_ASYNCIO: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "uvloop": ("uvloop", lambda uvloop: uvloop.new_event_loop()),
    "rloop": ("rloop", lambda rloop: rloop.new_event_loop()),
    "tornado": ("tornado.ioloop", lambda ioloop: ioloop.IOLoop(make_current=False).asyncio_loop),
    "gbulb": ("gbulb", lambda gbulb: gbulb.GLibEventLoop()),
    "qasync": (
        "qasync",
        lambda qasync: qasync.QEventLoop(sys.modules[host_lookup.factory("qt").__module__].application()),
    ),
}

KEPT = ("rloop",)
"""Whose loop is made once and never closed: rloop 0.5.0 leaves two fds behind with each."""

NOT_RACED = {
    "rloop": "rloop 0.5.0 closes its own wake-up fds twice whenever it stops, and so a file that another thread has "
    "opened in between"
}
"""Whose loop is not to be run beside threads that open files, and why."""

NO_STORMS = {
    "trio": "at the end of a run trio 0.35 closes its pair of sockets for signals before it tells Python, which then "
    "writes into a file that another thread has opened in between",
    "gbulb": "PyGObject reads one signal a turn; once its pair of sockets is full Python prints a warning for each, at "
    "which the process may stay",
}
"""Whose loop is not to be met by a storm of signals beside such threads, and why."""


def names() -> list[str]:
    """What ``--loop`` takes."""
    return [*host_lookup.names(), *ON_ASYNCIO]


def loop_name(text: str) -> str:
    """For argparse: a name that is known, whether or not its library is installed."""
    if text not in names():
        raise argparse.ArgumentTypeError(f"no host loop is called {text!r}; there are: {', '.join(names())}")
    return text


@contextlib.contextmanager
def bridge_on(name: str, on_error: ErrorHandler | None = None) -> Iterator[Bridge]:
    """A bridge on a loop of its own, which at the end is drained and closed; `HostUnavailable` where its library is
    missing.
    """
    bridge, loop = new_bridge(name, on_error)
    with contextlib.nullcontext() if loop is None or name in KEPT else contextlib.closing(loop), bridge:
        yield bridge
        bridge.run(until=bridge.is_empty, timeout=DRAIN_SECONDS)


def new_bridge(name: str, on_error: ErrorHandler | None = None) -> tuple[Bridge, Any]:
    """A bridge, and the loop of its own if that is the caller's to close; `HostUnavailable` where its library is
    missing.
    """
    if name not in ON_ASYNCIO:
        return Bridge(name, on_error=on_error), None
    loop = _kept_loop(name) if name in KEPT else _new_loop(name)
    adapter: Any = host_lookup.factory("asyncio")
    return Bridge(adapter(loop), on_error=on_error), loop


@functools.cache
def _kept_loop(name: str) -> Any:
    return _new_loop(name)


def _new_loop(name: str) -> Any:
    module, make = ON_ASYNCIO[name]
    try:
        if name == "qasync":
            host_lookup.factory("qt")  # first, for qasync takes the binding that is loaded
        return make(importlib.import_module(module))
    except ImportError as error:
        raise HostUnavailable(f"the loop {name!r} cannot be used here: {error}; pip install {name}") from error
