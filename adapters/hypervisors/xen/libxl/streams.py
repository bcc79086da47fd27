"""A guest's memory on its way through an fd: how far it is, and when that may be cut short.

libxl's helper process copies it, so only the fd tells how far it is; that is looked at a few times a second, on the
loop's thread.  And libxl does not survive that a stream ends before its helper is there, by an abort, an error or its
end: it then stops the helper by a pointer that is not set (``helper_stop`` of libxl_save_callout.c, 4.17 and its head
in 2026), and the process ends with SIGSEGV.  The helper is there as soon as `HEAD` has passed.  So nothing is aborted
before, and nothing is given to libxl that may end before (`begins_well`, save_file.py, relay.py).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator

from eventbridge.errors import BridgeClosed, BridgeForked, UnknownHandle
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress

from ..session import XenSession
from .async_operation import Call, Operation
from .context import Context

HEAD = struct.pack(">8sIIII", b"LibxlFmt", 2, 0, 0x01000000, 0)
"""What every stream begins with: libxl's header, and that of its first record, which says that libxc's part follows
(libxl_sr_stream_format.h; the record's is little-endian)."""
LOOK_MS = 100

Position = Callable[[], int]
"""How many bytes have passed."""


def offset(fd: int) -> Position:
    """Of a file; the helper shares it."""
    return lambda: os.lseek(fd, 0, os.SEEK_CUR)


def begins_well(fd: int) -> bool:
    """Is it a stream, and one that the helper will be started for?  Nothing of it is taken."""
    return os.pread(fd, len(HEAD), 0) == HEAD


class Stream:
    """``total`` is in bytes; more may pass, or less."""

    def __init__(self, session: XenSession, context: Context, request: Request, position: Position, total: int) -> None:
        self._session = session
        self._context = context
        self._request = request
        self._position = position
        self._total = total
        self._operation: Operation | None = None
        self._aborting = False

    @contextlib.contextmanager
    def start(self, name: str, domid: int | None, call: Call) -> Iterator[Operation]:
        """The operation is under way; leave this when it has ended."""
        operation = self._operation = self._context.start(name, domid, call, self._ready)
        bridge = self._session.bridge
        look = bridge.add_timeout(LOOK_MS, self._look)
        try:
            self._session.cuts_short(self._request, self._abort_if_ready)
            yield operation
        finally:
            with contextlib.suppress(UnknownHandle, BridgeClosed, BridgeForked):
                bridge.remove_timeout(look)

    def _ready(self) -> bool:
        return self._position() >= len(HEAD)

    def _look(self, id: int, opaque: object) -> None:
        """The loop's thread."""
        done = self._position()
        self._request.tell(Progress(self._total, done, max(0, self._total - done)))
        if (self._request.aborted or self._context.closed) and not self._aborting and done >= len(HEAD):
            self._aborting = True
            self._session.aside(self._abort_if_ready)

    def _abort_if_ready(self) -> None:
        """Otherwise `_look` does."""
        if self._operation is not None and self._ready():
            self._aborting = True
            self._operation.abort()
