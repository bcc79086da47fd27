"""A pipe that counts what passes: of a pipe alone nobody can tell how far a guest's memory on its way through it is.

A thread of its own moves the bytes, in the kernel (splice(2)), for as long as both ends are there.  A stream's head it
takes from who writes, and gives to who reads, whatever the other end does: libxl needs that (streams.py).
"""

from __future__ import annotations

import contextlib
import os
import threading

from .streams import HEAD

_AT_ONCE = 1 << 20


class Relay:
    """``fd`` is the end to write to, which is to be closed by `close`; what is read from it goes to ``target``, which
    is the relay's from here on, and closed at the end.
    """

    def __init__(self, target: int) -> None:
        self.passed = 0
        """Bytes."""
        self._target = target
        self._source, self.fd = os.pipe2(os.O_CLOEXEC)
        self._open = True
        threading.Thread(target=self._run, name="relay of a guest", daemon=True).start()

    def position(self) -> int:
        return self.passed

    def close(self) -> None:
        """No more comes.  Once is enough."""
        if self._open:
            self._open = False
            os.close(self.fd)

    def _run(self) -> None:
        try:
            with contextlib.suppress(OSError):  # who reads has gone: whoever writes is told by EPIPE
                while moved := os.splice(self._source, self._target, _AT_ONCE):
                    self.passed += moved
            with contextlib.suppress(OSError):
                os.write(self._target, HEAD[self.passed :])
            self._take_head()
        finally:
            os.close(self._source)
            os.close(self._target)

    def _take_head(self) -> None:
        while self.passed < len(HEAD) and (taken := os.read(self._source, len(HEAD) - self.passed)):
            self.passed += len(taken)
