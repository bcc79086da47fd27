"""xenstored through libxenstore: a `Store` over the C library, of any version since ``xs_open`` (Xen 4.1).

Facts: Xen's public header xenstore.h and ``tools/libs/store/xs.c``.  libxenstore may be used by many threads at once;
at the first watch it makes one of its own, which receives from then on.  ``xs_fileno`` is a pipe with a byte in it
while a watch is queued; the library takes that byte out itself.  When xenstored goes it notices, and tells only those
who call: ``xs_check_watch`` then says EINVAL instead of EAGAIN.  Blocking calls hang with a frozen xenstored, each its
own thread and no other (see `Gate`).
"""

from __future__ import annotations

import ctypes
import errno
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_uint, c_uint32, c_ulong, c_void_p
from typing import Any

from eventbridge.errors import ConnectionLost, HypervisorError

from ..support import library
from ..support.close_gate import Gate
from . import transport
from .store import NO_TRANSACTION, Watched, closed, gone, octets, refusal, text
from .watch_set import Ledger
from .wire import ERRORS

XS_UNWATCH_FILTER = 1 << 2
"""Nothing more of a watch that is removed.  The oldest libraries ignore it: hence the `Ledger`."""

# Name: what it returns, and what it takes after the handle.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "xs_close": (None,),
    "xs_fileno": (c_int,),
    "xs_check_watch": (c_void_p,),
    "xs_read": (c_void_p, c_uint32, c_char_p, POINTER(c_uint)),
    "xs_write": (c_bool, c_uint32, c_char_p, c_char_p, c_uint),
    "xs_mkdir": (c_bool, c_uint32, c_char_p),
    "xs_rm": (c_bool, c_uint32, c_char_p),
    "xs_directory": (c_void_p, c_uint32, c_char_p, POINTER(c_uint)),
    "xs_watch": (c_bool, c_char_p, c_char_p),
    "xs_unwatch": (c_bool, c_char_p, c_char_p),
    "xs_transaction_start": (c_uint32,),
    "xs_transaction_end": (c_bool, c_uint32, c_bool),
    "xs_is_domain_introduced": (c_bool, c_uint),
}
_AMBIGUOUS = (errno.EINVAL, errno.EIO)
"""What xenstored refuses with, and what libxenstore says itself of a connection that broke under a call."""


class LibxenstoreStore:
    """See `eventbridge.adapters.hypervisors.xen.xenstore.store.Store`."""

    def __init__(self) -> None:
        """Connect to where XENSTORED_PATH, XENSTORED_RUNDIR or libxenstore's own default says.  Blocks.

        `eventbridge.errors.HypervisorUnavailable` without libxenstore, `HypervisorError` where nobody lets us in.
        """
        loaded = library.libxenstore()
        self.address = f"xenstored, through {library.version(loaded)}"
        self._functions = {name: _function(loaded, name, *types) for name, types in _PROTOTYPES.items()}
        self._free = ctypes.CFUNCTYPE(None, c_void_p)(("free", ctypes.CDLL(None)))
        self._ledger = Ledger()
        self._lost = False
        self._handle = _open(loaded, self.address)
        self._gate = Gate(lambda: self._call("xs_close"), lambda: closed(self.address))
        self._fd: int = self._call("xs_fileno")

    # -- never blocks

    def fileno(self) -> int:
        with self._gate:
            return self._fd

    def next_watch(self) -> Watched | None:
        with self._gate:
            while True:
                event = self._check_watch()
                if event is None or self._ledger.wants(event):
                    return event

    def _check_watch(self) -> Watched | None:
        found = self._call("xs_check_watch")
        if found:
            try:
                return Watched(*_texts(found, 2))
            finally:
                self._free(found)
        code = ctypes.get_errno()
        if code == errno.EAGAIN:
            return None
        if code == errno.ENOMEM:
            raise refusal(self.address, "take a watch", code)
        raise self._gone()

    # -- blocks

    def read(self, path: str, transaction: int = NO_TRANSACTION) -> bytes:
        length = c_uint()
        with self._gate:
            found = self._must(f"read {path}", "xs_read", transaction, path, byref(length))
            value = ctypes.string_at(found, length.value)
            self._free(found)
        return value

    def write(self, path: str, value: bytes, transaction: int = NO_TRANSACTION) -> None:
        with self._gate:
            self._must(f"write {path}", "xs_write", transaction, path, value, len(value))

    def make(self, path: str, transaction: int = NO_TRANSACTION) -> None:
        with self._gate:
            self._must(f"make {path}", "xs_mkdir", transaction, path)

    def remove(self, path: str, transaction: int = NO_TRANSACTION) -> None:
        with self._gate:
            self._must(f"remove {path}", "xs_rm", transaction, path)

    def list(self, path: str, transaction: int = NO_TRANSACTION) -> list[str]:
        count = c_uint()
        with self._gate:
            found = self._must(f"list {path}", "xs_directory", transaction, path, byref(count))
            children = _texts(found, count.value)
            self._free(found)
        return children

    def watch(self, path: str, token: str) -> None:
        with self._gate, self._ledger.adding(path, token):
            self._must(f"watch {path}", "xs_watch", path, token)

    def unwatch(self, path: str, token: str) -> None:
        with self._gate:
            self._must(f"unwatch {path}", "xs_unwatch", path, token)
            self._ledger.remove(path, token)

    def begin(self) -> int:
        with self._gate:
            number: int = self._must("begin a transaction", "xs_transaction_start")
            return number

    def end(self, transaction: int, abort: bool = False) -> bool:
        try:
            with self._gate:
                self._must("end a transaction", "xs_transaction_end", transaction, abort)
        except HypervisorError as error:
            if error.code == errno.EAGAIN and not abort:
                return False
            raise
        return True

    def is_introduced(self, domid: int) -> bool:
        with self._gate:
            self._must_live()
            ctypes.set_errno(0)
            if self._call("xs_is_domain_introduced", domid):
                return True
            if code := ctypes.get_errno():  # else False is its answer
                raise self._failure(f"ask for domain {domid}", code)
            return False

    def close(self) -> None:
        self._gate.close()

    # -- calling

    def _call(self, name: str, *arguments: object) -> Any:
        return self._functions[name](self._handle, *arguments)

    def _must(self, operation: str, name: str, *arguments: object) -> Any:
        """What it returns, where that is not 0, NULL or false."""
        self._must_live()
        converted = [octets(self.address, operation, it) if isinstance(it, str) else it for it in arguments]
        result = self._call(name, *converted)
        if not result:
            raise self._failure(operation, ctypes.get_errno())
        return result

    def _must_live(self) -> None:
        """libxenstore is not asked again once it has lost its connection: it closed the fd, and may do so again."""
        if self._lost:
            raise self._gone()

    def _failure(self, operation: str, code: int) -> Exception:
        """Was it xenstored that refused, or is it gone?"""
        if code not in ERRORS.values() or (code in _AMBIGUOUS and not self._answers()):
            return self._gone()
        return refusal(self.address, operation, code)

    def _answers(self) -> bool:
        """A lost connection was closed by libxenstore, whatever it said then, and says EBADF from there on."""
        found = self._call("xs_read", NO_TRANSACTION, b"/", byref(c_uint()))
        self._free(found)
        return bool(found) or ctypes.get_errno() in (errno.ENOENT, errno.EACCES)

    def _gone(self) -> ConnectionLost:
        self._lost = True
        return gone(self.address)


def _function(loaded: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """One of our own: the CDLL's is everybody's, who may see its arguments otherwise."""
    return ctypes.CFUNCTYPE(result, c_void_p, *arguments, use_errno=True)((name, loaded))


def _texts(found: int, count: int) -> list[str]:
    """So many of an array of C strings."""
    strings = ctypes.cast(found, POINTER(c_char_p))
    return [text(strings[at] or b"") for at in range(count)]


def _open(loaded: ctypes.CDLL, address: str) -> int:
    handle = ctypes.CFUNCTYPE(c_void_p, c_ulong, use_errno=True)(("xs_open", loaded))(XS_UNWATCH_FILTER)
    if handle:
        return int(handle)
    code = ctypes.get_errno()  # of the last place that it tried: the first may have been the one that refused
    _, made = transport.connect()  # which says where, what was found and what to do
    made.close()
    raise refusal(address, "connect", code)
