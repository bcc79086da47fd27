"""What is asked of libxl 4.1 besides events: the domains, requests, and errors that say what to do.  Over the project's
stand-in for it."""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Iterator

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl41 import Context
from eventbridge.adapters.hypervisors.xen.libxl41 import types as shapes
from eventbridge.adapters.hypervisors.xen.libxl41.context import ERROR_INVAL, reason
from eventbridge.adapters.hypervisors.xen.libxl41.waiter import EventSource
from eventbridge.adapters.hypervisors.xen.support.library import Generation, generation, libxl
from eventbridge.errors import HypervisorError, HypervisorUnavailable
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.model import State
from eventbridge.testing import SteppingHost
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41, table
from tests.support.xen.standin import CRASH, SUSPEND, XenStandIn

URI = "libxl:///"


class Told:
    """What a waiter has told."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, int]] = []

    def shut_down(self, domid: int, reason: int) -> None:
        self.facts.append((f"shut down {reason}", domid))

    def gone(self, domid: int) -> None:
        self.facts.append(("gone", domid))


@pytest.fixture
def context(xen: XenStandIn) -> Iterator[Context]:
    context = Context()
    yield context
    context.close()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def source(xen: XenStandIn, told: Told) -> Iterator[EventSource]:
    """A waiter of its own, drained by the test."""
    context = Context(teardown=lambda: source.stop())
    source = EventSource(context, told)
    source.wait()
    yield source
    context.close()


def test_the_shapes_are_those_of_4_1() -> None:
    """xen.md 2."""
    assert {shape: ctypes.sizeof(shape) for shape in shapes.SIZES} == shapes.SIZES
    assert (shapes.DomInfo.domid.offset, shapes.DomInfo.shutdown_reason.offset) == (16, 24)


def test_what_is_loaded_is_of_the_first_generation(xen: XenStandIn) -> None:
    assert generation(libxl()) is Generation.WAITING_FD
    assert lookup.find(URI).version().startswith("libxenlight.so.1.0 (4.1:")


def test_domains_are_listed_with_what_libxl_knows_of_them(xen: XenStandIn, context: Context) -> None:
    made = xen.create(3, "web")
    xen.shutdown(3, reason=CRASH)
    info = context.info(3)
    assert (info.domain.name, info.domain.uuid, info.domain.id) == ("web", str(made.uuid), 3)
    assert info.state is State.CRASHED
    assert info.vcpus == 1
    assert [found.domid for found in context.list()] == [0, 3]
    assert [reason(found) for found in context.list()] == [None, CRASH]


def test_no_such_domain_is_one_clear_error(context: Context) -> None:
    with pytest.raises(HypervisorError, match="there is no domain 99") as caught:
        context.info(99)
    assert (caught.value.operation, caught.value.domain) == ("info", "99")


def test_a_request_is_done_when_it_returns(xen: XenStandIn, context: Context) -> None:
    with Bridge("select") as bridge:
        xen.create(4)
        context.request(bridge, "pause", 4)
        assert context.info(4).state is State.PAUSED
        context.request(bridge, "unpause", 4)
        context.request(bridge, "reboot", 4)
        assert xen.read("/local/domain/4/control/shutdown") == "reboot"
        context.request(bridge, "destroy", 4)
        assert context.one(4) is None
        with pytest.raises(HypervisorError, match="cannot destroy domain 4: no such domain"):
            context.request(bridge, "destroy", 4)
        xen.guests.pop(4)


def test_a_request_on_the_running_loop_s_thread_is_refused(xen: XenStandIn, context: Context) -> None:
    """xen.md 1.15 and 2: it would stand still."""
    refused: list[str] = []
    xen.create(4)

    def ask(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        try:
            context.request(bridge, "destroy", 4)
        except HypervisorError as error:
            refused.append(str(error))

    with Bridge("select") as bridge:
        bridge.add_timeout(0, ask)
        bridge.run(until=lambda: bool(refused), timeout=PATIENCE)
    assert "on the loop's thread, which would stand still" in refused[0]
    assert context.one(4) is not None


def test_a_second_waiter_on_one_ctx_is_refused_and_freed(source: EventSource) -> None:
    """xen.md 2: EEXIST, with the waiter already filled in."""
    waiters = libxl41.counts().waiters
    again = source._waiter
    with pytest.raises(HypervisorError, match="cannot wait for the end of domains"):
        source.wait()
    assert source._waiter is again
    assert libxl41.counts().waiters == waiters


def test_an_event_that_is_queued_when_waiting_stops_is_stale_and_harmless(
    xen: XenStandIn, source: EventSource, told: Told
) -> None:
    """xen.md 2: stop_waiting does not purge."""
    xen.create(1)
    source.followed[1] = None
    source.stop()
    source.drain(1)
    assert told.facts == []
    assert libxl41.counts().events == 0


def test_only_domains_that_changed_are_asked_about(xen: XenStandIn, source: EventSource, told: Told) -> None:
    """One list answers for the others: an event costs no call for each idle domain."""
    asked: list[int] = []
    given = source._context.library.libxl_event_get_domain_death_info

    def counted(pointer: object, domid: int, event: object, info: object) -> int:
        asked.append(domid)
        answer: int = given(pointer, domid, event, info)
        return answer

    source._context.library._functions["libxl_event_get_domain_death_info"] = counted
    xen.create_many(range(1, 51))
    source.followed.update(dict.fromkeys(range(1, 51)))
    with Bridge(SteppingHost()) as bridge:
        bridge.add_source(source)
        host = bridge.host
        assert isinstance(host, SteppingHost)
        xen.shutdown(7, reason=SUSPEND)
        while len(told.facts) < 1:
            host.step(PATIENCE)
        xen.die(9)
        while len(told.facts) < 2:
            host.step(PATIENCE)
        bridge.remove_source(source)
        host.step_until_idle()
    assert told.facts == [("shut down 2", 7), ("gone", 9)]
    assert asked == [9], "the list says by itself how 7 is"


def test_a_domain_that_has_shut_down_and_is_marked_as_running_still_has_shut_down(
    xen: XenStandIn, source: EventSource, told: Told
) -> None:
    """libxl_event_get_domain_death_info of the true 4.1 says ERROR_INVAL of it, and is never asked again."""
    source._context.library._functions["libxl_event_get_domain_death_info"] = lambda *arguments: ERROR_INVAL
    xen.create(1)
    source.followed[1] = None
    xen.table.set_flags(1, table.RUNNING | table.SHUTDOWN | CRASH << table.REASON_SHIFT)
    source.drain(1)
    assert told.facts == [(f"shut down {CRASH}", 1)]


def test_a_domain_that_the_list_leaves_out_is_not_gone_for_that(
    xen: XenStandIn, source: EventSource, told: Told
) -> None:
    """4.1 lists 1024 domains at most: of those beyond it says itself whether they live."""
    source._context.list = list  # type: ignore[method-assign,assignment]  # an empty one, for the moment
    xen.create(1)
    source.followed[1] = None
    source.drain(1)
    assert told.facts == []
    assert source.followed == {1: None}


def test_nothing_is_asked_of_a_context_that_is_closed(context: Context) -> None:
    context.close()
    context.close()
    with pytest.raises(HypervisorError, match="it was closed; open another"):
        context.list()


def test_the_last_one_out_frees_the_ctx(context: Context) -> None:
    with context.inside:
        closing = threading.Thread(target=context.close)
        closing.start()
        closing.join(PATIENCE)
        assert libxl41.counts().ctxs == 1
    assert libxl41.counts().ctxs == 0


def test_a_version_that_is_refused_says_so(xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """xen.md 2: -2."""
    monkeypatch.setattr(shapes, "LIBXL_VERSION", 1)
    with pytest.raises(HypervisorError, match=r"libxenlight.so.1.0 refuses the version") as caught:
        Context()
    assert caught.value.code == -2


def test_a_host_that_is_no_xen_host_says_what_to_look_at(xen: XenStandIn) -> None:
    """xen.md 2: -3; here for want of permission."""
    xen.refuse(errno.EPERM, opening=True)
    with pytest.raises(HypervisorError, match="is this a Xen host") as caught:
        Context()
    assert caught.value.code == -3
    xen.refuse(0)


def test_a_library_of_neither_generation_is_named(xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBRIDGE_LIBXL", "libc.so.6")
    with Bridge("select") as bridge, pytest.raises(HypervisorUnavailable, match=r"libc\.so\.6 is no libxl"):
        lookup.find(URI).subscribe(URI, bridge, lambda event: None)


def test_a_path_that_is_no_library_says_what_was_tried(xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBRIDGE_LIBXL", "/nowhere/libxenlight.so")
    with (
        Bridge("select") as bridge,
        pytest.raises(HypervisorUnavailable, match=r"EVENTBRIDGE_LIBXL=/nowhere/libxenlight.so.*unset it"),
    ):
        lookup.find(URI).subscribe(URI, bridge, lambda event: None)
