"""What can be asked of a Xen host: the same of either generation of libxl, and as far as it goes of xenstored alone.

Over the real xenstored; libxl 4.2 and later is the real one, 4.1 the project's stand-in, the hypervisor a stand-in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

import pytest

from eventbridge import Bridge
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import ConsoleKind, DomainRef, State
from eventbridge.hypervisor.operations import OPERATIONS
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41, table
from tests.support.xen.asking import Asked, Asking
from tests.support.xen.standin import CRASH, SUSPEND, XenStandIn

# Way: the URI, and is libxl to be 4.1's?
WAYS = {"libxl": ("libxl:///", False), "libxl 4.1": ("libxl:///", True), "xenstore": ("xenstore:///", False)}
LIBXL = ("libxl", "libxl 4.1")
HOSTS = ("asyncio", "libuv", "select")
WEB, MAIL, OTHER = (UUID(int=number) for number in (1, 2, 3))
GUEST_ASKED = {"shutdown", "reboot"}
LOOKS = {"list", "info", "console_info"}


@pytest.fixture(params=HOSTS)
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    errors: list[BaseException] = []
    with Bridge(request.param, on_error=lambda error, context: errors.append(error)) as bridge:
        yield bridge
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), "something is still registered"
    assert errors == []


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> str:
    uri, old = WAYS[request.param]
    if old:
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(libxl41.stand_in()))
    return uri


@pytest.fixture
def asking(xen: XenStandIn, way: str, bridge: Bridge) -> Iterator[Asking]:
    xen.create(1, "web", WEB)
    xen.create(2, "mail", MAIL)
    asking = Asking(bridge, way)
    yield asking
    asking.session.close()


only_libxl = pytest.mark.parametrize("way", LIBXL, indirect=True)
only_new = pytest.mark.parametrize("way", ["libxl"], indirect=True)
only_old = pytest.mark.parametrize("way", ["libxl 4.1"], indirect=True)
only_store = pytest.mark.parametrize("way", ["xenstore"], indirect=True)


def ref(name: str | None, uuid: UUID | None = None, id: int | None = None) -> DomainRef:
    return DomainRef(name, None if uuid is None else str(uuid), id)


# -- what there is


def test_every_operation_it_offers_is_one_that_there_is(asking: Asking) -> None:
    assert asking.session.operations <= OPERATIONS.keys()
    assert asking.session.operations >= LOOKS | GUEST_ASKED
    assert not asking.session.operations & {"start", "define", "undefine", "managed_save"}, "Xen defines no domains"


@only_store
def test_xenstored_alone_can_only_pass_on_what_a_guest_does_itself(asking: Asking) -> None:
    assert asking.session.operations == LOOKS | GUEST_ASKED


def test_all_domains_are_listed_with_their_names_and_are_not_persistent(asking: Asking) -> None:
    found = {info.domain.name: info for info in asking.ask("list")}
    assert set(found) == {"Domain-0", "web", "mail"}
    assert found["web"].domain == ref("web", WEB, 1)
    assert (found["web"].state, found["web"].persistent) == (State.RUNNING, False)


def test_a_domain_that_has_ended_is_not_listed_and_not_there(xen: XenStandIn, asking: Asking) -> None:
    xen.die(1)
    assert {info.domain.name for info in asking.ask("list")} == {"Domain-0", "mail"}
    error = asking.refused("info", ref("web", WEB, 1))
    assert isinstance(error, NoSuchDomain)
    assert "there is no domain web" in str(error)


@only_libxl
def test_info_says_how_it_is(xen: XenStandIn, asking: Asking) -> None:
    info = asking.ask("info", "web")
    assert (info.domain, info.state, info.vcpus, info.memory) == (ref("web", WEB, 1), State.RUNNING, 1, 262144)
    xen.shutdown(2, reason=CRASH)
    assert asking.ask("info", "mail").state is State.CRASHED


@only_store
def test_info_from_xenstored_says_what_the_toolstack_wrote(xen: XenStandIn, asking: Asking) -> None:
    assert (asking.ask("info", "web").memory, asking.ask("info", "web").vcpus) == (None, None)
    xen.write_many(
        {
            "/local/domain/1/memory/target": "65536",
            "/local/domain/1/memory/static-max": "131072",
            "/local/domain/1/cpu/0/availability": "online",
            "/local/domain/1/cpu/1/availability": "offline",
        }
    )
    info = asking.ask("info", "web")
    assert (info.memory, info.max_memory, info.vcpus, info.cpu_time) == (65536, 131072, 1, None)


def test_a_console_is_described_and_one_that_is_not_is_refused_with_those_that_are(
    xen: XenStandIn, asking: Asking
) -> None:
    xen.write_many({"/local/domain/1/console/port": "3", "/local/domain/1/console/tty": "/dev/pts/7"})
    info = asking.ask("console_info", "web")
    assert (info.kind, info.devid, info.tty, info.event_channel) == (ConsoleKind.PV, 0, "/dev/pts/7", 3)
    error = asking.refused("console_info", "web", kind="serial", number=1)
    assert "no serial console 1; it has: pv 0" in str(error)
    assert (error.operation, error.domain) == ("console_info", "web")  # type: ignore[attr-defined]
    assert "names no console" in str(asking.refused("console_info", "web", kind="screen"))


# -- who is meant


@pytest.mark.parametrize(
    "named",
    [
        ref("web", WEB, 1),
        ref(None, WEB),
        ref(None, UUID(str(WEB).upper())),
        ref("web"),
        ref(None, None, 1),
        ref("a name it had", WEB),
        ref("web", WEB, 2),
        ref("web", WEB, 30000),
        ref("web", None, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("bridge", ["select"], indirect=True)
def test_a_domain_is_found_by_whatever_is_known_of_it(asking: Asking, named: DomainRef) -> None:
    """A UUID is its own for good, an id and a name are not."""
    assert asking.ask("info", named).domain == ref("web", WEB, 1)


@pytest.mark.parametrize(
    "named", [ref("web", OTHER, 1), ref("web", OTHER), ref("nobody"), ref(None, None, 9), ref(None)], ids=str
)
@pytest.mark.parametrize("bridge", ["select"], indirect=True)
def test_one_that_is_not_there_is_never_another(asking: Asking, named: DomainRef) -> None:
    error = asking.refused("shutdown", named)
    assert isinstance(error, NoSuchDomain)
    assert "there is no domain" in str(error)


def test_nothing_is_done_to_who_has_a_dead_domains_id_now(xen: XenStandIn, asking: Asking) -> None:
    before = asking.ask("info", "web").domain
    xen.die(1)
    xen.create(1, "another", OTHER)
    for operation in sorted(asking.session.operations & {"shutdown", "reboot", "destroy", "suspend", "resume"}):
        error = asking.refused(operation, before)
        assert isinstance(error, NoSuchDomain)
        assert "its id 1 is now another's" in str(error)
    assert xen.table.flags(1) == table.RUNNING
    assert xen.read("/local/domain/1/control/shutdown") is None


def test_domain_0_is_looked_at_and_left_alone(xen: XenStandIn, asking: Asking) -> None:
    assert asking.ask("info", 0).domain.name == "Domain-0"
    for operation in sorted(asking.session.operations & {"suspend", "resume", "destroy", "save"} | GUEST_ASKED):
        assert "domain 0 is the host itself" in str(asking.refused(operation, 0, path="/nowhere"))
    assert xen.table.flags(0) == table.RUNNING


# -- what is done


@only_libxl
def test_suspend_and_resume_once_each_however_often_they_are_asked(xen: XenStandIn, asking: Asking) -> None:
    """Xen counts pauses, and refuses to unpause what runs."""
    for _ in range(2):
        assert asking.ask("suspend", "web") is None
        assert asking.ask("info", "web").state is State.PAUSED
    for _ in range(2):
        assert asking.ask("resume", "web") is None
        assert asking.ask("info", "web").state is State.RUNNING
    assert xen.table.flags(2) == table.RUNNING
    asking.expect("web suspended (paused)", "web resumed")


@only_libxl
def test_destroy_ends_it_and_nobody_else(xen: XenStandIn, asking: Asking) -> None:
    assert asking.ask("destroy", "web") is None
    assert (xen.table.present(1), xen.table.present(2)) == (False, True)
    asking.expect("web stopped (destroyed)")
    assert isinstance(asking.refused("destroy", "web"), NoSuchDomain)


@pytest.mark.parametrize(("operation", "word"), [("shutdown", "poweroff"), ("reboot", "reboot")])
def test_a_guest_is_asked_to_shut_down_or_to_reboot(xen: XenStandIn, asking: Asking, operation: str, word: str) -> None:
    path = "/local/domain/1/control/shutdown"
    asked = asking.begin(operation, "web")
    asking.until(lambda: xen.read(path) == word)
    xen.write(path, "")  # the guest has heard it
    assert asking.wait(asked) is None
    assert xen.read("/local/domain/2/control/shutdown") is None
    assert xen.table.flags(1) == table.RUNNING, "what the guest does then is its own affair"


@only_new
def test_a_deaf_guest_is_waited_for_no_longer_than_whoever_asked(xen: XenStandIn, asking: Asking) -> None:
    """libxl waits for it for a minute, and holds its domain meanwhile."""
    asked = asking.begin("shutdown", "web")
    asking.until(lambda: xen.read("/local/domain/1/control/shutdown") == "poweroff")
    asking.session.given_up(asked.request)
    asking.until(asked.done.is_set)
    assert "aborted" in str(asked.error)
    assert asking.ask("info", "web").state is State.RUNNING


@only_new
def test_a_guest_that_stopped_to_be_saved_goes_on(xen: XenStandIn, asking: Asking) -> None:
    xen.shutdown(1, reason=SUSPEND)
    asking.expect("web suspended (guest)")
    assert asking.ask("info", "web").state is State.SUSPENDED
    assert asking.ask("resume", "web") is None
    assert asking.ask("info", "web").state is State.RUNNING
    asking.expect("web suspended (guest)", "web resumed")


@only_old
def test_4_1_says_that_it_cannot_undo_a_guests_own_stop(xen: XenStandIn, asking: Asking) -> None:
    xen.shutdown(1, reason=SUSPEND)
    assert "libxl 4.1 cannot undo" in str(asking.refused("resume", "web"))


# -- what goes wrong


@only_libxl
def test_a_refusal_says_what_was_tried_on_whom_and_what_xen_said(xen: XenStandIn, asking: Asking) -> None:
    asking.ask("info", "web")
    asking.bridge.run(timeout=0.01)
    asked = Asked("destroy", ref("web", WEB, 1), {}, None)
    xen.refuse()
    asking.session.begin(asked.request)
    asking.until(asked.done.is_set)
    xen.refuse(0)
    assert isinstance(asked.error, HypervisorError)
    assert not isinstance(asked.error, NoSuchDomain)
    assert (asked.error.operation, asked.error.domain) == ("destroy", "web")
    assert "web" in str(asked.error)
    assert asked.error.code == -3
    assert xen.table.present(1)


def test_many_at_once_are_each_answered_once(xen: XenStandIn, asking: Asking) -> None:
    xen.create_many(range(10, 60))
    asked = [asking.begin("info", domid) for domid in range(10, 60)]
    asking.until(lambda: all(one.done.is_set() for one in asked))
    assert [one.value().domain.id for one in asked] == list(range(10, 60))
    assert all(len(one.ends) == 1 for one in asked)


# -- the connection's end


def test_after_close_everything_is_refused(asking: Asking) -> None:
    asking.session.close()
    error = asking.refused("info", "web")
    assert isinstance(error, ConnectionLost)
    assert "cannot info web: the connection was closed" in str(error)


def test_a_lost_xenstored_refuses_what_is_under_way_and_what_comes(xen: XenStandIn, asking: Asking) -> None:
    xen.freeze()
    asked = [asking.begin("info", ref("web", WEB, 1)), asking.begin("shutdown", ref("mail", MAIL, 2))]
    asking.settle()
    assert not any(one.done.is_set() for one in asked)
    xen.kill()
    asking.until(lambda: all(one.done.is_set() for one in asked))
    assert all(isinstance(one.error, ConnectionLost) for one in asked), [one.error for one in asked]
    assert "info web" in str(asked[0].error)
    asking.until(lambda: "- connection_lost (eof)" in asking.told())
    assert isinstance(asking.refused("info", "mail"), ConnectionLost)
    asking.settle()
    assert all(len(one.ends) == 1 for one in asked)


def test_a_frozen_xenstored_keeps_its_callers_alone_and_neither_the_loop_nor_close(
    xen: XenStandIn, asking: Asking
) -> None:
    xen.freeze()
    asked = [asking.begin("info", ref("web", WEB, 1)), asking.begin("shutdown", ref("mail", MAIL, 2))]
    ticks: list[int] = []
    tick = asking.bridge.add_timeout(1, lambda id, opaque: ticks.append(id))
    asking.until(lambda: len(ticks) >= 20)
    asking.bridge.remove_timeout(tick)
    asking.session.close()
    assert all(isinstance(one.error, ConnectionLost) for one in asked)
    assert asking.told() == []
    xen.thaw()


def test_requests_may_come_from_any_thread_while_it_closes(asking: Asking) -> None:
    asked: list[Asked] = []
    go = threading.Event()

    def ask() -> None:
        go.wait(PATIENCE)
        for _ in range(50):
            asked.append(asking.begin("info", ref("web", WEB, 1)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    asking.session.close()
    for thread in threads:
        thread.join(PATIENCE)
    asking.until(lambda: all(one.done.is_set() for one in asked))
    assert len(asked) == 150
    assert all(one.error is None or isinstance(one.error, ConnectionLost) for one in asked)
