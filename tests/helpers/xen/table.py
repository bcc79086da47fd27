"""The table of domains from the test's side: the file that table.h lays out, and the fifo that is VIRQ_DOM_EXC."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
from pathlib import Path
from uuid import UUID

MAGIC = 0x45425854
DOMAINS = 32768
HEADER = struct.Struct("=IIii48x")  # magic, limit, refuse_open, refuse_calls
SLOT = struct.Struct("=IIIIQQQ16s8x")  # present, flags, vcpus, ssidref, pages, max_pages, cpu_time, uuid
WORD = struct.Struct("=I")
SIZE = HEADER.size + DOMAINS * SLOT.size
VIRQ = WORD.pack(1)

DYING, HVM, SHUTDOWN, PAUSED, BLOCKED, RUNNING = (1 << bit for bit in range(6))
REASON_SHIFT = 16
PAGES = 65536


class Table:
    """The hypervisor's state: which domains there are, in what condition, and whether it refuses to answer."""

    def __init__(self, directory: Path) -> None:
        self._fifo = directory / "virq"
        os.mkfifo(self._fifo)
        with open(directory / "table", "w+b") as file:
            file.truncate(SIZE)
            self._map = mmap.mmap(file.fileno(), SIZE)
        HEADER.pack_into(self._map, 0, MAGIC, 0, 0, 0)
        self.add(0, UUID(int=0), RUNNING)

    def close(self) -> None:
        self._map.close()

    def add(self, domid: int, uuid: UUID, flags: int) -> None:
        """Known by the slot's first word, so that is written last."""
        at = self._slot(domid)
        SLOT.pack_into(self._map, at, 0, flags, 1, 0, PAGES, PAGES, 0, uuid.bytes)
        magic, limit, opening, calls = HEADER.unpack_from(self._map)
        HEADER.pack_into(self._map, 0, magic, max(limit, domid + 1), opening, calls)
        WORD.pack_into(self._map, at, 1)

    def remove(self, domid: int) -> None:
        WORD.pack_into(self._map, self._slot(domid), 0)

    def present(self, domid: int) -> bool:
        return bool(WORD.unpack_from(self._map, self._slot(domid))[0])

    def flags(self, domid: int) -> int:
        """XEN_DOMINF_*, and a shutdown's reason from bit 16 on."""
        flags: int = WORD.unpack_from(self._map, self._slot(domid) + 4)[0]
        return flags

    def set_flags(self, domid: int, flags: int) -> None:
        WORD.pack_into(self._map, self._slot(domid) + 4, flags)

    def refuse(self, opening: int, calls: int) -> None:
        """The errno of each; 0 allows."""
        magic, limit, _, _ = HEADER.unpack_from(self._map)
        HEADER.pack_into(self._map, 0, magic, limit, opening, calls)

    def virq(self) -> None:
        """VIRQ_DOM_EXC: xenstored looks at every domain, and tells once of all that shut down or vanished."""
        with contextlib.ExitStack() as stack:
            try:
                fifo = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads: there is no xenstored to be told
                    raise
                return
            stack.callback(os.close, fifo)
            with contextlib.suppress(BlockingIOError):  # full: it is pending already
                os.write(fifo, VIRQ)

    @staticmethod
    def _slot(domid: int) -> int:
        if not 0 <= domid < DOMAINS:
            raise ValueError(f"domid {domid} is not in 0..{DOMAINS - 1}")
        return HEADER.size + domid * SLOT.size
