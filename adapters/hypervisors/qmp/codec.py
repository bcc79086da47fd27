"""QMP's wire, sans-IO: bytes in, messages out; commands in, bytes out.  Pure; any thread, one at a time.

One JSON object a line, ended by a newline that no object has inside (QEMU's docs/interop/qmp-spec.txt; its
``monitor/qmp.c`` writes "\\r\\n").  A line may come in many reads, and many in one; each byte is looked at once for its
newline and once for its JSON.  What is no QMP is one `WireError`, and everything after it the same one: there is no
telling where the next message would begin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from eventbridge.errors import EventBridgeError

LINE_LIMIT = 8 << 20
"""Bytes of one line, unless said otherwise.  The longest that QEMU answers are of 100 KiB and more, its own schema's
(``query-qmp-schema``)."""
_SHOWN = 60
"""Characters of a bad line that its error shows."""


class WireError(EventBridgeError, ValueError):
    """What was received is no QMP."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first message.  ``version`` is QEMU's, as in "7.2.22"; ``capabilities`` what may be enabled: "oob"."""

    version: str
    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Event:
    """``raw`` is the whole of it, its timestamp too."""

    name: str
    data: Mapping[str, Any]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Return:
    """A command's answer; ``id`` is the command's."""

    id: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """A command's error.  ``id`` is None where QEMU could not even read the command."""

    id: Any
    error_class: str
    description: str


Message: TypeAlias = Greeting | Event | Return | Failure


def encode(name: str, arguments: Mapping[str, Any], id: int, *, oob: bool = False) -> bytes:
    """A command.  With ``oob`` it is executed out of band, past those that wait: that must have been enabled."""
    command: dict[str, Any] = {"exec-oob" if oob else "execute": name, "id": id}
    if arguments:
        command["arguments"] = dict(arguments)
    return json.dumps(command).encode() + b"\n"


class Decoder:
    """`feed` it what was received, and take what there is with `next`.  It holds one line of at most ``limit`` bytes,
    and what was fed since.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._start = 0  # of the line that is next
        self._looked = 0  # up to here there is no newline in it
        self._end = -1  # its newline, where that has been found
        self._error: str | None = None

    def feed(self, data: bytes) -> None:
        """Any number of bytes."""
        if self._error is None:
            self._buffer += data
            self._look()

    @property
    def ready(self) -> bool:
        """Has `next` something to give, or to raise?"""
        return self._end >= 0 or self._error is not None

    @property
    def held(self) -> int:
        """Bytes that are not taken yet."""
        return len(self._buffer) - self._start

    def next(self) -> Message | None:
        """The next message; None until more is fed.  `WireError`, and from then on always."""
        while self._error is None and self._end >= 0:
            line = self._take()
            if line.strip():
                try:
                    return _message(line)
                except WireError as error:
                    self._fail(str(error))
        if self._error is not None:
            raise WireError(self._error)
        return None

    def _take(self) -> bytearray:
        line = self._buffer[self._start : self._end]
        self._start = self._looked = self._end + 1
        self._end = -1
        if self._start == len(self._buffer):
            self._buffer.clear()
            self._start = self._looked = 0
        self._look()
        return line

    def _look(self) -> None:
        """For the next newline."""
        if self._end >= 0:
            return
        self._end = self._buffer.find(b"\n", self._looked)
        self._looked = len(self._buffer) if self._end < 0 else self._end
        if self._looked - self._start > self._limit:
            self._fail(f"a line of more than {self._limit} bytes: {_shown(self._buffer[self._start :][: _SHOWN * 4])}")
        elif self._end < 0 and self._start:  # once a read, and not once a line: what is moved is less than a line
            del self._buffer[: self._start]
            self._looked -= self._start
            self._start = 0

    def _fail(self, why: str) -> None:
        self._error = why
        self._buffer = bytearray()
        self._start = self._looked = 0
        self._end = -1


def _message(line: bytearray) -> Message:
    try:
        found = _JSON.decode(line.decode())
    except RecursionError:
        raise WireError(f"JSON that is nested too deeply: {_shown(line)}") from None
    except ValueError as error:
        hint = "; is its monitor set to pretty=on? Each object must be on one line" if line.strip() == b"{" else ""
        raise WireError(f"no JSON ({error}): {_shown(line)}{hint}") from None
    try:
        if isinstance(found, dict):
            for key, take in _SHAPES.items():
                if key in found:
                    return take(found)
    except (KeyError, TypeError, AttributeError):
        pass
    raise WireError(f"JSON, but no message of QMP's: {_shown(line)}")


def _greeting(found: dict[str, Any]) -> Greeting:
    qemu = found["QMP"]["version"]["qemu"]
    capabilities = frozenset(_text(name) for name in found["QMP"]["capabilities"])
    return Greeting(f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}", capabilities)


def _event(found: dict[str, Any]) -> Event:
    data = found.get("data", {})
    if not isinstance(data, dict):
        raise TypeError("data")
    return Event(_text(found["event"]), data, found)


def _failure(found: dict[str, Any]) -> Failure:
    return Failure(found.get("id"), _text(found["error"]["class"]), _text(found["error"]["desc"]))


_SHAPES: dict[str, Callable[[dict[str, Any]], Message]] = {
    "event": _event,
    "return": lambda found: Return(found.get("id"), found["return"]),
    "error": _failure,
    "QMP": _greeting,
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_JSON = json.JSONDecoder(parse_constant=_no_number)
"""Without JavaScript's numbers, which json takes; made once, for json.loads would make it for each line."""


def _shown(line: bytearray) -> str:
    text = line[: _SHOWN * 4].decode(errors="replace").strip()
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
