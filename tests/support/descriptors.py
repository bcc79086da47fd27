"""The fds of this process, for a test that shows that none is left."""

from __future__ import annotations

import gc
import os


def open_fds() -> set[str]:
    """Return the numbers of the fds that are open, after a collection of garbage.

    A loop or a socket that an earlier test has dropped keeps its fds until it is collected, which may happen between
    two counts: then fewer are open than before, and one that was leaked is hidden.
    """
    gc.collect()
    return set(os.listdir("/proc/self/fd"))
