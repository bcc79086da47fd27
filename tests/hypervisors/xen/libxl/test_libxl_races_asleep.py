"""The race ledger, second half: races that libxl's event loop once had, by the commits of Xen's that mended them, and
that the same situations are none here.

Those of several threads that poll, read and close the same fds; brought about as the first half says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from eventbridge import Bridge
from eventbridge.testing import SteppingHost
from tests.support.libxl_hooked import Libxl, Pipes, strays
from tests.support.libxl_rig import Rig, on_another_thread, until_asleep
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

DEATH = "DOMAIN_DEATH"
ABORTED = -22


# -- 56d2350bf5: another thread has read all that there was


def test_an_fd_that_another_thread_has_drained_meanwhile_is_harmless(
    xen: XenStandIn, stepped: Rig, host: SteppingHost
) -> None:
    """56d2350bf5 (2015): one thread came back from its poll and waited for libxl's lock while another, inside, read
    everything; the first then read, too, and slept for good with the lock held."""
    xen.create_many([7, 8])
    xen.nic(7)
    xen.nic_gone(7)
    stepped.follow(8)
    xen.die(8)
    stepped.until_readable(stepped.watched_fd())
    codes: list[int] = []

    def drain() -> None:
        codes.append(on_another_thread(lambda: stepped.nic_remove_synchronously(7)))
        assert stepped.spy.count("event_occurs") == 1, "the other thread was given the death"

    stepped.spy.before["osevent_occurred_fd"] = drain
    host.step()
    stepped.wait_for(lambda: bool(stepped.events))
    stepped.settle()
    assert (codes, stepped.told()) == ([0], [(DEATH, 8)])
    assert stepped.spy.count("osevent_occurred_fd") == stepped.spy.count("osevent_occurred_fd done")
    assert stepped.threads == {threading.get_ident()}


# -- 681ce16816: an fd is closed and its number used again while somebody polls


@pytest.mark.parametrize("kept", [False, True], ids=["closed", "closed but for a copy elsewhere"])
def test_an_fd_closed_and_its_number_registered_again_after_the_poll_is_the_new_ones(
    by_hand: Libxl, kept: bool, host: SteppingHost
) -> None:
    """681ce16816 (2015): deregistered, closed, opened as another file and registered, all while one thread was inside
    poll, whose answer (that the number is no file's, or is ready) was about the old one; libxl took it for the new
    one's.  A copy, as a forked child has, keeps the old file and its readiness alive (H11)."""
    with Pipes() as pipes:
        fd, _ = pipes.pipe(ready=True)
        if kept:
            pipes.dup(fd)
        old = by_hand.register(fd, 1)
        writers: list[int] = []

        def exchange() -> None:
            by_hand.deregister(fd, old)
            writers.append(pipes.replace(fd))
            by_hand.register(fd, 2)

        _after_the_next_poll(by_hand.bridge, lambda: on_another_thread(exchange))
        host.step()
        host.step_until_idle()
        assert writers and by_hand.told == [], "nothing of the old file's"
        os.write(writers[0], b"x")
        assert host.step_until(lambda: bool(by_hand.told), PATIENCE)
        assert set(by_hand.told) == {(2, fd)}
        by_hand.hooks.retire()


def _after_the_next_poll(bridge: Bridge, work: Callable[[], object]) -> None:
    """When the kernel has answered, and before anybody is called."""
    dispatcher = bridge._dispatcher
    polled = dispatcher._poll

    def poll(most: int) -> list[tuple[int, int]]:
        events = polled(most)
        dispatcher._poll = polled
        work()
        return events

    dispatcher._poll = poll


def test_an_fd_closed_and_its_number_registered_again_while_the_loop_sleeps(bridge: Bridge) -> None:
    """681ce16816 (2015), as it was: the loop is in its poll meanwhile."""
    libxl, main = Libxl(bridge), threading.current_thread()
    with Pipes() as pipes:
        fd, _ = pipes.pipe()
        old = libxl.register(fd, 1)

        def exchange() -> None:
            until_asleep(main)
            libxl.deregister(fd, old)
            writer = pipes.replace(fd)
            libxl.register(fd, 2)
            until_asleep(main)
            os.write(writer, b"x")

        thread = threading.Thread(target=exchange, daemon=True)
        thread.start()
        assert bridge.run(until=lambda: bool(libxl.told), timeout=PATIENCE)
        thread.join(PATIENCE)
        assert set(libxl.told) == {(2, fd)}
        libxl.hooks.retire()


def test_a_context_closed_and_another_opened_on_the_same_fds_while_the_loop_sleeps(
    xen: XenStandIn, bridge: Bridge
) -> None:
    """681ce16816 (2015), on the real libxl: what it closes, the next one is given the numbers of."""
    xen.create_many([7, 8])
    old, main = Rig(bridge), threading.current_thread()
    old.follow(7)
    made: list[Rig] = []

    def exchange() -> None:
        until_asleep(main)
        old.close()
        new = Rig(bridge)
        new.context.generators.of_death(8)
        made.append(new)
        xen.die(7, 8)

    thread = threading.Thread(target=exchange, daemon=True)
    thread.start()
    old.wait_for(lambda: bool(made) and bool(made[0].events))
    thread.join(PATIENCE)
    (new,) = made
    new.settle()
    assert {entry[1] for entry in old.spy.trace if entry[0] == "fd_register"} & {
        entry[1] for entry in new.spy.trace if entry[0] == "fd_register"
    }, "a number is used again, or this shows nothing"
    assert (old.told(), new.told()) == ([], [(DEATH, 8)])
    assert strays(new.spy.trace) == []
    new.close()


# -- 5a533d0ba5: somebody sleeps on a set of fds that is out of date


def test_what_another_thread_registers_wakes_a_loop_that_sleeps(xen: XenStandIn, rig: Rig) -> None:
    """5a533d0ba5 (2020): one thread slept in libxl's loop while another, passing through, made libxl interested in an
    fd more; nobody watched it.  Here the loop sleeps on nothing but the children's pipe (xen.md 1.12)."""
    xen.create(7)
    xen.nic(7)
    main, begun = threading.current_thread(), []

    def begin() -> None:
        until_asleep(main)
        begun.append(rig.nic_remove(7))
        until_asleep(main)
        xen.nic_gone(7)

    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    rig.wait_for(lambda: bool(begun) and begun[0].done)
    thread.join(PATIENCE)
    begun[0].result()
    assert ("timeout_modify", True, 0) in rig.spy.trace, "it did not have to wait for its timeout"


def test_what_another_threads_call_has_begun_for_an_operation_is_watched_by_the_loop(
    xen: XenStandIn, stepped: Rig
) -> None:
    """5a533d0ba5 (2020), the other way about: a thread with a call of its own takes an operation one step on, which
    waits for other things then, and leaves; the loop is to see to these."""
    xen.create_many([7, 8])
    for domid in (7, 8):
        xen.nic(domid)
    operation = stepped.nic_remove(7)
    for domid in (7, 8):
        xen.nic_gone(domid)
    assert on_another_thread(lambda: stepped.nic_remove_synchronously(8)) == 0
    assert not operation.done or operation.code == 0
    stepped.wait_for(lambda: operation.done)
    operation.result()
    registered = stepped.spy.count("timeout_register")
    stepped.wait_for(lambda: stepped.spy.count("osevent_occurred_timeout done") == registered)
    assert stepped.spy.count("osevent_occurred_timeout") == registered


def test_a_call_that_sleeps_in_libxl_hears_of_what_the_loop_has_begun_for_it(xen: XenStandIn, rig: Rig) -> None:
    """5a533d0ba5 (2020): the sleeper is inside libxl, and the loop takes its work a step on, or it does itself: either
    way it ends, its script has been run once, and an operation that goes on meanwhile is not held up."""
    xen.create_many([7, 8])
    for domid in (7, 8):
        xen.nic(domid)
    codes: list[int] = []

    operation = rig.nic_remove(8)
    thread = threading.Thread(target=lambda: codes.append(rig.nic_remove_synchronously(7)), daemon=True)
    thread.start()
    rig.until_another_thread(lambda: rig.spy.count("timeout_register") == 2)
    xen.nic_gone(7)
    rig.until_another_thread(lambda: bool(codes))
    thread.join(PATIENCE)
    assert (codes, operation.done) == ([0], False)
    xen.nic_gone(8)
    rig.wait_for(lambda: operation.done)
    operation.result()
