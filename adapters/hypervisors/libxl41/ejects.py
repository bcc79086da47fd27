"""The trays of the domains that are followed: their waiters, and what a moved one means.

Setting a watch, and reading whether the tray is out, are round trips to xenstored: all of it is the worker's, but for
the teardown.
"""

from __future__ import annotations

import ctypes

from .context import Context
from .types import Disk, Event, EventType, Waiter, free, taken
from .waiter import stop_waiting


class Ejects:
    """The disks of all domains whose medium the guest can eject."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiters: dict[int, list[Waiter]] = {}
        self._domids: dict[str, int] = {}  # by the path that is watched

    def wait(self, domid: int) -> None:
        """Begin to be told of a domain's."""
        with self._context.inside:
            count = ctypes.c_int()
            library, pointer = self._context.library, self._context.pointer
            disks = library.libxl_device_disk_list(pointer, domid, ctypes.byref(count))
            if not disks:
                return
            try:
                self._waiters[domid] = [self._wait(domid, disk) for disk in disks[: count.value] if disk.is_cdrom]
            finally:
                for disk in disks[: count.value]:
                    _release(disk)
                free(disks)

    def _wait(self, domid: int, disk: Disk) -> Waiter:
        waiter = Waiter()
        self._context.library.libxl_wait_for_disk_ejects(
            self._context.pointer, domid, ctypes.byref(disk), 1, ctypes.byref(waiter)
        )
        self._domids[waiter.path.decode(errors="surrogateescape")] = domid
        return waiter

    def stop(self, domid: int) -> None:
        """Within the context's teardown, or on the worker."""
        for waiter in self._waiters.pop(domid, ()):
            del self._domids[waiter.path.decode(errors="surrogateescape")]
            stop_waiting(self._context, waiter)

    def stop_all(self) -> None:
        for domid in list(self._waiters):
            self.stop(domid)

    def look(self, path: str) -> tuple[int, str] | None:
        """The domid and the virtual name of the disk, where its medium is out; None where the tray was merely touched,
        or is nobody's that is followed any more.
        """
        domid = self._domids.get(path)
        if domid is None:
            return None
        event = Event(EventType.DISK_EJECT, path.encode(errors="surrogateescape"), b"1")
        disk = Disk()
        with self._context.inside:
            found = self._context.library.libxl_event_get_disk_eject_info(
                self._context.pointer, domid, ctypes.byref(event), ctypes.byref(disk)
            )
        if found != 1:
            return None
        free(disk.pdev_path)
        return domid, taken(disk.vdev) or ""


def _release(disk: Disk) -> None:
    free(disk.pdev_path)
    free(disk.vdev)
