"""Holds every wait of the tests on a bridge to this: something woke the loop when what was waited for came true.

``bridge.run(until, timeout)`` looks at its condition after each pass, and once more when its time is over.  A condition
that another thread makes true while the loop sleeps, with no pass to follow, is found true only then: the test would
pass, after fifty seconds, and a wake-up that the product has lost would look the same.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from eventbridge.bridge import Bridge
from eventbridge.testing.patience import PATIENCE

_run = Bridge.run


@functools.wraps(_run)
def _checked(self: Bridge, until: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
    began = time.monotonic()
    met = _run(self, until, timeout)
    if met and until is not None and timeout is not None and timeout >= PATIENCE:
        assert time.monotonic() - began < timeout, (
            f"what was waited for had come true, and no pass followed: the loop slept until {timeout:g} s were over"
        )
    return met


def check_every_wait() -> None:
    """From now on, in this process."""
    Bridge.run = _checked  # type: ignore[method-assign]
