"""Guests that are coming in to this host, each out of a pipe: whose they are, and where they can be met.

libxl streams a guest to an fd and out of one, and leaves the way between two hosts to its user, as xl does with ssh.
Here both ends are sessions of one process on one host, and the way is a pipe; a word names it, for the operations to
find each other by.  Any thread; the lock is held over the table alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import TYPE_CHECKING

from eventbridge.hypervisor.model import DomainRef

from .streams import HEAD

if TYPE_CHECKING:
    from ..session import XenSession
    from .async_operation import Operation


class Incoming:
    """A domain that is made out of what comes through a pipe.  ``writer`` is the end to write to, until it is taken."""

    def __init__(self, session: XenSession, source: DomainRef) -> None:
        self.session = session
        self.source = source
        self.domid = ctypes.c_uint32()
        self.operation: Operation | None = None
        self.sender: XenSession | None = None
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self._lock = threading.Lock()
        self.word = f"pipe:{source.uuid}"

    def take_writer(self) -> int | None:
        """It is the taker's to close, once; None where somebody has it."""
        with self._lock:
            writer, self._writer = self._writer, -1
        return writer if writer >= 0 else None

    def hang_up(self) -> None:
        """Nobody writes any more, unless somebody has taken the writer: what has not come in yet comes to nothing, once
        it has begun well.
        """
        writer = self.take_writer()
        if writer is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(writer, HEAD)
            os.close(writer)


_lock = threading.Lock()
_coming: dict[str, Incoming] = {}


def expect(incoming: Incoming) -> bool:
    """False where that guest is coming in already."""
    with _lock:
        return _coming.setdefault(incoming.word, incoming) is incoming


def forget(incoming: Incoming) -> None:
    with _lock:
        if _coming.get(incoming.word) is incoming:
            del _coming[incoming.word]


def find(word: str) -> Incoming | None:
    with _lock:
        return _coming.get(word)


def of(session: XenSession, source: DomainRef) -> Incoming | None:
    """The guest that comes in to this session."""
    with _lock:
        found = [it for it in _coming.values() if it.session is session and _is(it.source, source)]
    return found[0] if found else None


def _is(there: DomainRef, wanted: DomainRef) -> bool:
    if wanted.uuid is not None and there.uuid is not None:
        return wanted.uuid.lower() == there.uuid
    return wanted.name == there.name
