"""libxl's asynchronous operations on the bridge: a guest saved and restored, operations aborted."""

from __future__ import annotations

import os
from tempfile import TemporaryFile

import pytest

from eventbridge.adapters.hypervisors.xen.support.reasons import ABORTED
from eventbridge.errors import HypervisorError
from tests.e2e.xen.dom0 import guests
from tests.e2e.xen.dom0.counting import counted
from tests.e2e.xen.dom0.rig import Rig
from tests.e2e.xen.dom0.typed import Typed

STARTED, SUSPENDED = ("started", None), ("suspended", "guest")
SAVED, DESTROYED = ("stopped", "saved"), ("stopped", "destroyed")
HEADER = 24
"""Bytes that libxl writes before it starts its helper (libxl_sr_stream_format.h): its header, and a record's.

libxl 4.17 crashes in libxl_ao_abort where a save is aborted sooner."""


def test_an_aborted_shutdown_ends_as_aborted_and_the_guest_runs_on(rig: Rig) -> None:
    """xen.md 5 and its traces: libxl hurries the timeout, twice, and completes with ERROR_ABORTED."""
    domid = rig.create(guests.small("deaf", "deaf"))
    typed = Typed(rig.bridge, domid)
    typed.until(lambda written: written.endswith(b"\n"))
    shutdown = rig.context.shutdown(domid)
    typed.answers(b"it does not hear")
    assert not shutdown.done, "it waits for the guest's word"
    assert shutdown.abort()
    with pytest.raises(HypervisorError, match="aborted"):
        rig.finish(shutdown)
    assert (shutdown.code, shutdown.abort()) == (ABORTED, False)
    typed.answers(b"and goes on")
    rig.until_told(domid, STARTED)
    rig.finish(rig.context.destroy(domid))
    rig.until_told(domid, STARTED, DESTROYED)


@pytest.mark.parametrize("bridge", ["select"], indirect=True)
def test_a_save_is_aborted_and_the_guest_runs_on_then_it_is_saved_and_goes_on_where_it_was(
    linux: guests.Linux, rig: Rig
) -> None:
    """The child that saves is ended with it, and reaped by libxl (rule 17).  House, "Events": an end is told once."""
    first = linux.domid
    before = Typed(rig.bridge, first)
    before.until(counted)
    with TemporaryFile() as file:
        save = rig.context.suspend(first, file.fileno())
        rig.until(lambda: os.fstat(file.fileno()).st_size >= HEADER, "the helper that saves")
        assert save.abort()
        with pytest.raises(HypervisorError, match="aborted"):
            rig.finish(save)
    assert save.code == ABORTED
    assert guests.helpers() == []
    boot, so_far = counted(bytes(before.data))[-1]
    before.until(lambda console: counted(console)[-1][1] >= so_far + 3)
    told = rig.told(first)  # it may have stopped for a moment
    with TemporaryFile() as file:
        rig.finish(rig.context.suspend(first, file.fileno()))
        rig.until_told(first, *told, SUSPENDED)
        rig.finish(rig.context.destroy(first))
        rig.until_told(first, *told, SUSPENDED, SAVED)
        second = rig.restore(linux.config, file.fileno())
    rig.keep(second)
    after = Typed(rig.bridge, second)
    after.until(lambda console: len(counted(console)) >= 3)
    lines = counted(bytes(before.data)) + counted(bytes(after.data))
    assert {other for other, _ in lines} == {boot}, "it was not booted anew"
    assert [count for _, count in lines] == sorted({count for _, count in lines}), "it does not begin to count anew"
    rig.until_told(second, STARTED)
    rig.until_told(first, *told, SUSPENDED, SAVED)
    after.stream.close()
