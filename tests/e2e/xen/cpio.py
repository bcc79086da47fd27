"""An initramfs for Linux: directory trees into cpio's "newc" form, without the program cpio.

The form is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: a header of thirteen
hexadecimal numbers, a name, data, each padded to four bytes.  Archives may follow one another in one file; the kernel
unpacks one over the other.  Everything belongs to root, and to no time: the same tree gives the same bytes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Archive:
    """One archive, written to ``stream`` piece by piece; `close` ends it, and leaves the stream open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inode = 0

    def tree(self, directory: Path, at: str = "") -> None:
        """All that is below ``directory``, with its modes, as what is below ``at``; links stay links."""
        for path in sorted(directory.rglob("*")):
            name = os.path.join(at, path.relative_to(directory))
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(os.readlink(path)))
            elif stat.S_ISDIR(mode):
                self._entry(name, mode)
            elif stat.S_ISREG(mode):
                self._entry(name, mode, path.read_bytes())
            else:
                raise ValueError(f"{path} is no file, directory or link: an image has nothing else")

    def close(self) -> None:
        self._entry(_TRAILER, 0)

    def _entry(self, name: str, mode: int, data: bytes = b"") -> None:
        self._inode += 1
        encoded = os.fsencode(name) + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # inode, mode, uid, gid, links, mtime, size, device (2), device it stands for (2), length of the name, checksum
        numbers = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
        self._stream.write(_padded(header + encoded))
        self._stream.write(_padded(data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
