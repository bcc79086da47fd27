"""What a connection to xenstored can do: one interface, over libxenstore or over the wire protocol itself.

Calls block for a round trip to xenstored, and for good where that has frozen: they are for any thread but a running
loop's.  `Store.fileno` and `Store.next_watch` never block, and are what the loop uses.  Paths are absolute, or
relative to the caller's own domain (xenstore's docs/misc/xenstore.txt); values are bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from eventbridge.errors import ConnectionLost, HypervisorError

Result = TypeVar("Result")

INTRODUCED = "@introduceDomain"
RELEASED = "@releaseDomain"
"""The two watches on domains: xenstored was told of one, and one has stopped or gone; neither says which."""

NO_TRANSACTION = 0
ATTEMPTS = 32
"""How often a transaction that met another is tried again."""


class Watched(NamedTuple):
    """A watch has fired: what changed, and the token it was set with."""

    path: str
    token: str


class Store(Protocol):
    """One connection, for any number of threads.  Whatever fails raises `HypervisorError` with an errno as ``.code``
    and the operation's name: EBADF once it is closed, E2BIG for what does not fit into a message (4096 bytes).  Where
    xenstored is gone it is `ConnectionLost`, now and ever after.
    """

    @property
    def address(self) -> str:
        """What it is connected to, and through what: for messages."""

    # -- never blocks; the loop's thread

    def fileno(self) -> int:
        """Readable while `next_watch` has something.  Not to be read.  The same for the connection's life."""

    def next_watch(self) -> Watched | None:
        """The next watch that has fired, or None.  `ConnectionLost` where xenstored is known to be gone, once nothing
        is left: ask now and then, for its death never makes libxenstore's fd readable.
        """

    # -- blocks

    def read(self, path: str, transaction: int = NO_TRANSACTION) -> bytes: ...

    def write(self, path: str, value: bytes, transaction: int = NO_TRANSACTION) -> None: ...

    def make(self, path: str, transaction: int = NO_TRANSACTION) -> None:
        """Make an empty node and those above it; nothing, where it exists (xs_mkdir)."""

    def remove(self, path: str, transaction: int = NO_TRANSACTION) -> None:
        """Remove a node and all below it; nothing, where it does not exist.  ENOENT where what it is in does not."""

    def list(self, path: str, transaction: int = NO_TRANSACTION) -> list[str]:
        """The names below a node (xs_directory)."""

    def watch(self, path: str, token: str) -> None:
        """From now on `next_watch` tells of every change at or below ``path``, with ``token``; once at once.  Changes
        of one node that follow each other closely may be told as one.  EEXIST for the same pair twice.
        """

    def unwatch(self, path: str, token: str) -> None:
        """ENOENT where there is no such watch.  Nothing of it is told after this."""

    def begin(self) -> int:
        """A transaction's number.  Others' changes are not seen in it."""

    def end(self, transaction: int, abort: bool = False) -> bool:
        """False where another's change has met this one's: nothing was changed, begin again (EAGAIN)."""

    def is_introduced(self, domid: int) -> bool:
        """Does xenstored serve this domain: was it introduced, and has not died?  One that has shut down is served."""

    def close(self) -> None:
        """Idempotent, from any thread; the fd is closed: remove its handle first.  Never waits for xenstored: with
        other threads inside, libxenstore's is closed by the last that comes out.
        """


def atomically(store: Store, work: Callable[[int], Result]) -> Result:
    """``work(transaction)`` and commit; again from the start where somebody else's change met it.

    Blocks.  `HypervisorError` EAGAIN after `ATTEMPTS`.
    """
    for _ in range(ATTEMPTS):
        transaction = store.begin()
        try:
            result = work(transaction)
        except BaseException:
            with contextlib.suppress(HypervisorError, ConnectionError):  # what stopped the work says more
                store.end(transaction, abort=True)
            raise
        if store.end(transaction):
            return result
    raise refusal(store.address, "commit a transaction", errno.EAGAIN, f"others' changes met it {ATTEMPTS} times over")


# Where an errno's own words would mislead.
_WORDS = {
    errno.E2BIG: "it does not fit into a message of 4096 bytes",
    errno.EEXIST: "that is there already",
    errno.ENOENT: "there is no such thing",
    errno.ENOSYS: "this xenstored does not know how",
}


def refusal(address: str, operation: str, code: int, words: str | None = None) -> HypervisorError:
    """xenstored's errno as an exception."""
    found = words or _WORDS.get(code) or os.strerror(code)
    return HypervisorError(f"{address}: cannot {operation}: {found}", code=code, operation=operation)


def closed(address: str) -> HypervisorError:
    """Used after its close."""
    return HypervisorError(f"{address}: this connection is closed", code=errno.EBADF, operation="use a connection")


def gone(address: str, found: str = "it has gone") -> ConnectionLost:
    """xenstored is not there any more; ``found`` says how that shows."""
    return ConnectionLost(f"{address}: {found}: is xenstored still running? A new connection finds out")


def octets(address: str, operation: str, piece: str) -> bytes:
    """A path or a token as xenstored has it.  `HypervisorError` (EINVAL) for a NUL in it, which would be its end."""
    if "\0" in piece:
        raise refusal(address, operation.replace("\0", "\\0"), errno.EINVAL, "there is a NUL in it")
    return piece.encode(errors="surrogateescape")


def text(piece: bytes) -> str:
    """The other way; whatever the bytes."""
    return piece.decode(errors="surrogateescape")
