"""Fds: each registration by itself, poll's bits both ways, and a hook that fails changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import socket
from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl.hooks import TO_POLL, Hooks
from eventbridge.adapters.hypervisors.xen.libxl.types import TimeVal
from eventbridge.core.masks import FROM_KERNEL
from eventbridge.errors import HypervisorError
from eventbridge.testing import SteppingHost
from tests.support.libxl_rig import Rig
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

IN, PRI, OUT, ERR, HUP = select.POLLIN, select.POLLPRI, select.POLLOUT, select.POLLERR, select.POLLHUP


class Libxl:
    """A stand-in for libxl's side of the hooks: registers fds, and notes what it is told."""

    def __init__(self) -> None:
        self.host = SteppingHost()
        self.bridge = Bridge(self.host)
        self.told: list[tuple[int | None, int, int, int]] = []
        self.interrupts: list[BaseException] = []
        self.hooks = Hooks(self.bridge, self)
        self.call = self.hooks.struct

    def register(self, fd: int, events: int, for_libxl: int = 1, stale: int = 0) -> ctypes.c_void_p:
        registration = ctypes.c_void_p(stale)
        assert self.call.fd_register(None, fd, ctypes.pointer(registration), events, for_libxl) == 0
        return registration

    def modify(self, registration: ctypes.c_void_p, fd: int, events: int) -> int:
        code: int = self.call.fd_modify(None, fd, ctypes.pointer(registration), events)
        return code

    def step(self) -> list[tuple[int | None, int, int, int]]:
        """What a step of the loop tells."""
        self.told.clear()
        self.host.step()
        return sorted(self.told, key=repr)

    def fd_occurred(self, for_libxl: int | None, fd: int, events: int, revents: int) -> None:
        self.told.append((for_libxl, fd, events, revents))

    def timeout_occurred(self, for_libxl: int | None, when: TimeVal) -> None:
        raise AssertionError("there is no timeout")

    def interrupted(self, error: BaseException) -> None:
        self.interrupts.append(error)


@pytest.fixture
def libxl() -> Iterator[Libxl]:
    libxl = Libxl()
    yield libxl
    libxl.bridge.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_polls_bits_are_the_bridges_and_back() -> None:
    """xen.md 1.7, 1.8; H2."""
    for bits in (0, IN, OUT, PRI, IN | OUT, IN | PRI, ERR, HUP, IN | HUP, IN | OUT | PRI | ERR | HUP):
        assert TO_POLL[FROM_KERNEL[bits]] == bits


def test_it_is_told_the_true_revents_and_what_it_had_asked_for(libxl: Libxl, pair: Pair) -> None:
    """xen.md 1.8: before 2015 libxl trusted them."""
    ours, theirs = pair
    fd = ours.fileno()
    libxl.register(fd, IN | OUT | PRI)
    assert libxl.step() == [(1, fd, IN | OUT | PRI, OUT)]
    theirs.send(b"x")
    assert libxl.step() == [(1, fd, IN | OUT | PRI, IN | OUT)]
    theirs.close()
    assert libxl.step() == [(1, fd, IN | OUT | PRI, IN | OUT | HUP)]


def test_urgent_data_is_pri(libxl: Libxl) -> None:
    """xen.md 1.7."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        ours, _ = server.accept()
        with ours:
            libxl.register(ours.fileno(), PRI)
            theirs.send(b"!", socket.MSG_OOB)
            assert libxl.host.step(PATIENCE)
            assert libxl.told == [(1, ours.fileno(), PRI, PRI)]


def test_one_fd_may_be_registered_several_times(libxl: Libxl, pair: Pair) -> None:
    """xen.md 1.7: by registration, never by fd; H4."""
    ours, theirs = pair
    fd = ours.fileno()
    reading, writing = libxl.register(fd, IN, for_libxl=1), libxl.register(fd, OUT, for_libxl=2)
    assert libxl.step() == [(2, fd, OUT, OUT)]
    theirs.send(b"x")
    assert libxl.step() == [(1, fd, IN, IN), (2, fd, OUT, OUT)]
    libxl.call.fd_deregister(None, fd, writing)
    assert libxl.step() == [(1, fd, IN, IN)]
    libxl.call.fd_deregister(None, fd, reading)
    assert libxl.step() == []
    assert len(libxl.hooks) == 0


def test_no_events_are_legal_and_cost_nothing(libxl: Libxl, pair: Pair) -> None:
    """xen.md 1.7; H2: a peer that hung up is not told either."""
    ours, theirs = pair
    registration = libxl.register(ours.fileno(), 0)
    theirs.close()
    libxl.host.step_until_idle()
    assert libxl.told == []
    assert libxl.modify(registration, ours.fileno(), IN) == 0
    assert libxl.step() == [(1, ours.fileno(), IN, IN | HUP)]
    assert libxl.modify(registration, ours.fileno(), 0) == 0
    libxl.host.step_until_idle()


def test_a_recycled_for_libxl_belongs_to_who_has_it_now(libxl: Libxl, pair: Pair) -> None:
    """xen.md 1.8: also for another fd."""
    ours, theirs = pair
    first = libxl.register(ours.fileno(), OUT, for_libxl=5)
    libxl.call.fd_deregister(None, ours.fileno(), first)
    second = libxl.register(theirs.fileno(), OUT, for_libxl=5, stale=first.value or 0)
    assert second.value != first.value
    libxl.call.fd_deregister(None, ours.fileno(), first)  # once more: it is nobody's
    assert libxl.step() == [(5, theirs.fileno(), OUT, OUT)]


def test_the_fd_may_be_closed_as_soon_as_deregister_returns(libxl: Libxl) -> None:
    """xen.md 1.9; H11."""
    reader, writer = os.pipe()
    registration = libxl.register(reader, IN)
    os.write(writer, b"x")
    libxl.call.fd_deregister(None, reader, registration)
    os.close(reader)
    other, other_writer = os.pipe()
    assert other == reader  # the kernel gives the lowest number
    libxl.register(other, IN, for_libxl=2)
    libxl.host.step_until_idle()
    assert libxl.told == []
    for fd in (other, other_writer, writer):
        os.close(fd)


def test_a_regular_file_is_always_ready(libxl: Libxl, tmp_path: os.PathLike[str]) -> None:
    """H9: what libxl saves a domain to."""
    fd = os.open(os.path.join(tmp_path, "save"), os.O_CREAT | os.O_RDWR)
    registration = libxl.register(fd, OUT)
    assert libxl.step() == [(1, fd, OUT, OUT)]
    assert libxl.step() == [(1, fd, OUT, OUT)]
    libxl.call.fd_deregister(None, fd, registration)
    libxl.host.step_until_idle()
    os.close(fd)


def test_what_cannot_be_registered_is_refused_and_nothing_changed(
    libxl: Libxl, caplog: pytest.LogCaptureFixture
) -> None:
    """xen.md 1.16: -12, and a line in the log."""
    registration = ctypes.c_void_p(77)
    with caplog.at_level(logging.WARNING):
        assert libxl.call.fd_register(None, 999_999, ctypes.pointer(registration), IN, 1) == -12
    assert registration.value == 77
    assert len(libxl.hooks) == 0 and libxl.bridge.is_empty()
    assert "fd_register" in caplog.text


def test_what_cannot_be_modified_stays_as_it_was(libxl: Libxl, caplog: pytest.LogCaptureFixture) -> None:
    """xen.md 1.16."""
    with caplog.at_level(logging.WARNING):
        assert libxl.modify(ctypes.c_void_p(12345), 0, IN) == -12
    reader, writer = os.pipe()
    registration = libxl.register(writer, OUT)
    libxl.bridge.update_handle = lambda id, events: (_ for _ in ()).throw(OSError("no"))  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        assert libxl.modify(registration, writer, 0) == -12
    assert libxl.step() == [(1, writer, OUT, OUT)]
    libxl.call.fd_deregister(None, writer, registration)
    os.close(reader)
    os.close(writer)


def test_no_exception_gets_into_libxl(libxl: Libxl, caplog: pytest.LogCaptureFixture, pair: Pair) -> None:
    """xen.md 1.16: ctypes would return garbage for it."""

    def broken(*given: object) -> int:
        raise ZeroDivisionError("a bug")

    libxl.bridge.add_handle = broken  # type: ignore[method-assign]
    registration = ctypes.c_void_p()
    with caplog.at_level(logging.ERROR):
        assert libxl.call.fd_register(None, pair[0].fileno(), ctypes.pointer(registration), IN, 1) == -12
    assert "a bug" in caplog.text


def test_a_ctrl_c_within_a_hook_is_for_another_place_and_the_hook_is_done(libxl: Libxl, pair: Pair) -> None:
    """xen.md 1.16, D4: a signal's handler runs wherever the main thread is."""
    add, interrupts = libxl.bridge.add_handle, [KeyboardInterrupt("Ctrl-C")]

    def interrupted(*given: object) -> int:
        if interrupts:
            raise interrupts.pop()
        return add(*given)  # type: ignore[arg-type]  # as given

    libxl.bridge.add_handle = interrupted  # type: ignore[method-assign]
    libxl.register(pair[0].fileno(), OUT)
    assert [str(error) for error in libxl.interrupts] == ["Ctrl-C"]
    assert libxl.step() == [(1, pair[0].fileno(), OUT, OUT)]


def test_after_the_end_hooks_agree_to_everything_and_do_nothing(libxl: Libxl, pair: Pair) -> None:
    """xen.md 1.2: a synchronous call on another thread, which sees to its own fds, is not to fail for it."""
    registration = libxl.register(pair[0].fileno(), OUT)
    libxl.hooks.retire()
    assert libxl.modify(registration, pair[0].fileno(), IN | OUT) == 0
    libxl.register(pair[0].fileno(), OUT)
    timeout = ctypes.c_void_p()
    assert libxl.call.timeout_register(None, ctypes.pointer(timeout), TimeVal(0, 0), 1) == 0
    libxl.host.step_until_idle()
    assert libxl.told == []
    assert len(libxl.hooks) == 0 and libxl.bridge.is_empty()


@pytest.mark.parametrize("hook", ["fd_register", "timeout_register"])
def test_an_operation_whose_hook_is_refused_fails_and_leaves_nothing(xen: XenStandIn, rig: Rig, hook: str) -> None:
    """xen.md 1.16: libxl passes the -12 up to who has asked."""
    xen.create(7)
    xen.nic(7)
    rig.spy.fail.add(hook)
    before = len(rig.context._hooks)
    operation = rig.nic_remove(7)
    rig.wait_for(lambda: operation.done)
    assert operation.error is not None
    rig.spy.fail.clear()
    rig.wait_for(lambda: len(rig.context._hooks) == before)
    again = rig.nic_remove(7)
    xen.nic_gone(7)
    rig.wait_for(lambda: again.done)
    with contextlib.suppress(HypervisorError):  # the first try has left the nic half removed
        again.result()


def test_a_generator_whose_hook_is_refused_is_refused(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.16."""
    xen.create(7)
    rig.spy.fail.add("fd_register")
    with pytest.raises(HypervisorError, match="refused a registration") as refused:
        rig.context.generators.of_death(7)
    assert (refused.value.code, refused.value.operation, refused.value.domain) == (-12, "watch", "7")
    rig.spy.fail.clear()
    rig.context.generators.of_death(7)
    xen.die(7)
    rig.wait_for(lambda: rig.told() == [("DOMAIN_DEATH", 7)])
