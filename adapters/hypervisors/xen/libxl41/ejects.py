"""The trays of the domains that are followed: one watch each, and which of its firings are ejections.

libxl 4.1 has waiters for ejections too (``libxl_wait_for_disk_ejects``), and they are not used, for they cannot tell an
ejection from a watch that fires for another reason.  A guest ejects by writing "eject" to a node, where it stays:
nobody acknowledges it in 4.1, as libxl does from 4.2 on, and this must not either, or the toolstack that is to take the
medium out would miss it.  But xenstored fires each watch once when it is set (docs/misc/xenstore.txt, WATCH), and that
firing finds the "eject" of long ago, or of just now, whose own firing is still to come.  So:

- The node is read before its watch is set.  If the tray was out then, the watch's first firing says nothing new.
- After each ejection the watch is replaced by one of another token, whose first firing says nothing new either.  What
  the old watch has still to deliver was before the look, and is dropped with it (`Store.unwatch`).

A second ejection in the milliseconds between the look and the new watch counts as the same.  The worker's thread, all
of it: it blocks for round trips to xenstored.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from eventbridge.errors import HypervisorError

from ..disks import EJECTED, Drive, drives, value
from ..xenstore.store import Store, Watched


@dataclass(slots=True)
class _Tray:
    domid: int
    drive: Drive
    token: str
    was_out: bool
    """The first firing of its watch is still to come, and is no ejection."""


class Ejects:
    """``ejected(domid, vdev)`` is called for each ejection of a disk of a domain that is waited for."""

    def __init__(self, store: Store, ejected: Callable[[int, str], object]) -> None:
        self._store = store
        self._ejected = ejected
        self._numbers = itertools.count(1)
        self._trays: dict[str, _Tray] = {}  # by token

    def wait(self, domid: int) -> None:
        """Watch the trays of a domain.  Those that are watched already stay so."""
        watched = {tray.drive.tray for tray in self._trays.values() if tray.domid == domid}
        for drive in drives(self._store, domid):
            if drive.tray not in watched:
                self._watch(domid, drive, self._is_out(drive))

    def stop(self, domid: int) -> None:
        """Watch no tray of that domain any more."""
        for tray in [tray for tray in self._trays.values() if tray.domid == domid]:
            self._unwatch(tray)

    def fired(self, watched: Watched) -> None:
        """Report an ejection, if that is what a watch has fired for."""
        tray = self._trays.get(watched.token)
        if tray is None:  # its watch was replaced or stopped since
            return
        out, was_out, tray.was_out = self._is_out(tray.drive), tray.was_out, False
        if out and not was_out:
            self._unwatch(tray)
            self._watch(tray.domid, tray.drive, True)
            self._ejected(tray.domid, tray.drive.vdev)

    def _watch(self, domid: int, drive: Drive, was_out: bool) -> None:
        token = f"eventbridge tray {next(self._numbers)}"
        self._trays[token] = _Tray(domid, drive, token, was_out)
        try:
            self._store.watch(drive.tray, token)
            # xenstored drops a firing that equals one that it has not sent yet.  Once it has answered another request,
            # it has sent the first one, which then cannot swallow an ejection's.
            self._is_out(drive)
        except BaseException:
            del self._trays[token]
            raise

    def _unwatch(self, tray: _Tray) -> None:
        del self._trays[tray.token]
        with contextlib.suppress(HypervisorError):  # the connection was closed meanwhile, and its watches with it
            self._store.unwatch(tray.drive.tray, tray.token)

    def _is_out(self, drive: Drive) -> bool:
        return value(self._store, drive.tray) == EJECTED
