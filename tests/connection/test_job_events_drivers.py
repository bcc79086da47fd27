"""On each driver: a job that hangs when its connection is lost for good, or when the user closes it, ends as lost,
once, before the stream ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import eventbridge
from eventbridge.adapters.hypervisors.sim import simulation as control
from eventbridge.adapters.hypervisors.xen.xenstore import source
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.hypervisor.operations import OPERATIONS
from eventbridge.jobs.kinds import ASYNC
from tests.connection.xen_rig import WAYS
from tests.support import qmp_qemu
from tests.support.libvirtd import private_libvirtd
from tests.support.patience import patience
from tests.support.qmp_qemu import MACHINE, Qemu
from tests.support.xen import libxl41
from tests.support.xen.standin import XenStandIn

JOBS = (Kind.JOB_STARTED, Kind.JOB_ENDED)
RUNS = (State.RUNNING, State.BLOCKED, State.PAUSED)

_numbers = itertools.count()


@dataclass
class Way:
    """A hypervisor with a domain that runs; ``freeze()`` has it answer nothing more."""

    uri: str
    freeze: Callable[[], object]
    lose: Callable[[], object]


@contextlib.contextmanager
def sim() -> Iterator[Way]:
    name = f"job-events-{next(_numbers)}"
    uri = f"sim:///default?world={name}&events=0&domains=1"
    simulation = control.simulation_of(uri)
    simulation.do("start", "simulated-0")
    try:
        yield Way(uri, simulation.freeze, simulation.break_connections)
    finally:
        simulation.thaw()
        control.forget(name)


@contextlib.contextmanager
def libvirt() -> Iterator[Way]:
    with private_libvirtd() as daemon:
        yield Way(daemon.unix_uri, daemon.freeze, daemon.kill)


@contextlib.contextmanager
def qmp() -> Iterator[Way]:
    with qmp_qemu.directory() as directory, Qemu(directory, "vm", *MACHINE) as qemu:
        qemu.side.ask("cont")
        yield Way(qemu.uri, qemu.freeze, qemu.kill)


@contextlib.contextmanager
def libxl() -> Iterator[Way]:
    with XenStandIn() as xen:
        xen.load()
        xen.create(1)
        try:
            yield Way("libxl:///", xen.freeze, xen.kill)
        finally:
            xen.restart()  # or its libraries' threads would wait for it for ever


WAYS_TO_HANG = [
    pytest.param(sim, id="sim"),
    pytest.param(libvirt, id="libvirt", marks=pytest.mark.libvirt),
    pytest.param(qmp, id="qmp", marks=pytest.mark.qemu),
    pytest.param(libxl, id="libxl", marks=pytest.mark.xen),
]


@pytest.mark.parametrize("end", ["lose", "close"])
@pytest.mark.parametrize("way", WAYS_TO_HANG)
def test_a_job_that_hangs_ends_before_its_stream_does(
    way: Callable[[], contextlib.AbstractContextManager[Way]], end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(source, "PROBE_SECONDS", 0.05)

    async def main(at: Way) -> None:
        async with patience(), eventbridge.connect(at.uri, reconnect=None) as hv:
            domain = next(domain for domain in await hv.domains() if domain.id and domain.state in RUNS)
            stream = hv.events()
            at.freeze()
            call = domain.save(str(tmp_path / "saved"))
            first = await anext(stream)
            assert (first.kind, first.reason) == (Kind.JOB_STARTED, "save")
            if end == "lose":
                at.lose()
            else:
                hv.close()
            told = [event async for event in stream]
            assert [(event.kind, event.reason) for event in told if event.kind in JOBS] == [(Kind.JOB_ENDED, "lost")]
            assert [event.kind for event in told].count(Kind.CONNECTION_LOST) == (end == "lose")
            with pytest.raises(eventbridge.ConnectionLost):
                await call
            at.lose()  # nothing thaws it any more

    with way() as at:
        asyncio.run(main(at))


@pytest.mark.xen
@pytest.mark.parametrize("name", ["libxl 4.1", "xenstore"])
def test_a_driver_that_is_not_tried_here_has_no_job_that_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, old = WAYS[name]
    if old:
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(libxl41.stand_in()))

    async def main() -> frozenset[str]:
        async with patience(), eventbridge.connect(uri, reconnect=None) as hv:
            assert hv.session is not None
            return hv.session.operations

    with XenStandIn() as xen:
        xen.load()
        assert [operation for operation in asyncio.run(main()) if OPERATIONS[operation].job in ASYNC] == []
