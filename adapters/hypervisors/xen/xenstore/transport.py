"""The bytes to and from xenstored: a unix socket, or the kernel's device; and where they are, and why one is refused.

A guest, or a dom0 whose xenstored lives in a domain of its own, has the device.  Where the socket is the environment
says, as to libxenstore: XENSTORED_PATH, or XENSTORED_RUNDIR for the directory it is in (Xen's ``tools/libs/store``).
Any thread; one at a time may receive, and one may send.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Protocol

from eventbridge.errors import HypervisorError

SOCKETS = ("/var/run/xenstored/socket", "/run/xenstored/socket")
DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus")


class Link(Protocol):
    """An open one.  What fails raises OSError."""

    def fileno(self) -> int: ...

    def send(self, data: bytes) -> None:
        """All of it.  Blocks while xenstored does not read."""

    def receive(self, size: int) -> bytes:
        """At most so many bytes, at least one; b"" at the end.  Blocks while there are none."""

    def hang_up(self) -> None:
        """Have a thread that is in `send` come back, as far as that can be done.  The fd stays open."""

    def close(self) -> None: ...


class SocketLink:
    """xenstored's unix socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data, socket.MSG_NOSIGNAL)

    def receive(self, size: int) -> bytes:
        return self._socket.recv(size)

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class DeviceLink:
    """Linux's /dev/xen/xenbus (drivers/xen/xenbus/xenbus_dev_frontend.c): whole messages through read and write."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self, size: int) -> bytes:
        return os.read(self._fd, size)

    def hang_up(self) -> None:
        """Nothing can be done: a write in the kernel is waited for."""

    def close(self) -> None:
        os.close(self._fd)


def places() -> tuple[str, ...]:
    """Where this machine's xenstored may be, the likeliest first."""
    path, directory = os.environ.get("XENSTORED_PATH"), os.environ.get("XENSTORED_RUNDIR")
    if path:
        return (path,)
    return ((f"{directory}/socket",) if directory else SOCKETS) + DEVICES


def connect(address: str | None = None) -> tuple[str, Link]:
    """The first place that lets us in, or ``address`` and no other.  Blocks while a socket's queue is full.

    `HypervisorError`, of the place that says most, where none does.
    """
    refused: list[tuple[str, OSError]] = []
    for path in places() if address is None else (address,):
        try:
            return path, _open(path)
        except OSError as error:
            refused.append((path, error))
    raise _refusal(refused)


def _open(path: str) -> Link:
    mode = os.stat(path).st_mode
    if stat.S_ISSOCK(mode):
        return _open_socket(path)
    if stat.S_ISCHR(mode):
        return DeviceLink(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    raise OSError(errno.ENOTSOCK, "it is neither a socket nor a device")


def _open_socket(path: str) -> Link:
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(path)
    except BaseException as error:
        connected.close()
        if isinstance(error, OSError) and error.errno is None:  # Python's own, for a path of more than 107 bytes
            raise OSError(errno.ENAMETOOLONG, str(error)) from None
        raise
    return SocketLink(connected)


# What to do about it, by the errno of opening one.
_HINTS: dict[int, str] = {
    errno.ENOENT: "nobody is there: is xenstored running, and is this a Xen host?",
    errno.ENODEV: "nobody is there: is xenstored running, and is this a Xen host?",
    errno.ECONNREFUSED: "nobody listens there: is xenstored running?",
    errno.EACCES: "no permission: run as root, or as a member of the group that owns it",
    errno.EPERM: "no permission: run as root, or as a member of the group that owns it",
}
_SAYS_LITTLE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)


def _refusal(refused: list[tuple[str, OSError]]) -> HypervisorError:
    telling = [(path, error) for path, error in refused if error.errno not in _SAYS_LITTLE]
    path, error = (telling or refused)[0]
    where = path if telling else " or ".join(path for path, _ in refused)
    code = error.errno or 0
    words = _HINTS.get(code) or error.strerror or os.strerror(code)
    return HypervisorError(f"cannot connect to xenstored at {where}: {words}", code=code, operation="open")
