"""select: a loop over the standard library's `selectors`, over selectors2, or over any selector object of that shape.

Two ways to use it.  *Ours to run*: ``Bridge("select").run()``, or `SelectHost.run_once` inside a loop of your own.
*Yours to run*: give it the selector that your loop selects on, ``SelectHost(selector)``, and call what is registered
there as the standard library's documentation does: ``key.data(key.fileobj, mask)``.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import importlib
import os
import selectors
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from eventbridge.errors import HostUnavailable

SELECT_LIMIT = 1024  # FD_SETSIZE, include/uapi/linux/posix_types.h: select(2) fails whole when any fd is at or above it


class SelectHost:
    """A host over one selector; without one, over ``selectors.DefaultSelector()`` of its own."""

    name = "select"

    def __init__(self, selector: Any = None) -> None:
        for needed in ("register", "unregister", "select"):
            if selector is not None and not callable(getattr(selector, needed, None)):
                raise TypeError(
                    "selector must have register, unregister and select, as selectors.BaseSelector has; "
                    f"found {selector!r}"
                )
        self._ours = selector is None
        self.selector: Any = selectors.DefaultSelector() if selector is None else selector
        self._thread: int | None = None  # who runs the loop now
        self._running = 0
        self._stopping = False
        self._closed = False
        self._watching: dict[int, Callable[..., None]] = {}
        self._soon: collections.deque[Callable[[], None]] = collections.deque()
        self._waking = threading.RLock()  # the pipe is written to only while it is open; a signal's handler may come in
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self.watch(self._wake_r, self._run_soon)

    @classmethod
    def running(cls) -> SelectHost | None:
        """A bare selector loop cannot be seen from outside."""
        return None

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        if fd >= SELECT_LIMIT and type(self.selector).__name__ == "SelectSelector":
            raise HostUnavailable(
                f"select(2) cannot watch fd {fd}, only those below {SELECT_LIMIT}: make the bridge before opening "
                "many files, or use another selector (selectors.DefaultSelector)"
            )

        def ready(*_: object) -> None:
            if self._watching.get(fd) is not ready:
                return  # unwatched in this very turn: what was ready in it is told one by one
            outer, self._thread = self._thread, threading.get_ident()
            try:
                callback()
            finally:
                self._thread = outer if self._running else self._thread

        self.selector.register(fd, selectors.EVENT_READ, ready)
        self._watching[fd] = ready

    def unwatch(self, fd: int) -> None:
        self._watching.pop(fd, None)
        with contextlib.suppress(KeyError, ValueError, RuntimeError):  # not there, or the selector is closed
            self.selector.unregister(fd)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        with self._waking:
            if self._closed:
                raise HostUnavailable("this select loop is closed")
            self._soon.append(callback)
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_w, b"!")

    def is_loop_thread(self) -> bool:
        return self._thread is None or self._thread == threading.get_ident()

    def report(self, exception: BaseException, context: str) -> None:
        """A bare loop has no exception handler: to standard error, as the interpreter would."""
        print(f"exception {context}:", file=sys.stderr)
        traceback.print_exception(exception, file=sys.stderr)

    def run_once(self, timeout: float | None = None) -> None:
        """One turn: wait at most ``timeout`` seconds (None: without end) and call what is ready."""
        for key, mask in self.selector.select(timeout):
            key.data(key.fileobj, mask)

    # -- RunnableHost

    def run(self) -> None:
        self._stopping = False
        outer, self._thread = self._thread, threading.get_ident()  # before it counts as running: see `stop`
        self._running += 1
        try:
            while not (self._stopping or self._closed):
                self.run_once()
        finally:
            self._stopping = False  # a stop ends the innermost run only
            self._thread = outer
            self._running -= 1
            self._give_back()

    def stop(self) -> None:
        if self._running and self._thread != threading.get_ident():
            self.call_soon_threadsafe(self.stop)  # it has begun to run since this thread was told that nobody does
        else:
            self._stopping = True

    def close(self) -> None:
        with self._waking:
            if self._closed:
                return
            self._closed = True
            self.unwatch(self._wake_r)
            os.close(self._wake_r)
            os.close(self._wake_w)
        self._give_back()

    def _give_back(self) -> None:
        if self._closed and self._ours and not self._running:
            self.selector.close()

    def _run_soon(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_r, 4096)) == 4096:
                pass
        for _ in range(len(self._soon)):
            self._soon.popleft()()


def import_selectors2() -> ModuleType:
    """selectors2; while it is imported its 2.0.2 looks for ``collections.Mapping``, gone since Python 3.10."""
    missing = [name for name in ("Mapping",) if not hasattr(collections, name)]
    for name in missing:
        setattr(collections, name, getattr(collections.abc, name))
    try:
        return importlib.import_module("selectors2")
    except ImportError as error:
        raise HostUnavailable(f"selectors2 cannot be imported: {error}; pip install selectors2") from error
    finally:
        for name in missing:
            delattr(collections, name)
