"""GLib: its main context through PyGObject; GTK's loop, and every other that iterates one, is that.

Facts it rests on: a source that is being dispatched is left out of nested loops unless it was told that it may recurse
(D5).  ``GLib.io_add_watch`` knows the default context alone, so the watch is a source of ours, whose check is in
Python.  An exception that leaves a dispatch destroys its source, and PyGObject prints it; SystemExit ends the process
there.  ``GLib.MainContext.invoke_full`` calls at once where the caller runs the context, so a call for later is an idle
source, of normal priority: at its own it would starve behind an fd that is always ready.  So would everything else of
lower priority, GTK's drawing among it: after some passes in a row the watch leaves out a turn.  poll(2) in C does not
run Python's signal handlers, so while `run` runs in the main thread a signal wakes it.  A Qt application on GLib keeps
the default context for the main thread, running or not.
"""

from __future__ import annotations

import threading
from typing import Any

from gi.repository import GLib

from eventbridge.core.loop_host import Callback, LoopHost
from eventbridge.errors import HostUnavailable

# PyGObject destroys a source that is left at the interpreter's end, and cannot look up that function then any more
# ("Exception ignored in Source.__del__"): so it is looked up here.
GLib.Idle().destroy()

_asking = threading.RLock()  # whoever asks whose a context is takes it for a moment: nobody is to find it taken by that
IN_A_ROW = 8  # passes, of 2 ms each: a frame of GTK's, at 60 a second


class GlibHost(LoopHost):
    """``GlibHost()`` on the default main context, ``GlibHost(context)`` on another, for whoever iterates it: your
    ``GLib.MainLoop``, GTK's, or `run`.  ``GlibHost(apart=True)`` makes a context that nobody but `run` iterates.
    """

    name = "glib"

    def __init__(self, context: GLib.MainContext | None = None, *, apart: bool = False) -> None:
        super().__init__()
        if context is not None and not isinstance(context, GLib.MainContext):
            raise TypeError(f"context must be a GLib.MainContext, not {context!r}")
        if context is None:
            context = GLib.MainContext.new() if apart else GLib.MainContext.default()
        self.loop = context
        self._sources: dict[int, _Fd] = {}
        self._turning: list[bool] = []  # of each run, the innermost last: is it to go on?

    @classmethod
    def running(cls) -> GlibHost | None:
        if not GLib.main_depth():
            return None
        return cls(GLib.main_current_source().get_context())

    def watch(self, fd: int, callback: Callback) -> None:
        source = self._sources[fd] = _Fd(fd, lambda: self._ready(fd, callback))
        source.set_can_recurse(True)
        source.attach(self.loop)

    def unwatch(self, fd: int) -> None:
        source = self._sources.pop(fd, None)
        if source is not None:
            source.destroy()

    def wake(self) -> None:
        source = GLib.Idle()
        source.set_priority(GLib.PRIORITY_DEFAULT)  # Idle(priority=this) is taken for its own, lower one
        source.set_can_recurse(True)
        source.set_callback(self._woken)
        source.attach(self.loop)

    def is_loop_thread(self) -> bool:
        """The context's owner is whoever iterates it: nobody does where it can be had."""
        if self.loop.is_owner():
            return True
        with _asking:
            if not self.loop.acquire():
                return False
            self.loop.release()
        return True

    def _ready(self, fd: int, callback: Callback) -> None:
        try:
            self.call(callback)
        except BaseException:  # of a loop of yours, to which it goes; the watch must not go with it
            if fd in self._sources:
                self.unwatch(fd)
                self.watch(fd, callback)
            raise

    def _woken(self, *_: Any) -> bool:
        self.run_soon()
        return False

    # -- RunnableHost

    def run_loop(self) -> None:
        with _asking:
            if not self.loop.acquire():
                raise HostUnavailable("another thread runs this GLib main context, or (Qt's) keeps it for itself")
        self._turning.append(True)
        try:
            with self.minding_signals():
                while self._turning[-1]:
                    self.loop.iteration(True)
        finally:
            self._turning.pop()
            self.loop.release()

    def stop_loop(self) -> None:
        self._turning[-1] = False

    def give_back(self) -> None:
        for fd in list(self._sources):
            self.unwatch(fd)


class _Fd(GLib.Source):  # type: ignore[misc]  # PyGObject has no types
    """Ready while its fd is readable (or has failed, which is for the callback to see)."""

    def __init__(self, fd: int, callback: Callback) -> None:
        super().__init__()
        self._callback = callback
        self._in_a_row = 0
        self._poll = GLib.PollFD(fd, GLib.IOCondition.IN)
        self.add_poll(self._poll)

    def prepare(self) -> tuple[bool, int]:
        return False, -1

    def check(self) -> bool:
        if not self._poll.revents or self._in_a_row >= IN_A_ROW:
            self._in_a_row = 0
            return False
        return True

    def dispatch(self, callback: Any, args: Any) -> bool:
        self._in_a_row += 1
        self._callback()
        return True
