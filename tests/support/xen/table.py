"""The table of domains from the test's side: the file that table.h lays out, and the fifo that is VIRQ_DOM_EXC.

Xen's libraries read it at any time, in other processes or in this one's threads.  So each of its words is written as
one: `struct.pack_into` would make it zero first, and for as long there would be a Xen without any domain.
"""

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
LIMIT, REFUSE_OPEN, REFUSE_CALLS = 1, 2, 3  # in words, of the header
SLOT = struct.Struct("=IIIIQQQ16s8x")  # present, flags, vcpus, ssidref, pages, max_pages, cpu_time, uuid
PRESENT, FLAGS = 0, 1  # in words, of a slot
WORD = struct.calcsize("=I")
SIZE = HEADER.size + DOMAINS * SLOT.size
VIRQ = struct.pack("=I", 1)

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
        self._words = memoryview(self._map).cast("I")
        HEADER.pack_into(self._map, 0, MAGIC, 0, 0, 0)
        self.add(0, UUID(int=0), RUNNING)

    def close(self) -> None:
        self._words.release()
        self._map.close()

    def add(self, domid: int, uuid: UUID, flags: int) -> None:
        """Known by the slot's first word, so that is written last."""
        SLOT.pack_into(self._map, self._word(domid, PRESENT) * WORD, 0, flags, 1, 0, PAGES, PAGES, 0, uuid.bytes)
        self._words[LIMIT] = max(self._words[LIMIT], domid + 1)
        self._words[self._word(domid, PRESENT)] = 1

    def remove(self, domid: int) -> None:
        self._words[self._word(domid, PRESENT)] = 0

    def present(self, domid: int) -> bool:
        return bool(self._words[self._word(domid, PRESENT)])

    def flags(self, domid: int) -> int:
        """XEN_DOMINF_*, and a shutdown's reason from bit 16 on."""
        return self._words[self._word(domid, FLAGS)]

    def set_flags(self, domid: int, flags: int) -> None:
        self._words[self._word(domid, FLAGS)] = flags

    def refuse(self, opening: int, calls: int) -> None:
        """The errno of each; 0 allows."""
        self._words[REFUSE_OPEN], self._words[REFUSE_CALLS] = opening, calls

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
    def _word(domid: int, word: int) -> int:
        """Where it is in the file."""
        if not 0 <= domid < DOMAINS:
            raise ValueError(f"domid {domid} is not in 0..{DOMAINS - 1}")
        return (HEADER.size + domid * SLOT.size) // WORD + word
