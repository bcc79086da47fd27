"""Events and what makes libxl tell them: each told once, on the loop's thread, and given back once."""

from __future__ import annotations

import logging
import threading

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import Event, EventKind, context, types
from eventbridge.adapters.hypervisors.xen.libxl.events import read
from tests.support.libxl_rig import Errors, Rig, on_another_thread
from tests.support.xen.standin import XenStandIn

DEATH, EJECT, SHUTDOWN = "DOMAIN_DEATH", "DISK_EJECT", "DOMAIN_SHUTDOWN"


def each_was_freed_once(rig: Rig) -> bool:
    freed = rig.spy.count("event_free")
    return freed == rig.spy.count("event_occurs") == rig.spy.count("event_free done") > 0


# -- what is told


def test_a_death_is_told_once_with_whose_it_was(xen: XenStandIn, rig: Rig) -> None:
    """The trace "death" of xen.md 1."""
    xen.create_many([7, 8])
    generator = rig.context.generators.of_death(7)
    rig.context.generators.of_death(8)
    xen.die(7)
    rig.wait_for(lambda: bool(rig.events))
    rig.settle()
    assert rig.told() == [(DEATH, 7)]
    (event,) = rig.events
    assert (event.for_user, event.reason, event.vdev, event.code) == (generator.for_user, None, None, None)
    assert each_was_freed_once(rig)


@pytest.mark.parametrize("reason", range(6))
def test_a_shutdown_is_told_with_its_reason_before_the_death(xen: XenStandIn, rig: Rig, reason: int) -> None:
    xen.create(7)
    rig.context.generators.of_death(7)
    xen.shutdown(7, reason=reason)
    rig.wait_for(lambda: bool(rig.events))
    assert rig.told() == [(SHUTDOWN, 7)]
    xen.die(7)
    rig.wait_for(lambda: len(rig.events) == 2)
    rig.settle()
    assert rig.told() == [(SHUTDOWN, 7), (DEATH, 7)]
    assert [event.reason for event in rig.events] == [reason, None]
    assert each_was_freed_once(rig)


def test_an_eject_is_told_with_its_disk_each_time(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1: ``vdev`` is NULL in 4.17, so it is the one that was asked for."""
    xen.create(7)
    xen.cdrom(7, "hdc", 5632)
    xen.cdrom(7, "hdd", 5696)
    for vdev in ("hdc", "hdd"):
        rig.context.generators.of_eject(7, vdev)
    for times, (vdev, devid) in enumerate([("hdd", 5696), ("hdc", 5632), ("hdd", 5696)], 1):
        xen.eject(7, devid)
        rig.wait_for(lambda times=times: len(rig.events) == times)  # type: ignore[misc]  # bound now
        assert (rig.events[-1].kind, rig.events[-1].vdev) == (EventKind.DISK_EJECT, vdev)
    rig.settle()
    assert rig.told() == [(EJECT, 7)] * 3
    assert each_was_freed_once(rig)


def test_a_domain_that_is_not_there_dies_at_once_or_with_the_next(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1: evenable returns 0, then a DEATH.  libxl looks when its watch fires, as a new one does."""
    rig.context.generators.of_death(99)
    rig.wait_for(lambda: bool(rig.events))
    rig.context.generators.of_death(98)
    rig.settle()
    assert rig.told() == [(DEATH, 99)]
    xen.create(7)
    xen.die(7)
    rig.wait_for(lambda: len(rig.events) == 2)
    rig.settle()
    assert rig.told() == [(DEATH, 99), (DEATH, 98)]


def test_what_a_later_libxl_tells_is_told_as_other() -> None:
    event = types.Event(domid=7, type=77)
    event.u.rc = -3
    assert read(event) == Event(EventKind.OTHER, 77, 7, None, 0)


# -- generators


def test_a_generator_is_disabled_once_and_tells_nothing_more(xen: XenStandIn, rig: Rig) -> None:
    xen.create(7)
    xen.create(8)
    xen.cdrom(7)
    generators = rig.context.generators
    ours = [generators.of_death(7), generators.of_eject(7, "hdc")]
    generators.of_death(8)
    rig.settle()
    for generator in [*ours, *ours]:
        generators.disable(generator)
    assert rig.spy.count("evdisable_domain_death") == rig.spy.count("evdisable_disk_eject") == 1
    xen.eject(7)
    xen.die(7, 8)
    rig.wait_for(lambda: bool(rig.events))
    rig.settle()
    assert rig.told() == [(DEATH, 8)]


def test_the_last_generator_takes_its_fd_with_it(xen: XenStandIn, rig: Rig) -> None:
    """The trace "death": evdisable, then fd_deregister."""
    xen.create(7)
    registered = len(rig.context._hooks)
    generator = rig.context.generators.of_death(7)
    assert len(rig.context._hooks) > registered
    rig.context.generators.disable(generator)
    assert len(rig.context._hooks) == registered
    assert rig.spy.names()[-1] == "evdisable_domain_death done"


def test_a_generator_may_be_disabled_within_its_own_event(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.13: by then nothing of libxl's is held."""
    xen.create(7)
    generator = rig.context.generators.of_death(7)
    rig.consumer = lambda event: rig.context.generators.disable(generator)
    xen.shutdown(7)
    rig.wait_for(lambda: bool(rig.events))
    xen.die(7)
    rig.settle()
    assert rig.told() == [(SHUTDOWN, 7)]
    assert rig.spy.count("evdisable_domain_death") == 1


def test_closing_ends_the_generators_that_are_left_and_disables_none_twice(xen: XenStandIn, bridge: Bridge) -> None:
    """xen.md 1.2: ctx_free deregisters what is live."""
    xen.create(7)
    rig = Rig(bridge)
    generator = rig.context.generators.of_death(7)
    rig.close()
    rig.context.generators.disable(generator)
    assert rig.spy.count("evdisable_domain_death") == 0
    assert rig.spy.count("fd_register") == rig.spy.count("fd_deregister") == 2
    assert rig.spy.count("ctx_free done") == 1


# -- consumers that fail


def test_a_consumers_exception_is_reported_once_and_the_next_event_comes(
    xen: XenStandIn, rig: Rig, errors: Errors
) -> None:
    """D4."""
    xen.create_many([7, 8])
    for domid in (7, 8):
        rig.context.generators.of_death(domid)
    rig.consumer = lambda event: 1 / 0
    xen.die(7, 8)
    rig.wait_for(lambda: len(rig.events) == 2)
    rig.settle()
    assert sorted(rig.told()) == [(DEATH, 7), (DEATH, 8)]
    assert [type(error) for error, _ in errors] == [ZeroDivisionError] * 2
    assert each_was_freed_once(rig)
    errors.clear()


def test_a_ctrl_c_in_a_consumer_comes_out_of_the_loop_and_no_event_is_lost(xen: XenStandIn, rig: Rig) -> None:
    """D4: it is not contained."""
    xen.create_many([7, 8])
    for domid in (7, 8):
        rig.context.generators.of_death(domid)
    interrupts = [KeyboardInterrupt()]

    def interrupted(event: Event) -> None:
        if interrupts:
            raise interrupts.pop()

    rig.consumer = interrupted
    xen.die(7, 8)
    with pytest.raises(KeyboardInterrupt):
        rig.wait_for(lambda: len(rig.events) == 3)
    rig.wait_for(lambda: len(rig.events) == 2)
    assert sorted(rig.told()) == [(DEATH, 7), (DEATH, 8)]
    assert each_was_freed_once(rig)


def test_a_ctrl_c_inside_libxls_callback_comes_out_of_the_loop(xen: XenStandIn, bridge: Bridge) -> None:
    """D4, xen.md 1.16: it is not raised into libxl, which would lose it and return garbage."""
    told: list[Event] = []

    def interrupted(event: Event) -> None:
        told.append(event)
        raise KeyboardInterrupt

    rig = Rig(bridge, tell=interrupted)
    rig.context.generators.of_death(99)
    with pytest.raises(KeyboardInterrupt):
        rig.wait_for(lambda: len(told) == 2)
    rig.settle()
    assert [event.domid for event in told] == [99]
    assert each_was_freed_once(rig)
    rig.close()


def test_an_event_that_cannot_be_read_is_freed_all_the_same(
    xen: XenStandIn, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """xen.md 1.14, 1.16."""
    monkeypatch.setattr(context, "read", lambda event: 1 / 0)
    with caplog.at_level(logging.ERROR):
        rig.context.generators.of_death(99)
        rig.wait_for(lambda: rig.spy.count("event_free done") == 1)
    assert "was lost" in caplog.text
    assert rig.events == []
    assert each_was_freed_once(rig)


# -- threads


def test_an_event_that_another_thread_was_given_is_told_on_the_loops(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.10, 1.13; D1: libxl tells whoever is inside it, here one that waits for its own operation."""
    xen.create_many([7, 8])
    xen.nic(7)
    xen.nic_gone(7)
    rig.follow(8)
    xen.die(8)
    rig.until_readable(rig.watched_fd())
    givers: list[int] = []
    rig.spy.before["event_free"] = lambda: givers.append(threading.get_ident())  # called where the event is given
    assert on_another_thread(lambda: rig.nic_remove_synchronously(7)) == 0  # nobody runs the loop meanwhile
    assert len(givers) == 1 and threading.get_ident() not in givers
    assert rig.events == [], "not on the other thread"
    rig.wait_for(lambda: bool(rig.events))
    rig.settle()
    assert rig.told() == [(DEATH, 8)]
    assert rig.threads == {threading.get_ident()}


def test_after_close_no_event_is_told(xen: XenStandIn, rig: Rig) -> None:
    """D8: nor the one that had come with it."""
    xen.create_many([7, 8])
    for domid in (7, 8):
        rig.context.generators.of_death(domid)
    rig.consumer = lambda event: rig.context.close()
    xen.die(7, 8)
    rig.wait_for(lambda: rig.context.freed)
    rig.settle()
    assert len(rig.events) == 1
    assert each_was_freed_once(rig)


def test_an_event_that_waits_for_the_loop_when_it_is_closed_is_not_told(xen: XenStandIn, rig: Rig) -> None:
    """D8."""
    rig.context.generators.of_death(99)
    xen.create(7)
    xen.nic(7)
    xen.nic_gone(7)
    on_another_thread(lambda: rig.nic_remove_synchronously(7))
    assert rig.spy.count("event_occurs") == 1
    rig.context.close()
    rig.settle()
    assert rig.events == []
    assert each_was_freed_once(rig)
