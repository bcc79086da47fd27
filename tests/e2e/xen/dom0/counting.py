"""What the Linux guest says on its console (``linux_init.sh``)."""

from __future__ import annotations

import re

_LINE = re.compile(rb"linux ([0-9a-f-]{36}) (\d+)\r?\n")


def counted(console: bytes) -> list[tuple[bytes, int]]:
    """Which boot it is, and how far it has counted, line by line."""
    return [(boot, int(count)) for boot, count in _LINE.findall(console)]
