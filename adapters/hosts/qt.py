"""Qt: the event loop of a thread, through PySide6, or PyQt6 where that is what is loaded, or all there is.

A `QSocketNotifier` watches an fd; calls of other threads come as posted events.

Facts it rests on: a notifier belongs to the thread that made it, is level-triggered, and goes on in nested loops (D5);
it may not be deleted within its own signal.  What leaves a slot is printed by PySide6 and aborts the process under
PyQt6, so nothing does: KeyboardInterrupt and SystemExit of a callback are kept for `run` to raise, and have an
application that somebody else runs exit.  C++ does not run Python's signal handlers: see `run`'s.
An event loop needs an application object, made by the main thread.  PySide6-Essentials 6.12.0 crashes on Python 3.11.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from typing import Any

from eventbridge.core.loop_host import Callback, LoopHost
from eventbridge.errors import HostUnavailable

BINDINGS = ("PySide6", "PyQt6")


def _core() -> Any:
    """QtCore, of the binding that is loaded, else of the first that can be."""
    for binding in sorted(BINDINGS, key=lambda name: f"{name}.QtCore" not in sys.modules):
        with contextlib.suppress(ImportError):
            return importlib.import_module(f"{binding}.QtCore")
    raise ImportError(f"none of {', '.join(BINDINGS)} can be imported")


Qt = _core()


# Looked up here, once: PySide makes its enumerations when they are first asked for, and not safely from two threads.
_BELL = Qt.QEvent.Type.User


class QtHost(LoopHost):
    """``QtHost()`` on this thread's event loop, whether `run` runs it or your ``app.exec()``; an application object is
    made where there is none.  ``QtHost(apart=True)`` is on none until `run`, and then on that of whichever thread runs
    it.
    """

    name = "qt"

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__()
        application()
        self._home = None if apart else threading.get_ident()
        self._thread = self._home
        self._bell: _Bell | None = None if apart else _Bell(self)
        self._watched: dict[int, Callback] = {}
        self._notifiers: dict[int, Any] = {}
        self._loops: list[Any] = []  # of each run, the innermost last

    @classmethod
    def running(cls) -> QtHost | None:
        """Where a loop is being executed in this thread; before ``app.exec()`` it is `Bridge("qt")`."""
        if Qt.QCoreApplication.instance() is None or not Qt.QThread.currentThread().loopLevel():
            return None
        return cls()

    def watch(self, fd: int, callback: Callback) -> None:
        self._watched[fd] = callback
        if self._bell is not None:
            self._begin(fd, self._bell)

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)
        _end(self._notifiers.pop(fd, None))

    def wake(self) -> None:
        bell = self._bell
        if bell is not None:  # else the next run begins with them
            Qt.QCoreApplication.postEvent(bell, Qt.QEvent(_BELL))

    def interrupted(self, error: BaseException) -> None:
        self.report(error, "that ends the application")
        code = error.code if isinstance(error, SystemExit) else 130  # as a shell has it of Ctrl-C
        Qt.QCoreApplication.exit(code if isinstance(code, int) else int(code is not None))

    def _begin(self, fd: int, bell: _Bell) -> None:
        notifier = self._notifiers[fd] = Qt.QSocketNotifier(fd, Qt.QSocketNotifier.Type.Read, bell)
        notifier.activated.connect(lambda *_: self._ready(fd))

    def _ready(self, fd: int) -> None:
        callback = self._watched.get(fd)
        if callback is not None:
            self.call(callback)

    # -- RunnableHost

    def run_loop(self) -> None:
        if self._home not in (None, threading.get_ident()):
            raise HostUnavailable("this Qt loop is another thread's: QtHost(apart=True) may be run by any")
        self._loops.append(Qt.QEventLoop())  # which gives a thread its dispatcher, that notifiers need
        if self._home is None and self._running == 1:
            self._bell = _Bell(self)
            for fd in self._watched:
                self._begin(fd, self._bell)
            self.wake()
        try:
            with self.minding_signals():
                self._loops[-1].exec()
        finally:
            self._loops.pop()
            if self._home is None and not self._loops:
                self._leave()

    def _leave(self) -> None:
        """This thread, to which Qt's objects belong."""
        while self._notifiers:
            _end(self._notifiers.popitem()[1])
        self._bell = None  # and its notifiers with it

    def stop_loop(self) -> None:
        self._loops[-1].quit()

    def give_back(self) -> None:
        for fd in list(self._watched):
            self.unwatch(fd)


class _Bell(Qt.QObject):  # type: ignore[name-defined,misc]  # it is whichever binding's
    """Through which other threads ask for the loop's; the notifiers are its children."""

    def __init__(self, host: QtHost) -> None:
        super().__init__()
        self._host = host

    def event(self, event: Any) -> bool:
        if event.type() == _BELL:
            self._host.run_soon()
            return True
        return bool(super().event(event))


def _end(notifier: Any) -> None:
    if notifier is not None:
        notifier.setEnabled(False)
        notifier.deleteLater()


_made: list[Any] = []  # somebody must hold it, for Qt does not


def application() -> Any:
    """The process's, made where there is none."""
    if Qt.QCoreApplication.instance() is None:
        if threading.current_thread() is not threading.main_thread():
            raise HostUnavailable(
                "Qt wants its application object made by the main thread: make it, or the host, there"
            )
        _made.append(Qt.QCoreApplication(sys.argv[:1]))
    return Qt.QCoreApplication.instance()
