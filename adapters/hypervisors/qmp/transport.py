"""The bytes to and from one QEMU: where its QMP socket is, how it is connected to, and what waits to be sent.

`connect` blocks, with a deadline; a `Link` never does.  One thread at a time, whichever.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from eventbridge.errors import HypervisorError

CHUNK = 64 * 1024
"""Bytes received at once."""
# A QEMU whose host has gone says nothing: after half a minute of that the kernel calls the connection dead.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))  # seconds, seconds, times


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's path, or a host and a port."""

    path: str | None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, uri: str) -> Address:
        """``qmp+unix:///path`` or ``qmp+tcp://host:port``; `HypervisorError` for anything else."""
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _bad(uri, str(error)) from None
        if parts.query or parts.fragment or parts.username is not None:
            raise _bad(uri, "it takes no user, query or fragment")
        if parts.scheme == "qmp+unix":
            return cls(_path(uri, parts))
        if parts.scheme == "qmp+tcp" and host and port and parts.path in ("", "/"):
            return cls(None, host, port)
        raise _bad(uri, "it names no QMP socket")

    @property
    def stem(self) -> str:
        """What a domain that says no name of its own is called by."""
        return f"{self.host}:{self.port}" if self.path is None else PurePosixPath(self.path).stem


def _path(uri: str, parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise _bad(uri, "it names no socket's path")
    return path


def _bad(uri: str, what: str) -> HypervisorError:
    return HypervisorError(
        f"{uri}: {what}: write qmp+unix:///path/to/the/socket or qmp+tcp://host:port, as QEMU's -qmp was given",
        operation="open",
    )


class Link:
    """A connected socket, and what is to be sent by it, piece by piece in order."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._outgoing: collections.OrderedDict[int, tuple[bytes, int | None]] = collections.OrderedDict()
        self._sent = 0  # bytes of the first

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def peer(self) -> int | None:
        """The pid of who listens at a unix socket, where it can be seen from here."""
        if self._socket.family != socket.AF_UNIX:
            return None
        with contextlib.suppress(OSError):
            found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", found)[0]) or None  # 0: of another pid namespace
        return None

    @property
    def waiting(self) -> int:
        """How many pieces wait to be sent."""
        return len(self._outgoing)

    def put(self, number: int, data: bytes, fd: int | None = None) -> None:
        """Have ``data`` sent at the next `flush`; with it ``fd``, which stays the caller's."""
        self._outgoing[number] = (data, fd)

    def take_back(self, number: int) -> bool:
        """False where some of it is sent already."""
        if number not in self._outgoing or (self._sent and number == next(iter(self._outgoing))):
            return False
        del self._outgoing[number]
        return True

    def flush(self) -> None:
        """As much as the socket takes.  OSError."""
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                number, (data, fd) = next(iter(self._outgoing.items()))
                self._sent += self._send(data, None if self._sent else fd)
                if self._sent == len(data):
                    del self._outgoing[number]
                    self._sent = 0

    def _send(self, data: bytes, fd: int | None) -> int:
        if fd is None:
            return self._socket.send(memoryview(data)[self._sent :], socket.MSG_NOSIGNAL)
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
        return self._socket.sendmsg([data], passed, socket.MSG_NOSIGNAL)

    def receive(self) -> bytes | None:
        """What is there, at most `CHUNK` bytes; b"" at the end, None where there is nothing yet.  OSError."""
        try:
            return self._socket.recv(CHUNK)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # it ended with something of ours unread
            return b""

    def close(self) -> None:
        self._socket.close()


def connect(uri: str, address: Address, seconds: float) -> Link:
    """Blocks for ``seconds`` at most.  `HypervisorError` where nobody lets us in."""
    try:
        if address.path is None:
            connected = socket.create_connection((address.host, address.port), seconds)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
            return Link(connected)
        return Link(_connect_unix(address.path, seconds))
    except OSError as error:
        code = error.errno
        words = _HINTS.get(code or 0) or error.strerror or str(error)
        raise HypervisorError(f"{uri}: cannot connect: {words}", code=code, operation="open") from error


def _connect_unix(path: str, seconds: float) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX)
    try:
        connecting.settimeout(seconds)
        connecting.connect(path)
    except BaseException as error:
        connecting.close()
        if isinstance(error, OSError) and error.errno is None and not isinstance(error, TimeoutError):
            # Python's own, for a path of more than 107 bytes.
            raise OSError(errno.ENAMETOOLONG, f"{os.strerror(errno.ENAMETOOLONG)}: {error}") from None
        raise
    return connecting


# What to do about it, by the errno of connecting.
_HINTS: dict[int, str] = {
    errno.ENOENT: "nobody is there: is QEMU running, and was it given -qmp unix:PATH,server=on,wait=off?",
    errno.ECONNREFUSED: "nobody listens there: is QEMU running, with a -qmp of server=on?",
    errno.EACCES: "no permission: run as the user that QEMU runs as, or as root",
    errno.EAGAIN: "its queue is full: QEMU serves one client a monitor, and others wait already; give it another -qmp",
}
