"""What several threads use and one of them closes: the last one out does it.

A library's handle must not be freed, nor an fd's number given back, under a call that another thread is in; and that
call may be stuck for good in a xenstored that has frozen.  So closing never waits: it lets nobody in any more, and
who is last out releases.  Any thread; the lock is held for the count alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Gate:
    """``with gate:`` around each use; raises what ``refusal()`` makes once it is closed.  ``release()`` is called
    exactly once, when it is closed and nobody is inside, on the thread that made that so.
    """

    def __init__(self, release: Callable[[], object], refusal: Callable[[], Exception]) -> None:
        self._release = release
        self._refusal = refusal
        self._lock = threading.Lock()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._lock:
            if self._closed:
                raise self._refusal()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closed and not self._inside
        if last:
            self._release()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> bool:
        """Let nobody in any more; False where that was so already.  Never waits."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            last = not self._inside
        if last:
            self._release()
        return True
