"""The loop that a command runs on, by name: every host there is, and uvloop, which is the asyncio host on another
loop.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

from eventbridge import host
from eventbridge.bridge import Bridge, ErrorHandler
from eventbridge.errors import HostUnavailable

DRAIN_SECONDS = 1.0


def names() -> list[str]:
    """What ``--loop`` takes."""
    return [*host.names(), "uvloop"]


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
        if name == "uvloop":
            loop = stack.enter_context(contextlib.closing(_new_uvloop()))
            adapter: Any = host.factory("asyncio")
            bridge = Bridge(adapter(loop), on_error=on_error)
        else:
            bridge = Bridge(name, on_error=on_error)
        with bridge:
            yield bridge
            bridge.run(until=bridge.is_empty, timeout=DRAIN_SECONDS)


def _new_uvloop() -> Any:
    try:
        import uvloop
    except ImportError as error:
        raise HostUnavailable(f"the loop 'uvloop' cannot be used here: {error}; pip install uvloop") from error
    return uvloop.new_event_loop()
