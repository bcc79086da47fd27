"""The seed's sentence on libxl in a real Xen: one connection, and of its domains one that is saved."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import eventbridge
from eventbridge import Call, Connection, Domain, Job
from eventbridge.errors import NoSuchDomain
from tests.e2e.xen.dom0 import guests
from tests.support.four_domains import Four, hold_to_it
from tests.support.patience import patience

LOWEST = 19


class Unmade:
    """Xen knows of no domain that does not run: to start one is to make it."""

    def __init__(self, hv: Connection, name: str) -> None:
        self._hv = hv
        self._name = name

    def start(self, *, timeout: float | None = None) -> Call[Domain]:
        return self._hv.create(guests.small(self._name), timeout=timeout)


def let_all_else_go_first(progress: object) -> None:
    """The save is slow then, while there is anything else to do: domain 0 has one processor."""
    for helper in guests.helpers():
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, helper, LOWEST)


def test_while_a_is_saved_nobody_waits_and_aborted_it_runs_on(linux: guests.Linux, tmp_path: Path) -> None:
    domid = linux.domid

    async def main() -> None:
        async with patience(), eventbridge.connect("libxl:///", reconnect=None) as hv:
            a, b, d = await asyncio.gather(
                hv.domain(linux.uuid), hv.create(guests.small("b")), hv.create(guests.small("d"))
            )
            job = a.save(str(tmp_path / "a.xen"))
            job.on_progress(let_all_else_go_first)
            again = a.save(str(tmp_path / "a.xen"))
            try:
                await hold_to_it(Four(a, b, Unmade(hv, "c"), d), job, again, Job.SAVE)
                assert list(tmp_path.iterdir()) == []
                assert a.id == domid, "it is the same domain still"
                assert {domain.name for domain in await hv.domains()} == {"Domain-0", linux.NAME, "b", "c"}
            finally:
                for name in "bcd":
                    with contextlib.suppress(NoSuchDomain):
                        await (await hv.domain(name)).destroy()

    asyncio.run(main())
