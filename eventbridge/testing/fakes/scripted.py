"""An fd that does what the test says: really ready, hung up, closed, reused; and that tells what was read from it.

Not a mock: there is a socketpair behind it (or a pipe), whose far end the test holds.  What it says with `send`,
`hang_up`, `close`, `reuse`... has happened in the kernel when the call returns, so that the bridge under test meets
the real thing, at a moment that the test chose.  `ScriptedFd.callback` is a handle's callback that reads and notes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket

from eventbridge.core.masks import Events


class ScriptedFd:
    """The near end of a stream, non-blocking, to be registered with a bridge.  The test's thread and the loop's."""

    def __init__(self, over: str = "socketpair", *, content: bytes = b"") -> None:
        """``over`` a "socketpair", the reading end of a "pipe", or "tcp" (for `send_urgent`).  With ``content`` it is
        readable from the first.
        """
        self.over = over
        self._near, self._far = _MAKERS[over]()
        for fd in (self._near, self._far):
            os.set_blocking(fd, False)
        self._open = {self._near, self._far}
        self.calls: list[tuple[int, bytes]] = []
        """What `callback` was called with, and read: (events, bytes), in order."""
        if content:
            self.send(content)

    def fileno(self) -> int:
        """Its number, also after `close`."""
        return self._near

    # -- the script: what happens to it

    def send(self, content: bytes) -> None:
        """The far side writes: it is readable.  BlockingIOError where there is no room."""
        os.write(self._far, content)

    def send_urgent(self, byte: bytes) -> None:
        """The far side sends a byte out of band: PRIORITY.  Over "tcp" only."""
        with socket.socket(fileno=os.dup(self._far)) as far:
            far.send(byte, socket.MSG_OOB)

    def hang_up(self) -> None:
        """The far side is closed: HANGUP, behind what it had sent."""
        self._close(self._far)

    def fill(self) -> int:
        """Write until there is no room: it is not writable.  Returns how many bytes that took."""
        written = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                written += os.write(self._near, bytes(65536))
        return written

    def drain(self) -> bytes:
        """The far side reads all that there is: what had been written to it.  It is writable again."""
        return _read(self._far)

    def close(self) -> None:
        """Close it, as an owner does who forgets its handle (H11)."""
        self._close(self._near)

    def ghost(self) -> None:
        """A dup keeps its file alive when it is closed, as a child's would; `end` closes that."""
        copy = fcntl.fcntl(self._near, fcntl.F_DUPFD_CLOEXEC, 512)  # high, so that no closed number is taken by it
        self._open.add(copy)

    def reuse(self, *, content: bytes = b"") -> ScriptedFd:
        """Another file on its number, as when it was closed and the next one opened took it; closes it first where
        that is still to do.  The new file has a far side of its own.
        """
        fresh = ScriptedFd(self.over)
        fresh._take(self._near)
        self._open.discard(self._near)  # the new one's to close
        if content:
            fresh.send(content)
        return fresh

    def end(self) -> None:
        """Close whatever of it is open.  Idempotent."""
        for fd in list(self._open):
            self._close(fd)

    # -- what a library does with it

    def read(self) -> bytes:
        """All that is there; b"" where there is nothing."""
        return _read(self._near)

    def callback(self, id: int, fd: int, events: int, opaque: object) -> None:
        """For `Bridge.add_handle`: reads what there is, and notes what it was told and what it read."""
        self.calls.append((int(events), _read(fd) if events & Events.READABLE else b""))

    @property
    def heard(self) -> bytes:
        """All that `callback` has read."""
        return b"".join(content for _, content in self.calls)

    def _take(self, number: int) -> None:
        """Have the near end on this number, whatever is there."""
        if self._far == number:
            self._far = self._renumbered(self._far, os.dup(self._far))
        if self._near != number:
            self._near = self._renumbered(self._near, os.dup2(self._near, number, inheritable=False))

    def _renumbered(self, old: int, new: int) -> int:
        self._open.add(new)
        self._close(old)
        return new

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)


def _read(fd: int) -> bytes:
    content = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(fd, 65536):
            content += more
    return content


def _socketpair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _tcp() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours.detach(), theirs.detach()


_MAKERS = {"socketpair": _socketpair, "pipe": os.pipe, "tcp": _tcp}
