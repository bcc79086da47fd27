"""The hypercall stand-in is true enough to test on: Debian's own libxl and xenstored behave on it as on a Xen."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.hypervisors.xen.plain_libxl import COMPLETE, DEATH, EJECT, SHUTDOWN, PlainLibxl
from tests.support.xen import libxl41, loaded, packages, table
from tests.support.xen.standin import CRASH, XenStandIn

ERROR_FAIL, ERROR_INVAL, DOMAIN_NOTFOUND = -3, -6, -25
NIC_SIZE, NIC_DEVID = 4096, 16


@pytest.fixture
def libxl(xen: XenStandIn) -> Iterator[PlainLibxl]:
    plain = PlainLibxl()
    yield plain
    plain.close()


def test_libxl_lists_what_was_created_and_knows_it_by_name(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create(7, "web")
    xen.create(9, "mail", hvm=True)
    domid = ctypes.c_uint32()
    assert libxl.count() == 3  # and dom0
    assert libxl.call("libxl_name_to_domid", b"mail", ctypes.byref(domid)) == 0
    assert domid.value == 9
    assert libxl.call("libxl_name_to_domid", b"nobody", ctypes.byref(domid)) == ERROR_INVAL


def test_a_thousand_domains_take_no_time(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create_many(range(1, 1001))
    assert libxl.count() == 1001
    xen.die(*range(2, 1001), forget=False)
    assert libxl.count() == 2


def test_nobody_sees_a_xen_that_is_half_written(xen: XenStandIn, libxl: PlainLibxl) -> None:
    """Its libraries look at any time, in the midst of a write, too."""
    xen.create_many(range(1, 10))
    if (child := os.fork()) == 0:
        while True:  # until it is killed
            xen.table.add(10, UUID(int=10), table.RUNNING)
            xen.table.refuse(0, 0)
            xen.table.remove(10)
    try:
        seen = [libxl.count() for _ in range(5000)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert {*seen} <= {10, 11}  # and dom0


def test_a_shutdown_with_its_reason_and_a_death_arrive_and_no_other_domains(xen: XenStandIn, libxl: PlainLibxl) -> None:
    """xen.md, the trace "death"."""
    xen.create_many([7, 8])
    with libxl.watching(7):
        xen.shutdown(8)
        xen.shutdown(7, reason=CRASH)
        libxl.wait_for(lambda: len(libxl.events) == 1)
        xen.die(7, 8)
        libxl.wait_for(lambda: len(libxl.events) == 2)
        libxl.settle()
    assert libxl.events == [(SHUTDOWN, 7, CRASH), (DEATH, 7, 0)]
    assert xen.read("/local/domain/7/name") is None


def test_destroying_through_libxl_alone_brings_its_death(xen: XenStandIn, libxl: PlainLibxl) -> None:
    """The hypercall raises VIRQ_DOM_EXC as Xen does; nobody else tells xenstored."""
    guest = xen.create(7)
    with libxl.watching(7):
        assert libxl.call("libxl_domain_destroy", 7, None) == 0
        libxl.wait_for(lambda: bool(libxl.events))
    assert libxl.events == [(DEATH, 7, 0)]
    assert not xen.table.present(7)
    assert [xen.read(path) for path in guest.paths] == [None, None, None]


def test_what_libxl_keeps_in_files_is_in_the_stand_ins_directory(xen: XenStandIn, libxl: PlainLibxl) -> None:
    """libxl 4.17 remembers the domids lately used; not in the machine's /var/run/xen, even where there is one."""
    xen.create(7)
    before = {path: path.stat().st_mtime_ns for path in Path("/var/run").glob("xen/**/*")}
    assert libxl.call("libxl_domain_destroy", 7, None) == 0
    assert (xen.directory / "root/var/run/xen/domid-history").read_text().endswith(" 7\n")
    assert {path: path.stat().st_mtime_ns for path in Path("/var/run").glob("xen/**/*")} == before


def test_pausing_through_libxl_shows_in_the_table(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create(7)
    assert libxl.call("libxl_domain_pause", 7, None) == 0
    assert xen.table.flags(7) == table.RUNNING | table.PAUSED
    assert libxl.call("libxl_domain_unpause", 7, None) == 0
    assert xen.table.flags(7) == table.RUNNING


def test_an_ejected_disc_is_told(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create(7)
    xen.cdrom(7)
    generator = ctypes.c_void_p()
    assert libxl.call("libxl_evenable_disk_eject", 7, b"hdc", ctypes.c_uint64(0), ctypes.byref(generator)) == 0
    libxl.settle()
    assert libxl.events == []
    xen.eject(7)
    libxl.wait_for(lambda: bool(libxl.events))
    assert [event[:2] for event in libxl.events] == [(EJECT, 7)]
    libxl.call("libxl_evdisable_disk_eject", generator)


def test_removing_a_nic_completes_when_the_backend_closes(xen: XenStandIn, libxl: PlainLibxl) -> None:
    """xen.md, the trace "nic_rm"."""
    xen.create(7)
    backend = xen.nic(7)
    nic, how = ctypes.create_string_buffer(NIC_SIZE), ctypes.create_string_buffer(16)
    libxl.library.libxl_device_nic_init(nic)
    ctypes.c_int.from_buffer(nic, NIC_DEVID).value = 0
    assert libxl.call("libxl_device_nic_remove", 7, nic, how) == 0
    libxl.wait_for(lambda: xen.read(f"{backend}/state") == "5")  # libxl asks it to close
    assert libxl.events == []
    xen.nic_gone(7)
    libxl.wait_for(lambda: bool(libxl.events))
    assert libxl.events == [(COMPLETE, 7, 0)]
    assert xen.read(f"{backend}/state") is None


def test_two_stand_ins_one_after_another_in_one_process_share_nothing() -> None:
    counted = []
    for domids in ([7, 8], [9]):
        with XenStandIn() as xen:
            xen.load()
            xen.create_many(domids)
            plain = PlainLibxl()
            with plain.watching(domids[0]):
                xen.die(domids[0])
                plain.wait_for(lambda plain=plain: bool(plain.events))
            counted.append((plain.count(), plain.events))
            plain.close()
    assert counted == [(2, [(DEATH, 7, 0)]), (1, [(DEATH, 9, 0)])]
    assert "EVENTBRIDGE_STANDIN" not in os.environ


def test_refused_hypercalls_are_an_error_of_libxls_and_not_xenstoreds(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create(7)
    with libxl.watching(7):
        xen.refuse(errno.EPERM)
        assert libxl.count() == -1
        xen.table.virq()
        assert xen.read("/local/domain/7/name") == "guest7"  # or xenstored took the domain for dead
        xen.refuse(0)
        assert libxl.count() == 2
        libxl.settle()
        assert libxl.events == []


def test_without_permission_to_open_there_is_no_context(xen: XenStandIn) -> None:
    xen.refuse(errno.EACCES, opening=True)
    with pytest.raises(OSError, match="libxl_ctx_alloc: -3"):
        PlainLibxl()


def test_a_killed_xenstored_answers_nobody_until_another_comes(xen: XenStandIn) -> None:
    xen.create(7, "web")
    first = xen.xenstored.pid
    xen.kill()
    with pytest.raises(OSError, match="libxl_ctx_alloc"):
        PlainLibxl()
    xen.restart()
    assert xen.xenstored.pid != first
    assert xen.read("/local/domain/7/name") == "web"
    plain = PlainLibxl()
    with plain.watching(7):
        xen.die(7)
        plain.wait_for(lambda: bool(plain.events))
    assert plain.events == [(DEATH, 7, 0)]
    plain.close()


def test_a_frozen_xenstored_tells_when_it_thaws(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create(7)
    with libxl.watching(7):
        libxl.settle()
        xen.freeze()
        xen.die(7, forget=False)
        libxl.settle()
        assert libxl.events == []
        xen.thaw()
        libxl.wait_for(lambda: bool(libxl.events))
    assert libxl.events == [(DEATH, 7, 0)]


def test_a_program_run_with_the_environment_is_on_the_stand_in(xen: XenStandIn) -> None:
    """As a command's user would have it: plain names, another process."""
    xen.create(7, "web")
    script = (
        "from tests.hypervisors.xen.plain_libxl import PlainLibxl; from tests.support.xen import loaded\n"
        "print(PlainLibxl().count(), *{path.parent for path in loaded.mapped()})"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, **xen.environment}
    said = subprocess.check_output([sys.executable, "-c", script], env=environment, cwd=root, text=True)
    assert said.split() == ["2", str(packages.libraries())]


def test_every_xen_library_in_this_process_is_a_private_one(libxl: PlainLibxl) -> None:
    """But for the stand-in for libxl 4.1, where another test has used that."""
    assert {path.parent for path in loaded.mapped()} - {libxl41.stand_in().parent} == {packages.libraries()}


@pytest.mark.parametrize(
    "leave", [XenStandIn.kill, XenStandIn.freeze, lambda xen: None], ids=["killed", "frozen", "up"]
)
def test_nothing_of_it_is_left(leave: Callable[[XenStandIn], None]) -> None:
    with XenStandIn() as xen:
        leave(xen)
    assert xen.xenstored.returncode is not None
    assert not xen.directory.exists()


def test_a_domid_that_comes_again_is_another_domain_to_xenstored(xen: XenStandIn, libxl: PlainLibxl) -> None:
    xen.create(7, "first")
    with libxl.watching(7):
        for name in ("second", "third"):
            xen.die(7)
            libxl.wait_for(lambda: xen.read("/local/domain/7") is None)
            xen.create(7, name)
    assert libxl.count() == 2
    assert xen.read("/local/domain/7/name") == "third"


def test_xenstored_does_not_outlive_a_test_that_is_killed() -> None:
    script = (
        "from tests.support.xen.standin import XenStandIn; import sys\n"
        "with XenStandIn() as xen: print(xen.xenstored.pid, xen.directory, flush=True); sys.stdin.read()"
    )
    root = Path(__file__).parents[3]
    test = subprocess.Popen([sys.executable, "-c", script], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with test:
        assert test.stdout is not None
        pid, directory = test.stdout.readline().split()
        daemon = os.pidfd_open(int(pid))
        test.kill()
    ended = select.poll()
    ended.register(daemon, select.POLLIN)
    assert ended.poll(20_000)
    os.close(daemon)
    shutil.rmtree(directory)
