"""Was a guest told to stop itself for being saved?  So that one that will, after all, is not left standing.

libxl asks a paravirtual guest by a word in its ``control/shutdown``, which the guest clears when it sets about it
(xenstore-paths.pandoc).  Where the save is aborted in between, libxl 4.17 leaves it at that
(``domain_suspend_common_pvcontrol_suspending`` of libxl_dom_suspend.c): the word stays, and a guest that has cleared it
stops a moment later, with nobody there to save it.  So the node is watched for as long as the save takes, over a
connection of its own, on which an answer comes after every watch that fired before it.

A worker's thread: it blocks for round trips to xenstored.
"""

from __future__ import annotations

import errno
from types import TracebackType

from eventbridge.errors import HypervisorError

from ..xenstore.opening import open_store
from ..xenstore.store import Store, atomically

_NODE = "/local/domain/{}/control/shutdown"
_TOKEN = "eventbridge save"
_WORD = b"suspend"


class Stopping:
    """``with Stopping(domid) as stopping`` around a save."""

    def __init__(self, domid: int) -> None:
        self._node = _NODE.format(domid)
        self._store: Store

    def __enter__(self) -> Stopping:
        self._store = open_store()
        try:
            self._store.watch(self._node, _TOKEN)
            self._touched()  # a watch fires once at once
        except BaseException:
            self._store.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._store.close()

    def called_off(self) -> bool:
        """The word is taken back where the guest has not heard it; False: it has heard it, and will stop."""
        return atomically(self._store, self._take_back) or not self._touched()

    def _take_back(self, transaction: int) -> bool:
        if self._read(transaction) != _WORD:
            return False
        self._store.write(self._node, b"", transaction)
        return True

    def _touched(self) -> bool:
        self._store.list("/")  # its answer comes after all that has happened
        touched = False
        while self._store.next_watch() is not None:
            touched = True
        return touched

    def _read(self, transaction: int) -> bytes | None:
        try:
            return self._store.read(self._node, transaction)
        except HypervisorError as error:
            if error.code in (errno.ENOENT, errno.EACCES):
                return None
            raise
