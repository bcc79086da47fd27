"""Asking a daemon that runs: the other end of `server`."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from typing import Any

from eventbridge.errors import EventBridgeError

CONNECT_SECONDS = 5.0


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


class Asking:
    """One question, put to who serves at ``path``.  Blocks: a thread that runs no loop.  OSError where nobody is there,
    or may not be asked by us.
    """

    def __init__(self, path: str, question: dict[str, Any], *, within: float = 60.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._connect()
            self._socket.settimeout(within)
            self._socket.sendall(json.dumps(question).encode() + b"\n")
        except OSError as error:
            self._socket.close()
            why = "nobody serves there any more" if isinstance(error, ConnectionRefusedError) else error.strerror
            raise type(error)(error.errno, why or str(error), path) from None

    def _connect(self) -> None:
        give_up = time.monotonic() + CONNECT_SECONDS
        self._socket.settimeout(CONNECT_SECONDS)
        while True:
            try:
                return self._socket.connect(self._path)
            except BlockingIOError:  # others are before us: connect(2) does not wait for room on a Unix socket
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def answer(self) -> dict[str, Any]:
        """`EventBridgeError` where there is none."""
        pieces = []
        while piece := self._socket.recv(1 << 16):
            pieces.append(piece)
        try:
            found: dict[str, Any] = json.loads(b"".join(pieces))
        except ValueError:
            raise EventBridgeError(f"{self._path}: whoever serves there has gone in the middle of the answer") from None
        if "error" in found:
            raise EventBridgeError(f"{self._path}: {found['error']}")
        return found

    def enough(self) -> None:
        """Answer with what there is by now."""
        self._socket.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
