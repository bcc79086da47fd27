"""libxl's asynchronous operations on the bridge: a guest saved and restored, operations aborted."""

from __future__ import annotations

import os
import select
from tempfile import TemporaryFile

import pytest

from eventbridge.adapters.hypervisors.xen.reasons import ABORTED
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


@pytest.mark.parametrize("bridge", ["select"], indirect=True)
def test_a_linux_guest_is_saved_to_a_file_and_goes_on_where_it_was(rig: Rig) -> None:
    """H9: libxl registers the file itself, which epoll refuses.  House, "Events": its end is ``stopped``, once."""
    config = guests.linux("saved")
    first = rig.create(config)
    before = Typed(rig.bridge, first)
    before.until(lambda console: len(counted(console)) >= 3)
    with TemporaryFile() as file:
        with select.epoll() as epoll, pytest.raises(PermissionError):
            epoll.register(file.fileno(), select.EPOLLOUT)
        rig.finish(rig.context.suspend(first, file.fileno()))
        rig.until_told(first, STARTED, SUSPENDED)
        rig.finish(rig.context.destroy(first))
        rig.until_told(first, STARTED, SUSPENDED, SAVED)
        assert os.fstat(file.fileno()).st_size > 1 << 20
        second = rig.restore(config, file.fileno())
    after = Typed(rig.bridge, second)
    after.until(lambda console: len(counted(console)) >= 3)
    boots = counted(bytes(before.data)) + counted(bytes(after.data))
    assert len({boot for boot, _ in boots}) == 1, "it was not booted anew"
    assert [count for _, count in boots] == sorted({count for _, count in boots}), "it does not begin to count anew"
    rig.finish(rig.context.destroy(second))
    rig.until_told(second, STARTED, DESTROYED)
    rig.until_told(first, STARTED, SUSPENDED, SAVED)


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
def test_an_aborted_save_ends_as_aborted_and_the_guest_runs_on(rig: Rig) -> None:
    """The child that saves is ended with it, and reaped by libxl (rule 17)."""
    domid = rig.create(guests.linux("kept"))
    typed = Typed(rig.bridge, domid)
    typed.until(counted)
    with TemporaryFile() as file:
        save = rig.context.suspend(domid, file.fileno())
        rig.until(lambda: os.fstat(file.fileno()).st_size >= HEADER, "the helper that saves")
        assert save.abort()
        with pytest.raises(HypervisorError, match="aborted"):
            rig.finish(save)
    assert save.code == ABORTED
    so_far = counted(bytes(typed.data))[-1]
    typed.until(lambda console: counted(console)[-1][1] >= so_far[1] + 3)
    assert counted(bytes(typed.data))[-1][0] == so_far[0]
    rig.finish(rig.context.destroy(domid))
    rig.until_told(domid, STARTED, DESTROYED)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
