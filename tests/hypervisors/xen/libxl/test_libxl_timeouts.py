"""Timeouts: exactly one ``occurred_timeout`` each, never early, whatever happens around it."""

from __future__ import annotations

import ctypes
import logging
import threading
import time

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import types
from eventbridge.adapters.hypervisors.xen.libxl.hooks import Hooks
from eventbridge.testing import SteppingHost
from tests.support.libxl_rig import Rig, on_another_thread
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn


class Libxl:
    """A stand-in for libxl's side of the hooks: registers timeouts, and notes when it is told."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.told: list[int | None] = []
        self.hooks = Hooks(bridge, self)
        self.call = self.hooks.struct

    def register(self, seconds: float, for_libxl: int = 1, stale: int = 0) -> ctypes.c_void_p:
        """``stale`` is what libxl leaves in the place for the registration."""
        registration = ctypes.c_void_p(stale)
        assert self.call.timeout_register(None, ctypes.pointer(registration), at(seconds), for_libxl) == 0
        return registration

    def modify(self, registration: ctypes.c_void_p, seconds: float | None = None) -> int:
        when = types.TimeVal(0, 0) if seconds is None else at(seconds)
        code: int = self.call.timeout_modify(None, ctypes.pointer(registration), when)
        return code

    def fd_occurred(self, for_libxl: int | None, fd: int, events: int, revents: int) -> None:
        raise AssertionError("there is no fd")

    def timeout_occurred(self, for_libxl: int | None, when: types.TimeVal) -> None:
        self.told.append(for_libxl)

    def interrupted(self, error: BaseException) -> None:
        raise AssertionError("nobody interrupts") from error


def at(seconds: float) -> types.TimeVal:
    """So long from now, on the wall's clock."""
    microseconds = (time.time_ns() + int(seconds * 1e9)) // 1000
    return types.TimeVal(*divmod(microseconds, 1_000_000))


@pytest.fixture
def libxl(bridge: Bridge) -> Libxl:
    return Libxl(bridge)


def test_a_timeout_is_told_once_and_never_early(libxl: Libxl) -> None:
    """xen.md 1.3, 1.4: the bridge's are periodic."""
    wanted = time.time() + 0.03
    libxl.register(0.03)
    libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    assert time.time() >= wanted - 0.000_001  # a timeval's grain
    libxl.bridge.run(timeout=0.1)
    assert libxl.told == [1]
    assert len(libxl.hooks) == 0


@pytest.mark.parametrize("seconds", [-1e9, -1, 0])
def test_the_past_is_now(libxl: Libxl, seconds: float) -> None:
    """xen.md 1.3."""
    libxl.register(seconds)
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    libxl.bridge.run(timeout=0.02)
    assert libxl.told == [1]


def test_a_timeout_a_century_off_is_not_told(libxl: Libxl) -> None:
    """xen.md 1.3: farther than the bridge's own reach, 24 days."""
    registration = libxl.register(100 * 365 * 86400)
    libxl.bridge.run(timeout=0.02)
    assert libxl.told == []
    libxl.modify(registration)
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)


def test_the_wall_clock_set_back_delays_nothing(libxl: Libxl, monkeypatch: pytest.MonkeyPatch) -> None:
    """xen.md 1.3: it is asked once, at registration."""
    libxl.register(0.02)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)


def test_modify_only_reschedules_and_may_come_twice(libxl: Libxl) -> None:
    """xen.md 1.4, 1.5."""
    registration = libxl.register(3600)
    assert libxl.modify(registration) == 0
    assert libxl.modify(registration) == 0
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    assert libxl.modify(registration) == 0  # it has fired
    libxl.bridge.run(timeout=0.02)
    assert libxl.told == [1]


def test_modify_by_another_thread_reaches_a_loop_that_sleeps(libxl: Libxl) -> None:
    """xen.md 1.5, 1.12; T2."""
    registration = libxl.register(3600)
    threading.Timer(0.02, lambda: libxl.modify(registration)).start()
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    assert libxl.told == [1]


def test_modify_while_it_is_firing_on_another_thread_changes_nothing(libxl: Libxl) -> None:
    """xen.md 1.5."""
    registration = libxl.register(0)
    codes: list[int] = []

    def firing(for_libxl: int | None, when: types.TimeVal) -> None:
        libxl.told.append(for_libxl)
        codes.append(on_another_thread(lambda: libxl.modify(registration)))

    libxl.timeout_occurred = firing  # type: ignore[method-assign]  # what libxl would be doing meanwhile
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    libxl.bridge.run(timeout=0.02)
    assert (libxl.told, codes) == ([1], [0])


def test_it_is_forgotten_before_libxl_is_told(libxl: Libxl) -> None:
    """xen.md 1.4: what libxl registers in that very call is another timeout."""
    left: list[int] = []

    def requeue(for_libxl: int | None, when: types.TimeVal) -> None:
        libxl.told.append(for_libxl)
        left.append(len(libxl.hooks))
        if for_libxl == 1:
            libxl.register(0, for_libxl=2)

    libxl.timeout_occurred = requeue  # type: ignore[method-assign]
    libxl.register(0)
    assert libxl.bridge.run(until=lambda: len(libxl.told) == 2, timeout=PATIENCE)
    libxl.bridge.run(timeout=0.02)
    assert (libxl.told, left) == ([1, 2], [0, 0])


@pytest.mark.parametrize("what", ["registration", "address"])
def test_deregister_removes_it_if_it_is_there(libxl: Libxl, what: str) -> None:
    """xen.md 1.6: as 4.2.0 and 4.2.1 do, which gave the registration's address: a stand-in for them."""
    registration = libxl.register(0.01)
    other = libxl.register(0.02, for_libxl=2)
    given = registration.value if what == "registration" else ctypes.addressof(registration)
    libxl.call.timeout_deregister(None, given)
    libxl.call.timeout_deregister(None, given)
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    libxl.bridge.run(timeout=0.03)
    assert libxl.told == [2]
    assert other.value != registration.value


def test_what_is_in_the_registrations_place_before_is_ignored(libxl: Libxl) -> None:
    """xen.md 1.9: documented as NULL, and stale in 4.17."""
    first = libxl.register(3600)
    second = libxl.register(0, for_libxl=2, stale=first.value or 0)
    assert libxl.bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
    assert second.value != first.value
    assert libxl.told == [2]
    libxl.hooks.retire()


def test_a_bridge_that_is_closed_refuses_and_nothing_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """xen.md 1.16, D8: -12, which libxl passes on."""
    bridge = Bridge(SteppingHost())
    libxl = Libxl(bridge)
    kept = libxl.register(3600)
    bridge.close()
    registration = ctypes.c_void_p(77)
    with caplog.at_level(logging.WARNING):
        assert libxl.call.timeout_register(None, ctypes.pointer(registration), at(0), 1) == -12
        assert libxl.modify(kept) == -12
    assert registration.value == 77
    assert len(libxl.hooks) == 1
    assert "timeout_register" in caplog.text


def test_libxls_own_timeout_fires_once_and_ends_its_operation(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.4, on the real libxl, whose 10 s are over at once here: it gives up waiting for the backend."""
    xen.create(7)
    xen.nic(7, script="")
    rig.spy.hurry = True
    operation = rig.nic_remove(7)
    rig.wait_for(lambda: operation.done)
    rig.settle()
    assert rig.spy.count("timeout_register") == rig.spy.count("osevent_occurred_timeout") >= 1


def test_an_abort_modifies_twice_and_the_timeout_is_told_once(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.5, the trace "abort"."""
    xen.create(7)
    xen.nic(7)
    operation = rig.nic_remove(7)
    assert operation.abort()
    rig.wait_for(lambda: operation.done)
    rig.wait_for(lambda: rig.spy.count("osevent_occurred_timeout") == 1)
    rig.settle()
    modified = [entry for entry in rig.spy.trace if entry[0] == "timeout_modify"]
    assert modified == [("timeout_modify", True, 0)] * 2
    assert rig.spy.count("timeout_register") == rig.spy.count("osevent_occurred_timeout") == 1
    assert operation.code == -22


def test_an_abort_after_a_timeout_has_expired_ends_the_operation_and_not_the_process(
    xen: XenStandIn, stepped: Rig
) -> None:
    """libxl 4.17 leaves the expired one among what an abort cuts short, and fails an assertion then: SIGABRT."""
    xen.create(7)
    xen.nic(7)
    stepped.spy.hurry = True
    operation = stepped.nic_remove(7)
    stepped.spy.hurry = False
    stepped.wait_for(lambda: stepped.spy.count("timeout_register") == 2)  # it insists, for 10 s more
    assert not operation.done
    assert operation.abort()
    stepped.wait_for(lambda: operation.done)
    stepped.wait_for(lambda: stepped.spy.count("osevent_occurred_timeout done") == 2)
    stepped.settle()
    assert operation.code == -22
    assert stepped.spy.count("osevent_occurred_timeout") == 2
