"""A context's end: what is under way is aborted, the ctx is freed when nobody is inside, and nothing comes after."""

from __future__ import annotations

import ctypes
import logging
import threading

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import Operation
from eventbridge.errors import HypervisorError
from tests.support.libxl_rig import Rig, on_another_thread
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

ABORTED = -22


@pytest.fixture
def xen(xen: XenStandIn) -> XenStandIn:
    """With a domain that has a network interface, of which libxl waits for the backend."""
    xen.create(7)
    xen.nic(7)
    return xen


def test_closing_aborts_what_is_under_way_and_frees_when_it_has_ended(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.2: ctx_free would abort the process before."""
    told: list[Operation] = []
    operation = rig.nic_remove(7)
    operation.on_done(told.append)
    rig.context.close()
    rig.wait_for(lambda: rig.context.freed and bool(told))
    rig.settle()
    assert (told, operation.code) == ([operation], ABORTED)
    names = rig.spy.names()
    assert names.index("ao_abort done") < names.index("ctx_free")
    assert rig.spy.count("ctx_free done") == 1
    assert rig.spy.count("fd_register") == rig.spy.count("fd_deregister")


def test_closing_from_another_thread_waits_until_the_loop_has_ended_it(xen: XenStandIn, rig: Rig) -> None:
    operation = rig.nic_remove(7)
    thread = threading.Thread(target=rig.context.close, daemon=True)
    rig.once_it_runs(thread.start)
    rig.wait_for(lambda: operation.done and rig.context.freed)
    thread.join(PATIENCE)
    assert operation.code == ABORTED


def test_closing_waits_for_an_operation_that_cannot_be_aborted(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.2.  One on a thread of its own, as for a libxl of before 4.13."""
    go_on = threading.Event()
    operation = rig.context._operations.start_synchronous("rename", 7, lambda: not go_on.wait(PATIENCE))
    rig.context.close()
    rig.settle()
    assert not operation.done and not rig.context.freed
    assert rig.spy.count("ctx_free") == 0
    go_on.set()
    rig.wait_for(lambda: operation.done)
    operation.result()
    assert rig.context._freed.wait(PATIENCE)


def test_closing_waits_for_whoever_is_inside(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.2: here a call that blocks until the backend has gone; the loop need not turn for it."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(rig.nic_remove_synchronously(7)), daemon=True)
    thread.start()
    rig.until_another_thread(lambda: rig.spy.count("timeout_register") == 1)
    closing = threading.Thread(target=rig.context.close, daemon=True)
    closing.start()
    rig.until_another_thread(lambda: rig.context.closed)
    assert rig.spy.count("ctx_free") == 0
    with pytest.raises(HypervisorError, match="it was closed; open another"):
        rig.context.list()
    xen.nic_gone(7)
    thread.join(PATIENCE)
    closing.join(PATIENCE)
    assert (codes, rig.spy.count("ctx_free done")) == ([0], 1)


def test_closing_within_a_callback_of_libxls_never_waits_for_itself(xen: XenStandIn, bridge: Bridge) -> None:
    """xen.md 1.13: an event is told inside libxl where somebody asks for that."""
    rig = Rig(bridge, tell=lambda event: rig.context.close())
    rig.context.generators.of_death(99)
    rig.wait_for(lambda: rig.context.freed)
    rig.close()
    assert rig.spy.count("event_free") == 1


def test_closing_twice_is_closing_once(xen: XenStandIn, rig: Rig) -> None:
    rig.context.close()
    rig.context.close()
    on_another_thread(rig.context.close)
    assert rig.context._freed.wait(PATIENCE)
    assert rig.spy.count("ctx_free") == 1


@pytest.mark.parametrize("ask", ["destroy", "info", "name", "watch", "call"])
def test_what_is_asked_of_a_closed_one_is_refused(xen: XenStandIn, rig: Rig, ask: str) -> None:
    rig.context.close()
    calls = {
        "destroy": lambda: rig.context.destroy(7),
        "info": lambda: rig.context.info(7),
        "name": lambda: rig.context.domains.name(7),
        "watch": lambda: rig.context.generators.of_death(7),
        "call": lambda: rig.nic_remove_synchronously(7),
    }
    before = len(rig.spy.trace)
    with pytest.raises(HypervisorError, match="7: it was closed; open another"):
        calls[ask]()
    assert rig.spy.trace[before:] == []


def test_the_last_that_goes_from_the_bridge_wakes_its_loop(xen: XenStandIn, rig: Rig) -> None:
    """Somebody may run it until it is empty, which another thread makes it here: see `Bridge.run`."""
    left: list[int] = []
    close = rig.context._mailbox.close

    def note() -> None:
        close()
        left.append(rig.bridge.stats().timeouts)

    rig.context._mailbox.close = note  # type: ignore[method-assign]
    rig.context.close()
    rig.wait_for(rig.bridge.is_empty)
    assert left == [1], "the alarm, whose free makes a pass"


# -- the bridge goes first


def test_an_operation_whose_bridge_is_closed_is_given_up_and_its_ctx_kept(
    xen: XenStandIn, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    """xen.md 1.2: nobody can bring it to its end, and freeing the ctx would abort the process."""
    told: list[Operation] = []
    rig = Rig(bridge)
    operation = rig.nic_remove(7)
    operation.on_done(told.append)
    with caplog.at_level(logging.WARNING):
        bridge.close()
    assert told == [operation]
    with pytest.raises(HypervisorError, match="cannot nic_remove domain 7: the bridge was closed before it had ended"):
        operation.result()
    assert operation.code is None
    assert "its ctx cannot be freed, and is left as it is" in caplog.text
    assert rig.context.closed and not rig.context.freed
    assert rig.spy.count("ctx_free") == rig.spy.count("ao_abort") == 0
    _end_it(rig, operation)


def _end_it(rig: Rig, operation: Operation) -> None:
    """libxl's own end of one that was given up comes after all: the ctx is freed, and nobody is told twice."""
    error = operation.error
    how = rig.context._operations._how(operation._key)
    with rig.context._ctx.inside("abort", 7, finishing=True):
        assert rig.spy.libxl_ao_abort(rig.context.pointer, ctypes.byref(how)) == 0
    rig.close()
    assert operation.error is error
    assert rig.spy.count("ctx_free done") == 1


def test_a_bridge_that_is_closed_closes_the_contexts_on_it(xen: XenStandIn, bridge: Bridge) -> None:
    """D8."""
    rig = Rig(bridge)
    rig.context.generators.of_death(7)
    bridge.close()
    assert rig.context._freed.wait(PATIENCE)
    assert rig.context.closed
    rig.close()
    assert rig.spy.count("ctx_free done") == 1
    assert rig.events == []
