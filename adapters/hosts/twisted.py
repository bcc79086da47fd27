"""Twisted: any reactor with readers (IReactorFDSet), which on Linux is every one of them.

Facts it rests on: whatever leaves ``doRead`` is logged, KeyboardInterrupt and SystemExit too, and its reader dropped;
so is what leaves a call of ``callFromThread``, and the main loop itself.  So those two are kept for `run` to raise; a
reactor that somebody else runs is stopped by them, as it is by its own handler of Ctrl-C.  A reactor that was stopped
cannot be started again, one that has crashed can: `stop` is ``crash``.  ``isInIOThread`` knows one thread for all
reactors of a process.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from eventbridge.core.loop_host import Callback, LoopHost
from eventbridge.errors import HostUnavailable

_log = Logger(namespace="eventbridge")


class TwistedHost(LoopHost):
    """``TwistedHost()`` on the reactor that is installed (Twisted installs its default where none is),
    ``TwistedHost(reactor)`` on another.  ``TwistedHost(apart=True)`` makes one of its own, which is not installed.
    """

    name = "twisted"

    def __init__(self, reactor: Any = None, *, apart: bool = False) -> None:
        super().__init__()
        self._ours = apart
        if apart:
            reactor = importlib.import_module("twisted.internet.epollreactor").EPollReactor()
        elif reactor is None:
            reactor = importlib.import_module("twisted.internet.reactor")
        if not IReactorFDSet.providedBy(reactor):
            raise HostUnavailable(f"{reactor!r} has no readers (IReactorFDSet): install another reactor")
        self.loop = reactor
        self._readers: dict[int, _Reader] = {}

    @classmethod
    def running(cls) -> TwistedHost | None:
        reactor: Any = sys.modules.get("twisted.internet.reactor")  # the very object, not a module
        if not getattr(reactor, "running", False) or not isInIOThread():  # type: ignore[no-untyped-call]  # it has no types
            return None
        host = cls(reactor)
        host._thread = threading.get_ident()
        return host

    def watch(self, fd: int, callback: Callback) -> None:
        reader = self._readers[fd] = _Reader(self, fd, callback)
        self.loop.addReader(reader)

    def unwatch(self, fd: int) -> None:
        reader = self._readers.pop(fd, None)
        if reader is not None:
            self.loop.removeReader(reader)

    def wake(self) -> None:
        self.loop.callFromThread(self.run_soon)

    def report(self, exception: BaseException, context: str) -> None:
        with contextlib.suppress(Exception):
            _log.failure("exception {context}", failure=_failure(exception), context=context)

    def interrupted(self, error: BaseException) -> None:
        self.report(error, "that ends the reactor")
        with contextlib.suppress(Exception):  # it is stopping already
            self.loop.stop()

    # -- RunnableHost

    def run_loop(self) -> None:
        if self.loop.running:
            raise HostUnavailable("this reactor is running already: it cannot be run again inside that")
        with self.minding_signals():
            self.loop.run(installSignalHandlers=False)

    def stop_loop(self) -> None:
        self.loop.crash()

    def give_back(self) -> None:
        for fd in list(self._readers):
            self.unwatch(fd)
        if self._ours:
            for reader in self.loop.removeAll():
                reader.connectionLost(None)
            self.loop.removeReader(self.loop.waker)
            self.loop.waker.connectionLost(None)
            self.loop._poller.close()


@implementer(IReadDescriptor)
class _Reader:
    """What a reactor watches."""

    def __init__(self, host: TwistedHost, fd: int, callback: Callback) -> None:
        self._host = host
        self._fd = fd
        self._callback = callback

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        self._host.call(self._callback)

    def connectionLost(self, reason: object) -> None:
        """The reactor has let go of it."""

    def logPrefix(self) -> str:
        return "eventbridge"


def _failure(exception: BaseException) -> Any:
    return importlib.import_module("twisted.python.failure").Failure(exception)
