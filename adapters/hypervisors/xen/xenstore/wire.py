"""xenstored's wire protocol, sans-IO: requests to bytes, bytes to replies and watch events.

Facts: Xen's public header ``io/xs_wire.h`` and ``docs/misc/xenstore.txt``.  A message is a header of four 32-bit
numbers in the machine's own byte order (type, request id, transaction id, length of what follows), then at most 4096
bytes of payload, mostly text of which each piece ends with a NUL.  A reply has its request's type and id, or the type
ERROR and the name of an errno.  Whatever does not fit this is a `WireError`, as soon as it can be told.

No socket, thread or clock; a `Decoder` belongs to one thread at a time.
"""

from __future__ import annotations

import enum
import errno
import struct
from typing import NamedTuple

from eventbridge.errors import EventBridgeError

from .store import Watched, text

HEADER = struct.Struct("=IIII")
PAYLOAD_MAX = 4096
ID_MAX = 0xFFFFFFFF


class Type(enum.IntEnum):
    """``xsd_sockmsg_type``, as far as it is used here."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


# The errnos that xenstored has a name for (``xsd_errors``); the numbers are the machine's own.
ERRORS: dict[bytes, int] = {
    name.encode(): getattr(errno, name)
    for name in (
        "EINVAL EACCES EEXIST EISDIR ENOENT ENOMEM ENOSPC EIO ENOTEMPTY ENOSYS EROFS EBUSY EAGAIN EISCONN E2BIG EPERM"
    ).split()
}

_TYPES = frozenset(Type)


class WireError(EventBridgeError, ValueError):
    """What was received, or is to be sent, is not the protocol."""


class Message(NamedTuple):
    """One message, either way."""

    type: Type
    request: int
    transaction: int
    payload: bytes


class Part(NamedTuple):
    """A piece of a long directory: as of ``generation`` of the node, from the offset on that was asked for."""

    generation: bytes
    names: list[str]
    length: int
    """Bytes by which the next piece's offset is further on."""
    last: bool


def encode(message: Message) -> bytes:
    """`WireError` for a payload of more than `PAYLOAD_MAX` bytes, which xenstored answers by hanging up."""
    type, request, transaction, payload = message
    if len(payload) > PAYLOAD_MAX:
        raise WireError(f"a payload of {len(payload)} bytes: it can have {PAYLOAD_MAX}")
    return HEADER.pack(type, request, transaction, len(payload)) + payload


class Decoder:
    """What arrives, in whatever pieces, to messages.

    With all of them taken it keeps less than one message's bytes, whatever arrives.  After a `WireError` nothing can
    be told apart any more: it says the same again.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._error: str | None = None

    def feed(self, data: bytes) -> None:
        """``data`` has arrived.  Take what it completes with `next` before there is more."""
        if self._error is None:
            self._bytes += data

    def next(self) -> Message | None:
        """The next message; None where more must arrive first."""
        if self._error is not None:
            raise WireError(self._error)
        message = self._message()
        if message is not None:
            del self._bytes[: HEADER.size + len(message.payload)]
        return message

    @property
    def held(self) -> int:
        """Bytes of messages that were not taken, or are incomplete."""
        return len(self._bytes)

    def end(self) -> None:
        """There is no more: `WireError` where that is within a message."""
        if self._bytes:
            raise self._fail(f"it ends within a message, {self._found()}")

    def _message(self) -> Message | None:
        if len(self._bytes) < HEADER.size:
            return None
        type, request, transaction, length = HEADER.unpack_from(self._bytes)
        if type not in _TYPES:
            raise self._fail(f"a message of type {type}, which there is not")
        if length > PAYLOAD_MAX:
            raise self._fail(f"a message that claims {length} bytes: it can have {PAYLOAD_MAX}")
        end = HEADER.size + length
        if len(self._bytes) < end:
            return None
        return Message(Type(type), request, transaction, bytes(self._bytes[HEADER.size : end]))

    def _found(self) -> str:
        if len(self._bytes) < HEADER.size:
            return f"after {len(self._bytes)} of the header's {HEADER.size} bytes"
        length = HEADER.unpack_from(self._bytes)[3]
        return f"after {len(self._bytes) - HEADER.size} of its {length} bytes"

    def _fail(self, words: str) -> WireError:
        self._error = words
        self._bytes.clear()
        return WireError(words)


# -- payloads


def names(payload: bytes) -> list[str]:
    """Pieces of text, each with its NUL.  `WireError` where the last has none."""
    if payload and not payload.endswith(b"\0"):
        raise WireError(f"text without its NUL: {payload[-40:]!r}")
    return [text(piece) for piece in payload.split(b"\0")[:-1]]


def watched(payload: bytes) -> Watched:
    """What a watch event says."""
    found = names(payload)
    if len(found) != 2:
        raise WireError(f"a watch event of {len(found)} texts instead of a path and a token: {payload[:80]!r}")
    return Watched(found[0], found[1])


def number(payload: bytes) -> int:
    """A decimal number, as of a transaction: from 1 to `ID_MAX`."""
    digits = payload.removesuffix(b"\0")
    if not digits.isdigit() or len(digits) > 10 or not 0 < int(digits) <= ID_MAX:
        raise WireError(f"a number was expected: {payload[:40]!r}")
    return int(digits)


def flag(payload: bytes) -> bool:
    """T or F."""
    if payload not in (b"T\0", b"F\0"):
        raise WireError(f"T or F was expected: {payload[:40]!r}")
    return payload == b"T\0"


def part(payload: bytes) -> Part:
    """Of a directory that is too long for one message: a generation, then names; one NUL more after the last."""
    generation, nul, rest = payload.partition(b"\0")
    if not nul:
        raise WireError(f"a directory's part without a generation: {payload[:40]!r}")
    last = not rest or rest == b"\0" or rest.endswith(b"\0\0")
    return Part(generation, names(rest[:-1] if last else rest), len(rest), last)


def error(payload: bytes) -> tuple[int, str]:
    """An errno and its name; EINVAL for a name that is not known, as libxenstore has it."""
    name = payload.removesuffix(b"\0")
    if not name or len(name) > 40 or not name.isalnum():
        raise WireError(f"the name of an error was expected: {payload[:40]!r}")
    return ERRORS.get(name, errno.EINVAL), name.decode()
