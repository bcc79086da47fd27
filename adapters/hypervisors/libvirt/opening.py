"""Opening a connection, which libvirt lets nobody give up: bounded, and ended from outside.

libvirt's keepalive begins when a connection is open; a daemon that takes it in and says nothing then would hold whoever
opens it for good.  But libvirt has its socket registered with us by then, so there is something to shut down: libvirt
reads the end of it, and comes out with an error.  Opening blocks: on a thread of its own where a loop is running.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import libvirt

from .hooks import trampoline


class Opener:
    """Opens connections to one URI, with libvirt's keepalive: of ``keepalive`` seconds of silence, and so many times.
    An opening is ended after as long as that takes in all, or by `give_up`.
    """

    def __init__(self, uri: str, keepalive: tuple[int, int]) -> None:
        self._uri = uri
        self._keepalive = keepalive
        self._lock = threading.Lock()
        self._opening: set[socket.socket] = set()
        self._given_up = False

    def __call__(self) -> Any:
        """A new connection; libvirtError where there is none to be had."""
        with self._bounded():
            connection = libvirt.open(self._uri)
        with contextlib.suppress(libvirt.libvirtError):  # a driver that knows none has no daemon to fall silent
            connection.setKeepAlive(*self._keepalive)
        return connection

    def give_up(self) -> None:
        """End what is being opened, and whatever is from now on.  Any thread; never blocks; idempotent."""
        with self._lock:
            self._given_up = True
            _shut_down_all(self._opening)

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        seconds, times = self._keepalive
        sockets: list[socket.socket] = []
        timer = threading.Timer(seconds * (times + 1), _shut_down_all, [sockets])
        timer.daemon = True
        timer.name = f"opening of {self._uri}"
        timer.start()
        try:
            with trampoline.noting_fds(lambda fd: self._note(fd, sockets)):
                yield
        finally:
            timer.cancel()
            with self._lock:
                self._opening.difference_update(sockets)
            for each in sockets:
                each.close()

    def _note(self, fd: int, sockets: list[socket.socket]) -> None:
        """Called within libvirt's own call.  A descriptor of our own: libvirt may have closed its by then."""
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return
        ours = socket.socket(fileno=os.dup(fd))
        with self._lock:
            sockets.append(ours)
            self._opening.add(ours)
            if self._given_up:
                _shut_down_all(sockets)


def _shut_down_all(sockets: Iterable[socket.socket]) -> None:
    for each in list(sockets):
        with contextlib.suppress(OSError):  # it has ended, or is closed, already
            each.shutdown(socket.SHUT_RDWR)
