"""A context's beginning, what it says where there cannot be one, and whose children libxl reaps."""

from __future__ import annotations

import ctypes
import errno
import logging
import signal
import subprocess
import sys

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import Context, types
from eventbridge.adapters.hypervisors.xen.support import library as xen_library
from eventbridge.adapters.hypervisors.xen.support.libxl_log import XTL_DEBUG, XTL_ERROR, Journal
from eventbridge.errors import BridgeClosed, HypervisorError, HypervisorUnavailable
from eventbridge.testing import SteppingHost
from tests.support.descriptors import open_fds
from tests.support.libxl_rig import Rig
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn


def test_hooks_come_before_everything_else(stepped: Rig) -> None:
    """xen.md 1.1: late is a SIGABRT.  Of libxl's own it registers one permanent fd, for its children (1.17)."""
    assert stepped.spy.names() == ["fd_register"]


def test_the_hooks_outlive_the_ctx(xen: XenStandIn) -> None:
    """xen.md 1.1: they are not copied; here nobody but libxl has a reference to them any more."""
    import gc

    with Bridge("select") as bridge:
        Context(bridge)
        gc.collect()
        xen.create(7)
        rig = Rig(bridge)
        rig.context.generators.of_death(7)
        xen.die(7)
        rig.wait_for(lambda: bool(rig.events))
        rig.close()
    # The bridge's end is the end of the context that nobody has.


def test_no_permission_is_one_clear_error_and_nothing_is_left(xen: XenStandIn, bridge: Bridge) -> None:
    xen.refuse(errno.EACCES, opening=True)
    with pytest.raises(HypervisorError, match=r"libxc handle: Permission denied; .*domain 0.*root") as refused:
        Context(bridge)
    assert (refused.value.code, refused.value.operation) == (-3, "open")
    assert bridge.is_empty()


def test_no_xenstored_is_one_clear_error_and_nothing_is_left(xen: XenStandIn, bridge: Bridge) -> None:
    xen.kill()
    with pytest.raises(HypervisorError, match=r"connect to xenstore: .*; is xenstored running"):
        Context(bridge)
    assert bridge.is_empty()


def test_a_closed_bridge_is_refused_and_nothing_is_left(xen: XenStandIn) -> None:
    bridge = Bridge(SteppingHost())
    bridge.close()
    fds = open_fds()
    with pytest.raises(BridgeClosed):
        Context(bridge)
    assert open_fds() == fds


def test_a_libxl_that_refuses_the_version_is_one_clear_error(xen: XenStandIn, bridge: Bridge) -> None:
    class Other(types.Library):
        """A stand-in for a libxl of another interface."""

        def __getattr__(self, name: str) -> object:
            return (lambda *given: -2) if name == "libxl_ctx_alloc" else super().__getattr__(name)

    with pytest.raises(HypervisorError, match="refuses the version"):
        Context(bridge, library=Other())
    assert bridge.is_empty()


def test_a_library_that_is_no_libxl_says_so(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBRIDGE_LIBXL", "libc.so.6")
    with pytest.raises(HypervisorUnavailable, match="no libxl that is known"):
        Context(bridge)


def test_a_library_that_is_not_there_says_so(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBRIDGE_LIBXL", "/nowhere/libxenlight.so.4.17")
    with pytest.raises(HypervisorUnavailable, match="EVENTBRIDGE_LIBXL=/nowhere"):
        Context(bridge)


def test_a_libxl_of_before_4_2_is_for_another_adapter(monkeypatch: pytest.MonkeyPatch, bridge: Bridge) -> None:
    monkeypatch.setattr(xen_library, "generation", lambda cdll: xen_library.Generation.WAITING_FD)
    with pytest.raises(HypervisorUnavailable, match=r"before 4\.2"):
        types.Library(ctypes.CDLL(None))


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("libxenlight.so.4.17", (4, 17)),
        ("/usr/lib/libxenlight.so.4.3.0", (4, 3)),
        ("libxenlight.so.2.0", (4, 2)),
        ("/opt/mine.so", types.NEWEST),
    ],
)
def test_the_soname_says_the_version(path: str, version: types.Version) -> None:
    assert types.soname_version(path) == version


# -- its words


def test_libxls_words_go_to_logging_and_not_to_stderr(
    xen: XenStandIn, stepped: Rig, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What it calls an error is INFO: what went wrong comes back as an exception, in its words."""
    with caplog.at_level(logging.INFO):
        operation = stepped.context.destroy(99)
    assert operation.error is not None
    assert "no such domain; libxl said: Domain 99:Destruction of domain failed" in str(operation.error)
    assert "Domain 99:Destruction of domain failed" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert capfd.readouterr() == ("", "")


def test_an_errors_words_are_those_of_its_own_call(xen: XenStandIn, stepped: Rig) -> None:
    stepped.context.destroy(99)
    with pytest.raises(HypervisorError) as refused:
        stepped.context.info(99)
    assert "Destruction" not in str(refused.value)


def test_what_is_below_the_level_never_gets_to_python(xen: XenStandIn) -> None:
    """libxl says a dozen things for each event."""
    library = types.Library()
    for level, expected in ((XTL_ERROR, False), (XTL_DEBUG, True)):
        journal = Journal(library, level)
        lines: list[str] = []
        journal._take = lines.append  # type: ignore[method-assign]
        ctx = ctypes.c_void_p()
        assert library.libxl_ctx_alloc(ctypes.byref(ctx), 0, 0, journal.pointer) == 0
        generator = ctypes.c_void_p()
        library.libxl_evenable_domain_death(ctx, 7, 0, ctypes.byref(generator))
        library.libxl_ctx_free(ctx)
        journal.close()
        assert bool(lines) == expected


# -- children


def test_the_applications_children_stay_its_own(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.17: by default libxl takes a Popen's exit code, and 7 comes back as 0."""
    xen.create(7)
    backend = xen.nic(7)
    child = subprocess.Popen([sys.executable, "-c", "input(); exit(7)"], stdin=subprocess.PIPE)
    xen.write(f"{backend}/script", "/bin/true")
    operation = rig.nic_remove(7)
    child.communicate(b"\n")
    assert child.returncode == 7
    other = subprocess.Popen([sys.executable, "-c", "exit(7)"])
    xen.nic_gone(7)  # libxl forks the script
    rig.wait_for(lambda: operation.done)
    operation.result()
    assert other.wait() == 7


def test_a_sigchld_handler_is_a_clear_error_and_not_an_abort(xen: XenStandIn, bridge: Bridge) -> None:
    """xen.md 1.17: libxl asserts that there is none."""
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        with pytest.raises(HypervisorError, match="SIGCHLD"):
            Context(bridge)
    finally:
        signal.signal(signal.SIGCHLD, before)
    Context(bridge).close()


def test_several_contexts_share_sigchld(xen: XenStandIn, bridge: Bridge) -> None:
    with Context(bridge), Context(bridge):
        pass
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
