"""`Bridge.stats`: what an operator is told, and whose everything is."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest

from eventbridge import Bridge, Events
from eventbridge.core.handles import Handle
from eventbridge.core.mailbox import Mailbox
from eventbridge.core.origin import owner
from eventbridge.testing import FakeClock, SteppingHost
from tests.support import wanted
from tests.support.patience import PATIENCE

R = Events.READABLE
SIM = "sim:///default?domains=4&seed=1&rate=100"


def ignore(*_: object) -> None:
    """A callback."""


class Other:
    """A stand-in for a source of somebody's own."""

    def __init__(self, fd: int) -> None:
        self.fileno = lambda: fd

    def events(self) -> int:
        return R

    def deadline(self) -> None:
        return None

    def drain(self, events: int) -> None: ...

    def detached(self) -> None: ...


def test_what_is_registered_is_counted_by_owner(stepping: SteppingHost) -> None:
    with Bridge(stepping) as bridge:
        source = Other(os.eventfd(0))
        bridge.add_timeout(-1, ignore)
        bridge.add_timeout(-1, functools.partial(ignore, 1))
        bridge.add_source(source)
        Mailbox(bridge)
        owners = bridge.stats().owners
        assert {name: (of.handles, of.timeouts) for name, of in owners.items()} == {
            "application": (1, 2),
            "eventbridge": (0, 1),
        }
        assert bridge.stats().handles == 1
    os.close(source.fileno())


def test_a_simulated_hypervisor_s_are_sim_s_on_both_models() -> None:
    import eventbridge

    with Bridge("select") as bridge:
        connection = eventbridge.open(SIM, bridge)
        bridge.run(until=lambda: connection.opened.done, timeout=PATIENCE)
        owners = bridge.stats().owners
        assert owners["sim"].handles > 0 and owners["sim"].timeouts > 0
        assert owners.keys() == {"sim", "eventbridge"}, "and nothing is taken for an application's"
        closing = connection.close()
        bridge.run(until=lambda: closing.done, timeout=PATIENCE)


@pytest.mark.parametrize("callback", [ignore, print, functools.partial(print, 1), [].append, ignore.__call__])
def test_what_no_library_of_ours_has_registered_is_the_application_s(callback: Any) -> None:
    assert owner(Handle(0, 1, callback, None, None)) == "application"
    assert owner(Handle(0, 1, callback, None, ignore)) == "application"


def test_libvirt_s_are_known_by_its_free_or_by_its_callback() -> None:
    wanted.module("libvirt")
    from eventbridge.adapters.hypervisors.libvirt import hooks

    invoke, free = hooks._invoke_handle, hooks._free
    for callback, freed in [
        (invoke, free),  # its C function, and the hook's free
        (ignore, free),  # carried by `transfer`: one is put before it
        (invoke, None),
        (functools.partial(invoke, 1), None),
    ]:
        assert owner(Handle(0, 1, callback, None, freed)) == "libvirt"


def test_the_slowest_callback_is_named_with_its_id_fd_and_owner(stepping: SteppingHost, clock: FakeClock) -> None:
    fd = os.eventfd(1)

    def slow(id: int, fd: int, events: int, opaque: object) -> None:
        clock.advance(ms=7)
        bridge.remove_handle(id)

    with Bridge(stepping) as bridge:
        id = bridge.add_handle(fd, R, slow)
        assert bridge.stats().slowest_of.kind == "", "nothing was slow yet"
        stepping.step_until_idle()
        stats = bridge.stats()
    assert stats.slowest == pytest.approx(0.007)
    assert stats.slowest_callback.endswith("slow")
    assert (stats.slowest_of.kind, stats.slowest_of.id, stats.slowest_of.fd) == ("handle", id, fd)
    assert stats.slowest_of.owner == "application"
    os.close(fd)


def test_a_slow_timeout_that_removes_itself_is_named_all_the_same(stepping: SteppingHost, clock: FakeClock) -> None:
    def once(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        clock.advance(ms=3)

    with Bridge(stepping) as bridge:
        bridge.add_timeout(1, once)
        clock.advance(ms=1)
        stepping.step_until_idle()
        slowest = bridge.stats().slowest_of
    assert (slowest.kind, slowest.id, slowest.fd, slowest.owner) == ("timeout", 1, None, "application")
    assert slowest.callback.endswith("once"), "not what stands in the place of a removed one's"


def test_lag_is_the_most_and_lately_the_last(stepping: SteppingHost, clock: FakeClock) -> None:
    with Bridge(stepping) as bridge:
        bridge.add_timeout(10, ignore)
        clock.advance(ms=15)
        stepping.step_until_idle()
        clock.advance(ms=11)
        stepping.step_until_idle()
        stats = bridge.stats()
    assert stats.lag == pytest.approx(0.005)
    assert stats.lag_lately == pytest.approx(0.001)


def test_moves_rebuilds_and_frees_owed_are_counted(stepping: SteppingHost) -> None:
    freed: list[object] = []
    with Bridge(stepping) as bridge:
        id = bridge.add_timeout(-1, ignore, None, freed.append)
        bridge.remove_timeout(id)
        assert (bridge.stats().frees_owed, freed) == (1, [])
        stepping.step_until_idle()
        assert (bridge.stats().frees_owed, freed) == (0, [None])
        bridge.move(SteppingHost())
        bridge.move(bridge.host)
        stats = bridge.stats()
        assert (stats.moves, stats.rebuilds) == (1, 0), "to where it is already is no move"


def test_an_epoll_that_was_made_anew_is_counted(stepping: SteppingHost, scripted_fd: Any) -> None:
    """H11."""
    fd = scripted_fd(content=b"x")
    with Bridge(stepping) as bridge:
        id = bridge.add_handle(fd.fileno(), R, ignore)
        fd.ghost()
        fd.close()
        bridge.remove_handle(id)
        stepping.step()
        stepping.step()
        assert bridge.stats().rebuilds == 1
        assert bridge.stats().callbacks == 0


@pytest.mark.parametrize("together", [1, 3, 5])
def test_a_slow_callback_is_noticed_though_few_are_called_with_it(
    together: int, stepping: SteppingHost, clock: FakeClock
) -> None:
    """Callbacks are timed four together while they are quick: fewer, or what is left of a round, are timed as well."""
    fds = [os.eventfd(1) for _ in range(together)]
    passed: list[int] = []

    def last_is_slow(id: int, fd: int, events: int, opaque: object) -> None:
        passed.append(fd)
        if len(passed) == 10 * together:
            clock.advance(ms=7)

    with Bridge(stepping) as bridge:
        for fd in fds:
            bridge.add_handle(fd, R, last_is_slow)
        for _ in range(9):
            stepping.step()
        assert (len(passed), bridge.stats().slowest) == (9 * together, 0.0)
        stepping.step()
        assert bridge.stats().slowest == pytest.approx(0.007)
    for fd in fds:
        os.close(fd)
