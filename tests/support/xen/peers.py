"""Who is at the other end of a connection to xenstored in a test: a peer that says what the test wants, or nobody who
would let this user in."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.patience import PATIENCE

NOBODY = 65534
HEADER = struct.Struct("=IIII")


@contextlib.contextmanager
def as_nobody(path: Path) -> Iterator[None]:
    """Without permission for ``path``: as another user where this is root, otherwise by its mode."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(0)
        try:
            yield
        finally:
            path.chmod(mode)
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def scripted_peer(path: Path, answers: list[bytes]) -> Iterator[None]:
    """A stand-in for xenstored at ``path``: it sends each answer when a request has come, then hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(PATIENCE)

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            for answer in answers:
                request(peer)
                peer.sendall(answer)

    thread = threading.Thread(target=serve, name="a scripted xenstored")
    thread.start()
    try:
        yield
    finally:
        thread.join()
        listener.close()


def request(peer: socket.socket) -> tuple[int, int, bytes]:
    """Type, id and payload of the next one."""
    peer.settimeout(PATIENCE)
    type, id, _, length = HEADER.unpack(_exactly(peer, HEADER.size))
    return type, id, _exactly(peer, length)


def _exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        assert more, "hung up within a request"
        data += more
    return data


def message(type: int, id: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(type, id, 0, len(payload)) + payload
