"""What domain 0 says on its serial console, understood: a line in, what it means out.  Sans-IO.

Xen, the kernel and the tests write to it as well; ``init.sh`` marks its own lines.
"""

from __future__ import annotations

import enum
import re

_OURS = re.compile(r"e2e-xen: (ready|failed|result)(?: (\S+))?$")
_PANIC = re.compile(r"Panic on CPU|Kernel panic - not syncing|\(XEN\) Domain 0 crashed")


class Stage(enum.Enum):
    """How far it has come."""

    BOOTING = "Xen boots"
    RUNNING = "domain 0 is up"
    ENDED = "its command is done"
    BROKEN = "it is broken"


# What a machine has not done that ends too early.
_MISSED = {Stage.BOOTING: "before domain 0 was up", Stage.RUNNING: "before domain 0's command was done"}


class Console:
    """Fed with each line as it comes."""

    def __init__(self) -> None:
        self.stage = Stage.BOOTING
        self.result: int | None = None
        """The command's exit status."""
        self.trouble: str | None = None
        """Why it is `Stage.BROKEN`."""

    def line(self, raw: bytes) -> str | None:
        """Take a line in; the text to show, if it is the command's own."""
        text = raw.decode(errors="replace").replace("\r", "").rstrip("\n")
        ours = _OURS.search(text)
        if ours:
            self._ours(ours[1], ours[2])
            return None
        if _PANIC.search(text):
            self._broken(text.strip())
            return None
        return text if self.stage is Stage.RUNNING and not text.startswith("(XEN)") else None

    def end(self) -> None:
        """There will be no more lines."""
        if self.stage in _MISSED:
            self._broken(f"the machine ended {_MISSED[self.stage]}")

    def _ours(self, word: str, rest: str | None) -> None:
        if word == "ready":
            self.stage = Stage.RUNNING
        elif word == "failed":
            self._broken(f"{rest} did not come up in domain 0")
        elif rest is not None and rest.isdecimal():
            self.stage, self.result = Stage.ENDED, int(rest)

    def _broken(self, why: str) -> None:
        self.stage = Stage.BROKEN
        self.trouble = self.trouble or why
