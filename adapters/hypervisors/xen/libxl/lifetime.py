"""When a libxl_ctx may be freed: nobody is inside libxl with it, and no operation of it is under way.

``libxl_ctx_free`` aborts the process while an operation is in progress, and whoever is inside libxl then is lost (rule
2).  So every call is counted in and out, and so is every operation; after `close` the last one out ends it.  Pure
bookkeeping under one small lock, which is never held while anything is called.  Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Lifetime:
    """``end()`` is called once, by whichever thread was the last one out."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._inside = 0
        self._operations = 0
        self._ending = False
        self.closed = False

    def enter(self, finishing: bool = False) -> bool:
        """May this thread call libxl?  It calls `leave` then.  ``finishing``: what operations need to come to an end,
        which is let in for as long as there are any.
        """
        with self._lock:
            if self._ending or (self.closed and not (finishing and self._operations)):
                return False
            self._inside += 1
        self._mine.depth = self._depth() + 1
        return True

    def leave(self) -> None:
        self._mine.depth = self._depth() - 1
        self.release()

    def release(self) -> None:
        """What `close` holds."""
        with self._lock:
            self._inside -= 1
            last = self._is_over()
        if last:
            self._end()

    def begin(self) -> None:
        """An operation; from a thread that has entered."""
        with self._lock:
            self._operations += 1

    def finished(self) -> None:
        """An operation has ended, or was never begun."""
        with self._lock:
            self._operations -= 1
            last = self._is_over()
        if last:
            self._end()

    def close(self) -> bool:
        """Nobody is let in any more; False where that is so already.  It holds the end off until `release`, which may
        be called by another thread.
        """
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            self._inside += 1
        return True

    @property
    def busy(self) -> bool:
        """Is an operation under way?"""
        return self._operations > 0

    def is_inside(self) -> bool:
        """Is this thread?"""
        return self._depth() > 0

    def _depth(self) -> int:
        depth: int = getattr(self._mine, "depth", 0)
        return depth

    def _is_over(self) -> bool:
        if self.closed and not self._ending and not self._inside and not self._operations:
            self._ending = True
            return True
        return False
