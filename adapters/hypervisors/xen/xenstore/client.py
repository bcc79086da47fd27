"""xenstored through its wire protocol: a `Store` over a unix socket or the kernel's device, without libxenstore.

What each operation asks and what its reply means; the rest is the `Conversation`'s.  Facts: docs/misc/xenstore.txt.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar

from eventbridge.errors import HypervisorError

from . import wire
from .multiplexer import Conversation
from .store import NO_TRANSACTION, Watched, octets, refusal
from .transport import Link, connect
from .watch_set import Ledger
from .wire import Type

T = TypeVar("T")


class WireStore:
    """See `eventbridge.adapters.hypervisors.xen.xenstore.store.Store`."""

    def __init__(self, address: str, link: Link) -> None:
        """Over ``link``, which is this one's from here on; ``address`` is for messages."""
        self.address = address
        self._ledger = Ledger()
        self._conversation = Conversation(address, link, self._ledger.wants)

    @classmethod
    def open(cls, address: str | None = None) -> WireStore:
        """Connect to the socket or device ``address``, or to this machine's (`transport.places`).  Blocks.

        `HypervisorError` where nobody lets us in.
        """
        path, link = connect(address)
        return cls(f"xenstored at {path}", link)

    # -- never blocks

    def fileno(self) -> int:
        return self._conversation.fileno()

    def next_watch(self) -> Watched | None:
        return self._conversation.next_watch()

    # -- blocks

    def read(self, path: str, transaction: int = NO_TRANSACTION) -> bytes:
        return self._ask(f"read {path}", Type.READ, path, transaction=transaction)

    def write(self, path: str, value: bytes, transaction: int = NO_TRANSACTION) -> None:
        self._ask(f"write {path}", Type.WRITE, path, rest=value, transaction=transaction)

    def make(self, path: str, transaction: int = NO_TRANSACTION) -> None:
        self._ask(f"make {path}", Type.MKDIR, path, transaction=transaction)

    def remove(self, path: str, transaction: int = NO_TRANSACTION) -> None:
        self._ask(f"remove {path}", Type.RM, path, transaction=transaction)

    def list(self, path: str, transaction: int = NO_TRANSACTION) -> list[str]:
        try:
            payload = self._ask(f"list {path}", Type.DIRECTORY, path, transaction=transaction)
        except HypervisorError as error:
            if error.code != errno.E2BIG:
                raise
            return [*self._names_in_parts(path, transaction)]
        return self._taken(wire.names, payload)

    def _names_in_parts(self, path: str, transaction: int) -> Sequence[str]:
        """Of a node with more children than fit into a message: from the start again where it has changed between
        two parts.
        """
        found: list[str] = []
        generation, offset = b"", 0
        while True:
            payload = self._ask(f"list {path}", Type.DIRECTORY_PART, path, str(offset), transaction=transaction)
            part = self._taken(wire.part, payload)
            if offset and part.generation != generation:
                found, offset = [], 0
                continue
            found += part.names
            if part.last:
                return found
            generation, offset = part.generation, offset + part.length

    def watch(self, path: str, token: str) -> None:
        with self._ledger.adding(path, token):
            self._ask(f"watch {path}", Type.WATCH, path, token)

    def unwatch(self, path: str, token: str) -> None:
        self._ask(f"unwatch {path}", Type.UNWATCH, path, token)
        self._ledger.remove(path, token)
        self._conversation.drop_unwanted()

    def begin(self) -> int:
        return self._taken(wire.number, self._ask("begin a transaction", Type.TRANSACTION_START, ""))

    def end(self, transaction: int, abort: bool = False) -> bool:
        try:
            self._ask("end a transaction", Type.TRANSACTION_END, "F" if abort else "T", transaction=transaction)
        except HypervisorError as error:
            if error.code == errno.EAGAIN and not abort:
                return False
            raise
        return True

    def is_introduced(self, domid: int) -> bool:
        operation = f"ask for domain {domid}"
        return self._taken(wire.flag, self._ask(operation, Type.IS_DOMAIN_INTRODUCED, str(domid)))

    def close(self) -> None:
        self._conversation.close()

    # -- asking

    def _ask(
        self, operation: str, type: Type, *pieces: str, rest: bytes = b"", transaction: int = NO_TRANSACTION
    ) -> bytes:
        """The reply's payload; ``pieces`` with their NULs, then ``rest`` as it is, make the request's."""
        payload = b"".join(octets(self.address, operation, piece) + b"\0" for piece in pieces) + rest
        if len(payload) > wire.PAYLOAD_MAX:
            raise refusal(self.address, operation, errno.E2BIG)
        reply = self._conversation.ask(type, payload, transaction)
        if reply.type is not Type.ERROR:
            return reply.payload
        code, name = self._taken(wire.error, reply.payload)
        raise refusal(self.address, operation, code, None if name in errno.errorcode.values() else f"it says {name}")

    def _taken(self, parse: Callable[[bytes], T], payload: bytes) -> T:
        with self._conversation.taking():
            return parse(payload)
