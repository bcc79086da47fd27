"""The lock over the table: held over one step, and aware of the one way in which a thread can meet itself.

A garbage collection inside a step may close, on this very thread, a generator or a coroutine that was left inside a
``with`` block, and so end a job.  A plain lock would wait for itself there, and a reentrant one let it in halfway
through the step.  So the lock is reentrant, and says who comes a second time that a step is under way: that one leaves
what it wants to be done after it.
"""

from __future__ import annotations

import threading


class StepLock:
    """``with lock:`` around each step.  ``raw`` is for a step of one look-up, which nothing can come into."""

    __slots__ = ("raw", "stepping")

    def __init__(self) -> None:
        self.raw = threading.RLock()
        self.stepping = False

    def __enter__(self) -> None:
        self.raw.acquire()
        if self.stepping:
            self.raw.release()
            raise RuntimeError("a finalizer began, or asked after, a job inside a step: it may only end one")
        self.stepping = True

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stepping = False
        self.raw.release()

    def entered_here(self) -> bool:
        """Is a step of this very thread under way?"""
        with self.raw:
            return self.stepping
