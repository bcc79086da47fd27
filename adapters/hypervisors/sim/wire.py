"""How a happening travels through an fd: as a record of fixed size, through a pipe or a socket that may be full.

Both ends are non-blocking and in this process.  A write that does not fit leaves a backlog, which goes out in order
before anything newer; a read that ends within a record keeps the piece until the rest comes.  Nothing is lost and
nothing is sent twice.  Any thread, under the world's lock.
"""

from __future__ import annotations

import os
import socket
import struct

from eventbridge.hypervisor.events import Kind

from .commands import ASKED, MIGRATED_IN, SENT, TAKEN_BACK
from .guests import TRANSITIONS, Happening

_STEPS = [
    *(MIGRATED_IN, SENT, TAKEN_BACK),
    *(step for steps in TRANSITIONS.values() for step in steps),
    *(step for steps in ASKED.values() for step in steps.values()),
]
KINDS = list(Kind)
REASONS = [None, *sorted({step.reason for step in _STEPS if step.reason})]
RECORD = struct.Struct("!QIIHH")
"""Happening.number, .guest, .id, and the indexes of .kind in KINDS and of .reason in REASONS."""
CHUNK = 64 * 1024
"""Bytes read at once: what a pipe holds."""

_KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_REASON_NUMBER = {reason: number for number, reason in enumerate(REASONS)}


def encode(happening: Happening) -> bytes:
    return RECORD.pack(
        happening.number,
        happening.guest,
        happening.id,
        _KIND_NUMBER[happening.kind],
        _REASON_NUMBER[happening.reason],
    )


def decode(data: bytes) -> list[Happening]:
    """Of whole records."""
    return [
        Happening(number, guest, KINDS[kind], REASONS[reason], id)
        for number, guest, id, kind, reason in RECORD.iter_unpack(data)
    ]


class Channel:
    """One way for records: ``reader`` is the manager's end, ``writer`` the guest's; fd numbers."""

    __slots__ = ("_backlog", "_piece", "reader", "writer")

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self._backlog = b""
        self._piece = b""

    @classmethod
    def pipe(cls) -> Channel:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        return cls(reader, writer)

    @classmethod
    def socketpair(cls) -> Channel:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        return cls(ours.detach(), theirs.detach())

    @property
    def blocked(self) -> bool:
        """Is something waiting for room?"""
        return bool(self._backlog)

    def send(self, records: bytes) -> None:
        """Write what fits; the rest waits for `flush`."""
        if self._backlog:
            self._backlog += records
        else:
            self._write(records)

    def flush(self) -> None:
        """Try again with what is waiting.  Worth it once ``writer`` is writable, or after a `receive`."""
        if self._backlog:
            self._write(self._backlog)

    def _write(self, data: bytes) -> None:
        try:
            self._backlog = data[os.write(self.writer, data) :]
        except BlockingIOError:
            self._backlog = data

    def receive(self) -> list[Happening]:
        """What one read brings: whole records, perhaps none."""
        try:
            data = self._piece + os.read(self.reader, CHUNK)
        except BlockingIOError:
            return []
        whole = len(data) - len(data) % RECORD.size
        self._piece = data[whole:]
        return decode(data[:whole])

    @property
    def closed(self) -> bool:
        return self.reader < 0

    def close(self) -> None:
        """Idempotent; nothing else may be called afterwards."""
        for fd in {self.reader, self.writer} - {-1}:
            os.close(fd)
        self.reader = self.writer = -1
