"""The sentence that this project began with, as something to hold any hypervisor to.

While domain A migrates, or saves: `info` on A answers, `info` on B answers, C starts, D is destroyed; A's job is to be
seen; a second one of A is refused naming the first; aborted, A runs on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from eventbridge import Call, Domain, Job, JobBusy, LongCall
from eventbridge.hypervisor.model import State
from tests.support.patience import PATIENCE

RUNS = (State.RUNNING, State.BLOCKED)


class Startable(Protocol):
    """A domain that does not run; or, where a hypervisor knows of no such, what is to become one."""

    def start(self, *, timeout: float | None = None) -> Call[Any]: ...


@dataclass
class Four:
    """Domains: ``a`` and ``b`` run, ``c`` is to be started, ``d`` to be destroyed.  They may be on one connection or on
    one each.
    """

    a: Domain
    b: Domain
    c: Startable
    d: Domain


async def until_under_way(job: LongCall[Any]) -> None:
    """Until something of it has gone over."""
    async for progress in job:
        if progress.processed:
            return
    await job
    raise AssertionError(f"{job} was done before it could be seen: give it more to do, or less to do it with")


async def hold_to_it(four: Four, job: LongCall[Any], again: LongCall[Any], kind: Job) -> None:
    """``job`` is on its way and would be for long; ``again`` is the same asked once more.  It is aborted in the end."""
    await until_under_way(job)
    held = four.a.job
    assert held is not None and (held.job, held.holder) == (kind, job.what)

    looks = await asyncio.gather(
        four.a.info(timeout=PATIENCE), four.b.info(timeout=PATIENCE), four.c.start(timeout=PATIENCE)
    )
    assert looks[0].domain.name == four.a.name and looks[1].state in (*RUNS, State.PAUSED)
    await four.d.destroy(timeout=PATIENCE)
    assert not job.done, "it ended by itself: nothing was shown"

    with pytest.raises(JobBusy) as refused:
        await again
    assert (refused.value.holder, refused.value.job) == (job.what, kind)
    assert job.what in str(refused.value)

    assert await job.abort() is True
    assert four.a.job is None
    assert (await four.a.info()).state in RUNS
    assert (await four.b.info()).state in (*RUNS, State.PAUSED)
