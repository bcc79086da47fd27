"""The test's own client of xenstored: the wire protocol over one connection, many requests in flight at once.

It is apart from what is tested on purpose, and knows only what a test does to a store.  Facts: Xen's public header
io/xs_wire.h.  Any thread may use it; the requests of one call are answered in order."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.patience import PATIENCE

DIRECTORY, READ, INTRODUCE, RELEASE, WRITE, RM, ERROR, RESUME = 1, 2, 8, 9, 11, 13, 16, 18
HEADER = struct.Struct("=IIII")  # type, request, transaction, length of what follows
IN_FLIGHT = 100
"""Requests sent before their answers are read: less than the sockets hold, so neither side waits for the other."""


class Request(NamedTuple):
    type: int
    payload: bytes


def read(path: str) -> Request:
    return Request(READ, _text(path))


def write(path: str, value: str) -> Request:
    return Request(WRITE, _text(path) + value.encode())


def rm(path: str) -> Request:
    return Request(RM, _text(path))


def introduce(domid: int) -> Request:
    """xenstored reads the grant of the ring and the port, which the stand-in's devices do not look at."""
    return Request(INTRODUCE, _text(str(domid)) + _text("1") + _text("5"))


def release(domid: int) -> Request:
    return Request(RELEASE, _text(str(domid)))


def resume(domid: int) -> Request:
    """xenstored is to announce it when the domain shuts down again."""
    return Request(RESUME, _text(str(domid)))


class StoreError(Exception):
    """xenstored's refusal: the name of an errno."""


class Store:
    """One connection, to the socket of this path."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, requests: Iterable[Request]) -> list[bytes]:
        """The answers, in order; StoreError with the first refusal, when all are answered."""
        requests = list(requests)
        answers = self._all(requests)
        for request, (type, answer) in zip(requests, answers, strict=True):
            if type == ERROR:
                raise StoreError(f"xenstored refuses {request}: {_value(answer)}")
        return [answer for _, answer in answers]

    def _all(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        with self._lock:
            starts = range(0, len(requests), IN_FLIGHT)
            return [answer for start in starts for answer in self._some(requests[start : start + IN_FLIGHT])]

    def _some(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        self._socket.sendall(b"".join(HEADER.pack(r.type, 0, 0, len(r.payload)) + r.payload for r in requests))
        return [self._answer() for _ in requests]

    def _answer(self) -> tuple[int, bytes]:
        header = self._answers.read(HEADER.size)
        if len(header) < HEADER.size:
            raise ConnectionResetError("xenstored closed the connection")
        type, _, _, length = HEADER.unpack(header)
        return type, self._answers.read(length)

    def read(self, path: str) -> str | None:
        """The value, or None where there is no such path."""
        ((type, answer),) = self._all([read(path)])
        if type != ERROR:
            return answer.decode()
        if _value(answer) == "ENOENT":
            return None
        raise StoreError(f"xenstored refuses to read {path}: {_value(answer)}")

    def remove(self, paths: Iterable[str]) -> None:
        """With all that is below them; what is not there is as wanted."""
        answers = self._all([rm(path) for path in paths])
        if refused := {_value(answer) for type, answer in answers if type == ERROR} - {"ENOENT"}:
            raise StoreError(f"xenstored refuses to remove: {refused}")


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _value(answer: bytes) -> str:
    return answer.rstrip(b"\0").decode()
