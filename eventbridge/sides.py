"""Which thread may call this?  Two marks, and a debug mode that holds code to them.

The *hook side* is called by a hypervisor library on any thread, perhaps with that library's locks held: it must be
short, must not call foreign code, and must not raise into C.  The *loop side* runs on the host's thread only.  The
marks cost nothing unless Python runs in development mode (``python -X dev``) or EVENTBRIDGE_DEBUG is set.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

DEBUG = bool(sys.flags.dev_mode or os.environ.get("EVENTBRIDGE_DEBUG"))


class _OnALoop(Protocol):
    def is_loop_thread(self) -> bool: ...


Method = TypeVar("Method", bound=Callable[..., Any])


def hook_side(method: Method) -> Method:
    """Callable from any thread, at any time, with any lock held."""
    return method


def loop_side(method: Method) -> Method:
    """Callable on the host loop's thread only; in debug mode a call from elsewhere is an AssertionError that names
    both.
    """
    if not DEBUG:
        return method

    @functools.wraps(method)
    def checked(self: _OnALoop, *args: Any, **kwargs: Any) -> Any:
        assert self.is_loop_thread(), (
            f"{method.__qualname__} belongs to the host loop's thread, and was called from another"
        )
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]  # functools.wraps keeps the signature, which mypy cannot know
