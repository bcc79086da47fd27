"""A domain's life on libvirt's own test driver, told on each host: exactly which events, in which order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.hypervisor.events import DomainEvent, Kind
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN, Connect, Errors, Watch, Watched

URI = "test:///default"
LIFECYCLE = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE


@pytest.fixture
def watched(watch: Watch) -> Watched:
    return watch(URI)


@pytest.fixture
def domain(connect: Connect, watched: Watched) -> Iterator[Any]:
    """Defined, and so one event old."""
    domain = connect(URI).defineXML(DOMAIN.format("d"))
    watched.wait_for("d defined (added)")
    yield domain


def test_each_step_of_a_life_is_one_event_and_each_end_exactly_one_stopped(domain: Any, watched: Watched) -> None:
    domain.create()
    domain.suspend()
    domain.resume()
    domain.reboot()  # the test driver's guest reboots at once, and the driver tells nothing of it
    domain.shutdown()
    domain.create()
    domain.destroy()
    domain.undefine()
    watched.wait_for(
        "d defined (added)",
        "d started (booted)",
        "d suspended (paused)",
        "d resumed (unpaused)",
        "d stopped (shutdown)",
        "d started (booted)",
        "d stopped (destroyed)",
        "d undefined (removed)",
    )


def test_saving_crashing_and_renaming_have_reasons_of_their_own(
    domain: Any, watched: Watched, connect: Connect, tmp_path: Any
) -> None:
    domain.create()
    domain.save(str(tmp_path / "saved"))
    connect(URI).restore(str(tmp_path / "saved"))
    domain.coreDump(str(tmp_path / "core"), libvirt.VIR_DUMP_CRASH)
    domain.rename("e")
    domain.undefine()
    watched.wait_for(
        "d defined (added)",
        "d started (booted)",
        "d stopped (saved)",
        "d started (restored)",
        "d stopped (crashed)",
        "d undefined (renamed)",
        "e defined (renamed)",
        "e undefined (removed)",
    )


def test_an_event_says_which_domain_and_where_it_is_from(domain: Any, watched: Watched) -> None:
    domain.create()
    started = domain.ID()
    domain.destroy()
    domain.undefine()
    watched.wait_for("d defined (added)", "d started (booted)", "d stopped (destroyed)", "d undefined (removed)")
    assert [event.domain.id for event in watched.events if event.domain] == [None, started, None, None]
    assert {event.domain.uuid for event in watched.events if event.domain} == {domain.UUIDString()}
    assert {event.source for event in watched.events} == {URI}
    assert not any(event.synthetic for event in watched.events)


def test_what_has_no_kind_of_its_own_is_told_as_other(domain: Any, watched: Watched) -> None:
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "a title", None, None)
    domain.undefine()
    watched.wait_for("d defined (added)", "d other (metadata_change)", "d undefined (removed)")
    assert watched.events[1].raw == {"event": "METADATA_CHANGE", "type": "TITLE", "namespace": None}


def test_events_of_another_threads_calls_arrive_on_the_loops_while_it_sleeps(
    bridge: Bridge, domain: Any, watched: Watched
) -> None:
    """D1, T2: the test driver arms a timeout from the thread that acts."""

    def act() -> None:
        domain.create()
        domain.destroy()
        domain.undefine()

    actor = threading.Thread(target=act)
    actor.start()
    watched.wait_for("d defined (added)", "d started (booted)", "d stopped (destroyed)", "d undefined (removed)")
    actor.join()
    assert watched.threads == {threading.get_ident()}


def test_a_subscription_tells_nothing_once_it_is_closed(domain: Any, watched: Watched, bridge: Bridge) -> None:
    """What libvirt had queued already included."""
    domain.create()
    watched.close()
    watched.close()
    domain.destroy()
    domain.undefine()
    bridge.run(timeout=0.05)
    assert watched.told() == ["d defined (added)"]


def test_two_subscriptions_of_one_uri_are_told_everything_each(watch: Watch, transient: Connect) -> None:
    domain = transient(URI)
    one, other = watch(URI), watch(URI)
    domain.suspend()
    one.wait_for("t suspended (paused)")
    other.wait_for("t suspended (paused)")
    one.close()
    domain.resume()
    other.wait_for("t suspended (paused)", "t resumed (unpaused)")
    assert len(one.events) == 1


def test_a_consumer_that_raises_is_reported_once_and_told_the_next(
    bridge: Bridge, watch: Watch, transient: Connect, errors: Errors, capfd: pytest.CaptureFixture[str]
) -> None:
    """D4, through libvirt: its binding would print the exception."""

    def fail(event: DomainEvent) -> None:
        if event.kind is Kind.SUSPENDED:
            raise ValueError("the consumer's own")

    domain = transient(URI)
    watched = watch(URI, consumer=fail)
    _toggle(domain)
    watched.wait_for("t suspended (paused)", "t resumed (unpaused)")
    assert [str(error) for error, _ in errors] == ["the consumer's own"]
    assert capfd.readouterr() == ("", "")
    errors.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_consumer_ends_the_hosts_run(
    bridge: Bridge, watch: Watch, transient: Connect, kind: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    """D4: from within libvirt's callback SystemExit would end the process at once, and KeyboardInterrupt be lost."""

    def interrupt(event: DomainEvent) -> None:
        raise kind

    domain = transient(URI)
    watch(URI, consumer=interrupt)
    domain.suspend()
    with pytest.raises(kind):
        bridge.run(timeout=PATIENCE)
    assert capfd.readouterr() == ("", "")


def test_a_callback_deregisters_itself(bridge: Bridge, transient: Connect) -> None:
    """H5 as libvirt's own callers see it."""
    domain = transient(URI)
    connection = domain.connect()
    once: list[str] = []
    always: list[str] = []

    def first(connection: Any, domain: Any, event: int, detail: int, opaque: object) -> None:
        once.append(domain.name())
        connection.domainEventDeregisterAny(registered)

    registered = connection.domainEventRegisterAny(None, LIFECYCLE, first, None)
    other = connection.domainEventRegisterAny(domain, LIFECYCLE, lambda *_: always.append(domain.name()), None)
    _toggle(domain)
    assert bridge.run(until=lambda: len(always) == 2, timeout=PATIENCE)
    connection.domainEventDeregisterAny(other)
    assert once == ["t"]


def test_a_callback_deregisters_another_which_is_then_not_called(bridge: Bridge, transient: Connect) -> None:
    """Not even for the event that is under way."""
    domain = transient(URI)
    connection = domain.connect()
    calls: list[str] = []

    def first(connection: Any, domain: Any, event: int, detail: int, opaque: object) -> None:
        if not calls:
            connection.domainEventDeregisterAny(second)
        calls.append("first")

    registered = connection.domainEventRegisterAny(None, LIFECYCLE, first, None)
    second = connection.domainEventRegisterAny(domain, LIFECYCLE, lambda *_: calls.append("second"), None)
    _toggle(domain)
    assert bridge.run(until=lambda: len(calls) == 2, timeout=PATIENCE)
    bridge.run(timeout=0.01)
    connection.domainEventDeregisterAny(registered)
    assert calls == ["first", "first"]


def _toggle(domain: Any) -> None:
    """Two events."""
    domain.suspend()
    domain.resume()
