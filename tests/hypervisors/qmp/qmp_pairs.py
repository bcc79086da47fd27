"""The two ends of a migration."""

from __future__ import annotations

from collections.abc import Callable

from eventbridge.hypervisor.model import DomainRef
from tests.support.qmp_qemu import INCOMING, MACHINE, Qemu
from tests.support.qmp_rig import Asked, Opened, Rig

SLOW = 20_000
"""Bytes/s: what the 16 MiB of mostly zeros come to takes half a minute at that."""


class Pair:
    """A domain that runs on one QEMU, and another that waits for it."""

    def __init__(self, rig: Rig, start: Callable[..., Qemu], *incoming: str, runs: bool = True) -> None:
        self._rig = rig
        self.here: Qemu = start("here")
        self.there: Qemu = start("there", *MACHINE, *INCOMING, *incoming)
        self.source: Opened = rig.open(self.here.uri)
        self.destination: Opened = rig.open(self.there.uri)
        if runs:
            self.source.ask("start")

    def prepare(self, **arguments: object) -> str:
        return str(self.destination.ask("migrate_prepare", source=DomainRef("here"), **arguments))

    def begin_slowly(self, to: str) -> Asked:
        """A migration that is on its way, and would be for long."""
        moving = self.source.begin("migrate", to=to, live=True, confirm=True, bandwidth=SLOW)
        self._rig.until(lambda: any(progress.total for progress in moving.progress))
        return moving
