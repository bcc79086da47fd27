"""The race ledger, first half: races that libxl's event loop once had, by the commits of Xen's that mended them, and
that the same situations are none here.

They are brought about on the real libxl by holding one thread up at the very place (`Spy.before`, a loop that turns by
hand) while another does what raced; where 4.17 cannot be brought to it, a stand-in for libxl calls the hooks.
"""

from __future__ import annotations

import ctypes

import pytest

from eventbridge.adapters.hypervisors.xen.libxl import Event, types
from eventbridge.testing import SteppingHost
from tests.support.libxl_hooked import Libxl, Pipes, strays
from tests.support.libxl_rig import Rig, on_another_thread
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

DEATH = "DOMAIN_DEATH"
ABORTED = -22


# -- 60975d1b58: the set of fds changes while what was polled is being told


def test_fds_that_come_and_go_during_a_pass_disturb_it_in_nothing(by_hand: Libxl, host: SteppingHost) -> None:
    """60975d1b58 (2012): a callback registered fds while libxl was walking the arrays of the last poll, which grew
    under its feet.  Here every callback ends its neighbour's registration and begins three new ones."""
    with Pipes() as pipes:
        live: dict[int, tuple[int, int]] = {}
        ended: set[int] = set()

        def begin(for_libxl: int) -> None:
            fd, _ = pipes.pipe(ready=True)
            live[for_libxl] = fd, by_hand.register(fd, for_libxl)

        def change(for_libxl: int) -> None:
            assert for_libxl in live, "one that was deregistered is told"
            if (neighbour := for_libxl ^ 1) in live:
                by_hand.deregister(*live.pop(neighbour))
                ended.add(neighbour)
            for new in range(3):
                begin(100 + 3 * for_libxl + new)

        for for_libxl in range(2, 42):
            begin(for_libxl)
        by_hand.on_told = change
        assert host.step(PATIENCE)
        told = [for_libxl for for_libxl, _ in by_hand.told]
        assert sorted(told) == [pair for pair in range(2, 42) if pair not in ended]
        assert len(ended) == 20, "of each pair whichever came first"
        by_hand.on_told = lambda for_libxl: None
        by_hand.told.clear()
        assert host.step(PATIENCE)
        assert sorted(by_hand.told) == sorted((for_libxl, fd) for for_libxl, (fd, _) in live.items())
        by_hand.hooks.retire()


def test_libxl_changes_its_fds_in_a_pass_that_has_more_to_tell_it(
    xen: XenStandIn, stepped: Rig, host: SteppingHost
) -> None:
    """60975d1b58 (2012), on the real libxl: in one round both its fds are ready, xenstored's for a death and its
    children's pipe; whoever is told of the death has the first deregistered and registered again."""
    xen.create_many([7, 8, 9])
    xen.nic(7)
    (generator,) = stepped.follow(8)
    xenstored = stepped.watched_fd()
    children = next(fd for name, fd, *_ in stepped.spy.trace if name == "fd_register")
    operation = stepped.nic_remove(7)
    xen.nic_gone(7)
    stepped.wait_for(lambda: stepped.spy.count("timeout_register") == 2)  # the script has been started
    stepped.until_readable(children)  # and has ended
    xen.die(8)
    stepped.until_readable(xenstored)

    def change(event: Event) -> None:
        if event.domid == 8:
            stepped.context.generators.disable(generator)
            stepped.context.generators.of_death(9)
            assert stepped.context.pause(9).done

    stepped.consumer = change
    host.step()
    assert (stepped.told(), operation.code) == ([(DEATH, 8)], 0)
    xen.die(9)
    stepped.wait_for(lambda: len(stepped.events) == 2)
    stepped.settle()
    assert stepped.told() == [(DEATH, 8), (DEATH, 9)]
    assert strays(stepped.spy.trace) == []


# -- d2f82025b9: a timeout is deregistered by something that is not its registration


def test_a_timeout_deregistered_by_its_address_is_that_one_and_no_other(by_hand: Libxl, host: SteppingHost) -> None:
    """d2f82025b9 (2012): libxl gave the hook the address of where it kept the registration instead of what was there,
    so the application ended some other timeout or none, and the one that libxl had given up was still to be told."""
    places, size = (ctypes.c_void_p * 3)(), ctypes.sizeof(ctypes.c_void_p)
    for number in range(3):
        place = ctypes.cast(ctypes.byref(places, number * size), ctypes.POINTER(ctypes.c_void_p))
        assert by_hand.call.timeout_register(None, place, types.TimeVal(1, 0), number + 1) == 0
    by_hand.call.timeout_deregister(None, ctypes.addressof(places) + size)
    host.step_until_idle()
    assert by_hand.told == [(1, -1), (3, -1)]
    assert len(by_hand.hooks) == 0


# -- bc7e8a2a81: an fd's occurrence arrives when libxl is no longer interested


def test_an_fd_given_up_by_another_thread_just_before_libxl_is_told_tells_nothing(
    xen: XenStandIn, stepped: Rig, host: SteppingHost
) -> None:
    """bc7e8a2a81 (2013): nothing is held between an application's poll and its call of libxl, and another thread may
    end the registration in between; libxl used what it had freed then."""
    xen.create(7)
    (generator,) = stepped.follow(7)
    xen.die(7)
    stepped.until_readable(stepped.watched_fd())
    disable = stepped.context.generators.disable
    stepped.spy.before["osevent_occurred_fd"] = lambda: on_another_thread(lambda: disable(generator))
    host.step()
    assert stepped.spy.names()[-3:] == [
        "evdisable_domain_death done",
        "osevent_occurred_fd",
        "osevent_occurred_fd done",
    ]
    stepped.settle()
    assert stepped.events == []
    stepped.context.generators.of_death(99)
    stepped.wait_for(lambda: stepped.told() == [(DEATH, 99)])


def test_one_that_was_given_up_and_taken_up_again_meanwhile_is_told_once_and_to_the_new(
    xen: XenStandIn, stepped: Rig
) -> None:
    """bc7e8a2a81 (2013): what libxl hands out as for_libxl is used again, for another fd's or the same one's."""
    xen.create(7)
    (old,) = stepped.follow(7)
    xen.die(7)
    stepped.until_readable(stepped.watched_fd())
    generators, new = stepped.context.generators, []

    def exchange() -> None:
        generators.disable(old)
        new.append(generators.of_death(7))

    stepped.spy.before["osevent_occurred_fd"] = lambda: on_another_thread(exchange)
    stepped.wait_for(lambda: bool(stepped.events))
    stepped.settle()
    assert [event.for_user for event in stepped.events] == [new[0].for_user]


def test_an_fd_given_up_by_another_thread_during_the_pass_is_not_told_at_all(
    by_hand: Libxl, host: SteppingHost
) -> None:
    """bc7e8a2a81 (2013): here the bridge knows before it calls, though the kernel had reported both (H5, H6)."""
    with Pipes() as pipes:
        fds = {for_libxl: pipes.pipe(ready=True)[0] for for_libxl in (1, 2)}
        registrations = {for_libxl: by_hand.register(fd, for_libxl) for for_libxl, fd in fds.items()}

        def end_the_other(for_libxl: int) -> None:
            other = 3 - for_libxl
            on_another_thread(lambda: by_hand.deregister(fds[other], registrations[other]))

        by_hand.on_told = end_the_other
        for _ in range(3):  # it is never drained
            host.step()
        assert len({for_libxl for for_libxl, _ in by_hand.told}) == 1
        by_hand.hooks.retire()


# -- 5f5ef65bab: a timeout's occurrence arrives when libxl is no longer interested


@pytest.mark.parametrize("door", ["osevent_afterpoll", "osevent_occurred_timeout"])
def test_a_timeout_given_up_by_another_thread_just_before_libxl_is_told_is_told_once(
    xen: XenStandIn, stepped: Rig, door: str
) -> None:
    """5f5ef65bab (2013): libxl could not know, when it had deregistered a timeout, whether the application was about to
    tell of it, and so not when to free it.  It is told exactly once since, stale or not (xen.md 1.4)."""
    xen.create(7)
    xen.nic(7)
    stepped.spy.hurry = True
    operation = stepped.nic_remove(7)
    stepped.spy.hurry = False
    stepped.spy.before[door] = lambda: on_another_thread(operation.abort)
    stepped.wait_for(lambda: operation.done)
    registered = stepped.spy.count("timeout_register")
    stepped.wait_for(lambda: stepped.spy.count("osevent_occurred_timeout done") == registered)
    stepped.settle()
    assert operation.code == ABORTED
    assert stepped.spy.count("osevent_occurred_timeout") == registered
    assert len(stepped.context._hooks._timeouts) == 0


def test_a_timeout_that_fires_while_another_thread_modifies_it_is_told_once(by_hand: Libxl, host: SteppingHost) -> None:
    """5f5ef65bab (2013): the loop takes it between the other thread's finding it and its re-arming it."""
    registration = ctypes.c_void_p()
    assert by_hand.call.timeout_register(None, ctypes.pointer(registration), types.TimeVal(1, 0), 1) == 0
    update = by_hand.bridge.update_timeout

    def overtaken(id: int, milliseconds: int) -> None:
        by_hand.bridge.update_timeout = update  # type: ignore[method-assign]
        assert host.step(PATIENCE)
        assert by_hand.told == [(1, -1)]
        update(id, milliseconds)

    by_hand.bridge.update_timeout = overtaken  # type: ignore[method-assign]
    assert by_hand.call.timeout_modify(None, ctypes.pointer(registration), types.TimeVal(0, 0)) == 0
    host.step_until_idle()
    assert by_hand.told == [(1, -1)]
