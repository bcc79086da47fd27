"""Operations: begun, ended once, awaited, aborted; and calls that block, for which there must be a thread."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from pathlib import Path

import pytest

from eventbridge import Bridge, attach
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hypervisors.xen.libxl import Operation
from eventbridge.errors import HostUnavailable, HypervisorError
from eventbridge.testing import SteppingHost
from tests.support.libxl_rig import Errors, Rig, on_another_thread
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

FAILED, ABORTED = -3, -22


@pytest.fixture
def xen(xen: XenStandIn) -> XenStandIn:
    """With a domain that has a network interface, of which libxl waits for the backend."""
    xen.create(7)
    xen.nic(7)
    return xen


# -- how one ends


def test_it_goes_on_until_libxl_says_that_it_ended(xen: XenStandIn, rig: Rig) -> None:
    """The trace "nic_rm": exactly one timeout, told once (xen.md 1.4)."""
    operation = rig.nic_remove(7)
    rig.settle()
    assert (operation.done, operation.code) == (False, None)
    xen.nic_gone(7)
    rig.wait_for(lambda: operation.done)
    operation.result()
    assert (operation.code, operation.error) == (0, None)
    rig.wait_for(lambda: rig.spy.count("osevent_occurred_timeout done") == rig.spy.count("timeout_register"))
    assert rig.events == [], "an operation with a callback makes no event"


def test_its_script_is_run_while_the_loop_goes_on(xen: XenStandIn, rig: Rig, tmp_path: Path) -> None:
    """The trace "+script": xen.md 1.17, libxl's own child, which its own pipe tells of."""
    script, ran = tmp_path / "script", tmp_path / "ran"
    script.write_text(f'#!/bin/sh\necho "$@" >>{ran}\n')
    script.chmod(0o755)
    xen.write("/local/domain/0/backend/vif/7/0/script", str(script))
    operation = rig.nic_remove(7)
    xen.nic_gone(7)
    rig.wait_for(lambda: operation.done)
    operation.result()
    assert len(ran.read_text().splitlines()) == 1, "once"
    assert rig.spy.count("timeout_register") == 2


def test_the_callback_may_come_before_the_starting_call_returns(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.14: a hypercall is all that pausing needs."""
    told: list[Operation] = []
    operation = rig.context.pause(7)
    assert operation.done
    operation.on_done(told.append)
    assert told == [], "never inside the call"
    rig.wait_for(lambda: bool(told))
    rig.settle()
    operation.result()
    assert told == [operation]


def test_one_that_cannot_begin_has_failed_and_says_why(rig: Rig) -> None:
    told: list[Operation] = []
    operation = rig.context.destroy(99)
    operation.on_done(told.append)
    rig.wait_for(lambda: bool(told))
    with pytest.raises(HypervisorError, match="cannot destroy domain 99: no such domain") as failed:
        operation.result()
    assert (failed.value.code, failed.value.operation, failed.value.domain) == (-21, "destroy", "99")
    assert not operation.abort()
    assert not rig.context._operations._under_way


def test_one_whose_call_raises_was_never_begun(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError):
        rig.context.start("nonsense", 7, lambda how: 1 // 0)
    assert not rig.context._operations._under_way
    assert not rig.context._ctx.lifetime.busy


def test_several_end_each_in_its_own_way(xen: XenStandIn, rig: Rig) -> None:
    for devid in range(1, 5):
        xen.nic(7, devid)
    told: list[Operation] = []
    operations = [rig.nic_remove(7, devid) for devid in range(5)]
    for operation in operations:
        operation.on_done(told.append)
    assert operations[3].abort()
    for devid in (4, 2, 0):
        xen.nic_gone(7, devid)
    rig.wait_for(lambda: len(told) == 4)
    rig.settle()
    assert [operation.done for operation in operations] == [True, False, True, True, True]
    xen.nic_gone(7, 1)
    rig.wait_for(lambda: len(told) == 5)
    assert [operation.code for operation in operations] == [0, 0, 0, ABORTED, 0]
    assert len(set(told)) == 5


def test_what_libxl_ends_and_was_never_asked_for_is_said_and_nothing_more(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rig.context._operations.completed(None, 0, 12345)
    assert "12345, that it was not asked for" in caplog.text


# -- abort


def test_an_abort_ends_it_once_and_is_told_as_such(xen: XenStandIn, rig: Rig) -> None:
    """The trace "abort"."""
    told: list[Operation] = []
    operation = rig.nic_remove(7)
    operation.on_done(told.append)
    assert operation.abort()
    rig.wait_for(lambda: bool(told))
    assert not operation.abort(), "it has ended"
    rig.settle()
    assert told == [operation]
    with pytest.raises(HypervisorError, match="cannot nic_remove domain 7: aborted") as failed:
        operation.result()
    assert failed.value.code == operation.code == ABORTED
    assert rig.spy.count("ao_abort") == 1


def test_an_abort_comes_from_any_thread(xen: XenStandIn, rig: Rig) -> None:
    operation = rig.nic_remove(7)
    assert on_another_thread(operation.abort)
    rig.wait_for(lambda: operation.done)
    assert operation.code == ABORTED


def test_an_abort_of_one_that_ends_meanwhile_is_no_error(xen: XenStandIn, rig: Rig) -> None:
    """libxl says that there is none of that name; here another thread ends it just before."""
    operation = rig.nic_remove(7)
    rig.spy.before["ao_abort"] = lambda: on_another_thread(operation.abort)
    assert not operation.abort()
    assert operation.code == ABORTED
    assert rig.spy.count("ao_abort") == 2


def test_a_libxl_without_abort_says_so(xen: XenStandIn, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for one of before 4.6."""
    operation = rig.nic_remove(7)
    rig.spy.missing.add("libxl_ao_abort")
    with pytest.raises(HypervisorError, match=r"cannot abort domain 7: libxl can do that from 4\.6 on"):
        operation.abort()
    assert not operation.done
    rig.spy.missing.clear()
    assert operation.abort()
    rig.wait_for(lambda: operation.done)


# -- waiting for the end


def test_a_task_awaits_it(xen: XenStandIn) -> None:
    async def main() -> None:
        with attach() as bridge:
            rig = Rig(bridge)
            operation = rig.nic_remove(7)
            asyncio.get_running_loop().call_soon(xen.nic_gone, 7)
            await operation
            await operation  # again: it has ended
            rig.context.close()
            assert await bridge.drain(PATIENCE)
            assert rig.spy.violations == []

    asyncio.run(main())


def test_an_awaiter_that_is_cancelled_leaves_the_operation_to_itself(xen: XenStandIn) -> None:
    async def main() -> None:
        with attach() as bridge:
            rig = Rig(bridge)
            operation = rig.nic_remove(7)
            waiting = asyncio.create_task(operation._wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not operation.done
            xen.nic_gone(7)
            await operation
            assert rig.spy.count("ao_abort") == 0
            rig.context.close()
            assert await bridge.drain(PATIENCE)

    asyncio.run(main())


def test_what_fails_is_raised_in_who_awaits_it(xen: XenStandIn) -> None:
    async def main() -> None:
        with attach() as bridge:
            rig = Rig(bridge)
            operation = rig.nic_remove(7)
            asyncio.get_running_loop().call_soon(operation.abort)
            with pytest.raises(HypervisorError, match="aborted"):
                await operation
            rig.context.close()
            assert await bridge.drain(PATIENCE)

    asyncio.run(main())


def test_a_task_of_a_loop_that_the_bridge_has_left_awaits_it(xen: XenStandIn) -> None:
    """D9: on its own thread."""
    there = asyncio.new_event_loop()
    ended: list[threading.Thread] = []

    async def wait(operation: Operation) -> None:
        await operation
        ended.append(threading.current_thread())

    with Bridge(AsyncioHost(there)) as bridge:
        rig = Rig(bridge)
        operation = rig.nic_remove(7)
        bridge.move(SteppingHost())
        waiting = there.create_task(wait(operation))
        began = threading.Event()
        there.call_soon(began.set)
        thread = threading.Thread(target=there.run_until_complete, args=(waiting,))
        thread.start()
        assert began.wait(PATIENCE) and not waiting.done()
        xen.nic_gone(7)
        rig.wait_for(lambda: operation.done)
        rig.settle()
        thread.join(PATIENCE)
        assert ended == [thread]
        rig.close()
    there.close()


def test_a_host_without_tasks_says_what_to_use_instead(xen: XenStandIn, stepped: Rig) -> None:
    operation = stepped.nic_remove(7)
    with pytest.raises(HostUnavailable, match="no tasks to wait in: use on_done"):
        operation._wait().send(None)
    operation.abort()
    stepped.wait_for(lambda: operation.done)


def test_another_thread_waits_for_its_result(xen: XenStandIn, rig: Rig) -> None:
    operation = rig.nic_remove(7)
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(TimeoutError, match="goes on after"):
            operation.result(0.001)
        xen.nic_gone(7)
        operation.result(PATIENCE)
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    rig.once_it_runs(thread.start)
    rig.until_another_thread(ended.is_set)
    thread.join(PATIENCE)


def test_the_loops_thread_cannot_wait_for_its_result(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.15: nobody would bring it to its end."""
    operation = rig.nic_remove(7)
    with pytest.raises(HypervisorError, match="needs the loop that this thread runs"):
        operation.result()
    operation.abort()
    rig.wait_for(lambda: operation.done)


def test_a_callback_that_raises_is_reported_and_the_others_are_called(
    xen: XenStandIn, rig: Rig, errors: Errors
) -> None:
    """D4."""
    operation = rig.nic_remove(7)
    told: list[Operation] = []
    operation.on_done(lambda operation: 1 / 0)
    operation.on_done(told.append)
    operation.abort()
    rig.wait_for(lambda: bool(told))
    rig.settle()
    assert [type(error) for error, _ in errors] == [ZeroDivisionError]
    assert told == [operation]
    errors.clear()


# -- what this libxl cannot do asynchronously


def test_where_libxl_takes_no_how_a_thread_does_it(xen: XenStandIn, rig: Rig) -> None:
    """A stand-in for 4.12, by its version: pausing took a how from 4.13 on (`types.HOW_SINCE`)."""
    rig.spy.version = (4, 12)
    told: list[int] = []
    operation = rig.context.pause(7)
    operation.on_done(lambda operation: told.append(threading.get_ident()))
    rig.wait_for(lambda: bool(told))
    operation.result()
    assert told == [threading.get_ident()], "on the loop's"
    failed = rig.context.pause(99)
    rig.wait_for(lambda: failed.done)
    assert failed.error is not None and failed.error.code == FAILED


def test_one_on_a_thread_of_its_own_cannot_be_aborted_and_says_so(xen: XenStandIn, rig: Rig) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def call() -> int:
        inside.set()
        assert go_on.wait(PATIENCE)
        return 0

    operation = rig.context._operations.start_synchronous("rename", 7, call)
    assert inside.wait(PATIENCE)
    with pytest.raises(HypervisorError, match="its rename cannot be aborted"):
        operation.abort()
    go_on.set()
    rig.wait_for(lambda: operation.done)
    operation.result()


def test_one_on_a_thread_of_its_own_that_is_lost_has_failed(
    xen: XenStandIn, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        operation = rig.context._operations.start_synchronous("rename", 7, lambda: 1 // 0)
        rig.wait_for(lambda: operation.done)
    assert operation.error is not None and "it was lost" in str(operation.error)
    assert "ZeroDivisionError" in caplog.text


# -- calls that block


def test_a_call_that_blocks_is_refused_on_the_loops_thread(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.15: and so is a look at the domains."""
    refused: list[str] = []
    calls = [functools.partial(rig.nic_remove_synchronously, 7), rig.context.list, lambda: rig.context.info(7)]

    def ask(id: int, opaque: object) -> None:
        rig.bridge.remove_timeout(id)
        for call in calls:
            with pytest.raises(HypervisorError, match="on the loop's thread, which would stand still") as error:
                call()
            refused.append(str(error.value.operation))

    rig.bridge.add_timeout(0, ask)
    rig.wait_for(lambda: bool(refused))
    assert refused == ["call libxl_device_nic_remove", "list the domains", "look at a domain"]
    assert rig.spy.count("timeout_register") == 0, "libxl was not asked"


def test_a_call_that_blocks_works_on_another_thread_while_the_loop_runs(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.12, 1.15: two are inside libxl, and what is there for both is told once."""
    xen.create(8)
    rig.context.generators.of_death(8)
    codes: list[int] = []

    thread = threading.Thread(target=lambda: codes.append(rig.nic_remove_synchronously(7)), daemon=True)
    thread.start()
    rig.until_another_thread(lambda: rig.spy.count("timeout_register") == 1)  # it is inside, and the backend lives on
    xen.die(8)
    rig.wait_for(lambda: bool(rig.events))
    assert codes == []
    xen.nic_gone(7)
    rig.until_another_thread(lambda: bool(codes))
    thread.join(PATIENCE)
    rig.settle()
    assert (codes, rig.told(), rig.threads) == ([0], [("DOMAIN_DEATH", 8)], {threading.get_ident()})


def test_a_loop_that_begins_to_run_meanwhile_refuses_no_other_thread(
    xen: XenStandIn, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Bridge.is_running_here` looks twice, and is wrong on another thread where the loop begins in between."""
    monkeypatch.setattr(rig.bridge, "is_running_here", lambda: True)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(rig.context.list())), daemon=True)
    rig.once_it_runs(thread.start)
    rig.until_another_thread(lambda: bool(found))
    thread.join(PATIENCE)
    assert found == [2]


def test_a_function_that_libxl_has_not_is_one_clear_error(xen: XenStandIn, rig: Rig) -> None:
    with pytest.raises(HypervisorError, match=r"cannot call libxl_nonsense: libxenlight\.so\S* has none") as refused:
        rig.context.call("libxl_nonsense", 7)
    assert refused.value.code == -4
