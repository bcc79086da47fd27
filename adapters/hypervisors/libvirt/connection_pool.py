"""The connections that calls go over, kept for as long as anybody is inside them.

libvirt lets many threads into one connection at once, but with a daemon that does not end well (seen with 9.0.0, on
libvirt's own event loop too): where the keepalive breaks a connection that several threads are inside of, one comes out
with an error, the others never do, nobody is told, and what touches the socket next is a segfault; and a daemon reads
nothing more of a client, keepalives included, that has five calls under way (libvirtd.conf, max_client_requests).  So
each call of a daemon's has a connection to itself while it lasts (`OneEach`).  Within this process there is no daemon
to fall silent, and one connection serves all (`Shared`).

libvirt frees a connection beneath a call that holds no domain of it (``virConnectClose``), so it is closed when the
last has come out.  Any thread; the lock is held for a count alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import libvirt

from eventbridge.errors import ConnectionLost

IDLE = 4
"""How many connections of one session are kept when no call needs them."""

CLOSED, LOST = "was closed", "was lost"


class Connections(Protocol):
    """What a session's calls get their connection from."""

    def inside(self, what: str) -> contextlib.AbstractContextManager[Any]:
        """A connection, not closed before this is left.  Blocks; `ConnectionLost`, of ``what``, after `close`."""

    def close(self, why: str) -> None:
        """Let nobody else in: the connection ``why``.  The first says; never blocks."""

    def wait_until_empty(self) -> None:
        """Until the last has come out, and what was opened here is closed.  Blocks."""


def alive(connection: Any) -> bool:
    """Is it good still, as far as is known here?  Asks no daemon; call it from inside."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


class Shared:
    """`Connections`, which is one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._counted = threading.Condition()
        self._inside = 0
        self._closed = ""

    @contextlib.contextmanager
    def inside(self, what: str) -> Iterator[Any]:
        with self._counted:
            if self._closed:
                raise _closed(what, self._closed)
            self._inside += 1
        try:
            yield self._connection
        finally:
            with self._counted:
                self._inside -= 1
                self._counted.notify_all()

    def close(self, why: str) -> None:
        with self._counted:
            self._closed = self._closed or why

    def wait_until_empty(self) -> None:
        with self._counted:
            self._counted.wait_for(lambda: not self._inside)


class OneEach:
    """`Connections`, each lent to one call at a time; opened with ``opener()`` when they are needed.

    ``first`` is the session's own, which is lost when the daemon is.  With ``only`` no other is opened and it is lent
    itself, to one call after the other.
    """

    def __init__(self, first: Any, opener: Callable[[], Any], only: bool = False) -> None:
        self._first = first
        self._opener = opener
        self._counted = threading.Condition()
        self._inside = 0
        self._limit = 1 if only else None
        self._idle: list[Any] = [first] if only else []
        self._closed = ""

    @contextlib.contextmanager
    def inside(self, what: str) -> Iterator[Any]:
        connection = self._enter(what)
        try:
            if connection is None:
                connection = self._opener()
            yield connection
        finally:
            self._leave(connection)

    def close(self, why: str) -> None:
        with self._counted:
            self._closed = self._closed or why
            self._counted.notify_all()

    def wait_until_empty(self) -> None:
        with self._counted:
            self._counted.wait_for(lambda: not self._inside)
            idle, self._idle = self._idle, []
        for connection in idle:
            self._end(connection)

    def _enter(self, what: str) -> Any:
        """An idle one, or None: one is to be opened."""
        with self._counted:
            self._counted.wait_for(lambda: bool(self._closed) or self._inside != self._limit)
            if self._closed:
                raise _closed(what, self._closed)
            if not alive(self._first):
                raise _closed(what, LOST)
            self._inside += 1
            while self._idle:
                connection = self._idle.pop()
                if alive(connection):
                    return connection
            return None

    def _leave(self, connection: Any) -> None:
        with self._counted:
            wanted = len(self._idle) < IDLE and not self._closed
        keep = connection is self._first or (connection is not None and wanted and alive(connection))
        if connection is not None and not keep:
            self._end(connection)
        with self._counted:
            if keep:
                self._idle.append(connection)
            self._inside -= 1
            self._counted.notify_all()

    def _end(self, connection: Any) -> None:
        if connection is not self._first:
            with contextlib.suppress(libvirt.libvirtError):  # it was lost
                connection.close()


def _closed(what: str, why: str) -> ConnectionLost:
    return ConnectionLost(f"{what}: the connection {why}")
