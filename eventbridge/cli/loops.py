"""The loop that a command runs on, by name: every host there is, and asyncio's loop as others make it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from eventbridge import host
from eventbridge.bridge import Bridge, ErrorHandler
from eventbridge.errors import HostUnavailable

DRAIN_SECONDS = 1.0

# Name: module, and what makes a loop there.
ON_ASYNCIO: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "uvloop": ("uvloop", lambda uvloop: uvloop.new_event_loop()),
    "rloop": ("rloop", lambda rloop: rloop.new_event_loop()),
    "tornado": ("tornado.ioloop", lambda ioloop: ioloop.IOLoop(make_current=False).asyncio_loop),
    "gbulb": ("gbulb", lambda gbulb: gbulb.GLibEventLoop()),
    "qasync": ("qasync", lambda qasync: qasync.QEventLoop(sys.modules[host.factory("qt").__module__].application())),
}


def names() -> list[str]:
    """What ``--loop`` takes."""
    return [*host.names(), *ON_ASYNCIO]


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
    with contextlib.ExitStack() as stack:
        if name in ON_ASYNCIO:
            loop = stack.enter_context(contextlib.closing(_new_loop(name)))
            adapter: Any = host.factory("asyncio")
            bridge = Bridge(adapter(loop), on_error=on_error)
        else:
            bridge = Bridge(name, on_error=on_error)
        with bridge:
            yield bridge
            bridge.run(until=bridge.is_empty, timeout=DRAIN_SECONDS)


def _new_loop(name: str) -> Any:
    module, make = ON_ASYNCIO[name]
    try:
        if name == "qasync":
            host.factory("qt")  # first, for qasync takes the binding that is loaded
        return make(importlib.import_module(module))
    except ImportError as error:
        raise HostUnavailable(f"the loop {name!r} cannot be used here: {error}; pip install {name}") from error
