"""Which thread may call this?  Two marks, and a debug mode that holds code to them.

The *hook side* is called by a hypervisor library on any thread, perhaps with that library's locks held: it must be
short, must not call foreign code, and must not raise into C.  The *loop side* runs on the host's thread only.

The debug mode is on where Python runs in development mode (``python -X dev``) or EVENTBRIDGE_DEBUG is set, as asyncio's
own is; the marks cost nothing else.  It is the process's, for it is decided when a function is made:

- what is loop side and is called on another thread raises AssertionError, which names it: passes and frees, the watch
  on the poller's fd, what a `Mailbox` takes, every call of a `DirectSource`;
- a callback that is about to be called with the registry's lock held raises the same;
- what is hook side and takes 0.1 s or longer is a warning of the logger "eventbridge": some library, with its locks
  held, was waiting for us that long;
- every `Bridge` reports callbacks of 0.1 s and more, with what they are at (`Bridge.report_slow`).  ``Bridge(...,
  debug=True)`` has this last one on a single bridge, in any process.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

DEBUG = bool(sys.flags.dev_mode or os.environ.get("EVENTBRIDGE_DEBUG"))
LONG_SECONDS = 0.1
"""What is too long for a hook, in debug mode."""

Method = TypeVar("Method", bound=Callable[..., Any])
log = logging.getLogger("eventbridge")


def hook_side(method: Method) -> Method:
    """Callable from any thread, at any time, with any lock held; in debug mode one that takes long is logged."""
    if not DEBUG:
        return method

    @functools.wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = monotonic()
        try:
            return method(*args, **kwargs)
        finally:
            took = monotonic() - began
            if took >= LONG_SECONDS:
                log.warning("%s is hook side, and held up its caller for %.3f s", method.__qualname__, took)

    return timed  # type: ignore[return-value]  # functools.wraps keeps the signature, which mypy cannot know


def loop_side(method: Method) -> Method:
    """Callable on the host loop's thread only; in debug mode a call from elsewhere is an AssertionError that names
    it.  A method of an object that has ``is_loop_thread()``, or whose ``_bridge`` has.
    """
    if not DEBUG:
        return method

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert _is_loop_thread(self), (
            f"{method.__qualname__} belongs to the host loop's thread, and was called from another"
        )
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]  # as above


def _is_loop_thread(thing: Any) -> bool:
    """So, too, where nobody there can tell: a bridge that stands in for one."""
    for knows in (thing, getattr(thing, "_bridge", None)):
        ask: Callable[[], bool] | None = getattr(knows, "is_loop_thread", None)
        if ask is not None:
            return ask()
    return True
