"""Where a domain's consoles are: the same from libxl and from xenstore, over libxenstore and by the wire protocol."""

from __future__ import annotations

import errno
import os
import tty
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.console import console_info
from eventbridge.adapters.hypervisors.xen.console import consoles as all_consoles
from eventbridge.adapters.hypervisors.xen.libxl import Context, consoles
from eventbridge.adapters.hypervisors.xen.xenstore import Store, open_store
from eventbridge.connection.console_session import open_console
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import Connection, ConsoleInfo, ConsoleKind
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

DOMID = 7
HOME = f"/local/domain/{DOMID}"
BACKEND = f"/local/domain/0/backend/console/{DOMID}"

# As libxl writes them: a primary console, an extra one, a channel over a socket, a serial port, an Arm guest's UART.
NODES = {
    f"{HOME}/console/backend": f"{BACKEND}/0",
    f"{HOME}/console/backend-id": "0",
    f"{HOME}/console/port": "5",
    f"{HOME}/console/ring-ref": "262142",
    f"{HOME}/console/output": "pty",
    f"{HOME}/console/tty": "/dev/pts/71",
    f"{BACKEND}/0/state": "1",
    f"{HOME}/device/console/1/backend": f"{BACKEND}/1",
    f"{HOME}/device/console/1/backend-id": "0",
    f"{HOME}/device/console/1/port": "6",
    f"{HOME}/device/console/1/output": "pty",
    f"{HOME}/device/console/1/tty": "/dev/pts/72",
    f"{BACKEND}/1/state": "4",
    f"{HOME}/device/console/2/backend": f"{BACKEND}/2",
    f"{HOME}/device/console/2/backend-id": "0",
    f"{BACKEND}/2/connection": "socket",
    f"{BACKEND}/2/state": "4",
    f"{HOME}/serial/0/tty": "/dev/pts/73",
    f"{HOME}/vuart/0/tty": "/dev/pts/74",
}
PRIMARY = ConsoleInfo(
    kind=ConsoleKind.PV,
    devid=0,
    frontend=f"{HOME}/console",
    frontend_domid=DOMID,
    backend=f"{BACKEND}/0",
    backend_domid=0,
    state=1,
    event_channel=5,
    ring_ref=262142,
    output="pty",
    tty="/dev/pts/71",
    connection=Connection.PTY,
)
Ask: TypeAlias = Callable[..., ConsoleInfo]


@pytest.fixture
def guest(xen: XenStandIn) -> XenStandIn:
    """A Xen with a domain that has a console of each kind."""
    xen.create(DOMID, "web")
    xen.write_many(NODES)
    return xen


@pytest.fixture(params=["libxenstore", "wire"])
def store(request: pytest.FixtureRequest, guest: XenStandIn) -> Iterator[Store]:
    store = open_store() if request.param == "libxenstore" else open_store(str(guest.socket))
    yield store
    store.close()


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge("select") as bridge:
        yield bridge


@pytest.fixture(params=["libxl", "xenstore"])
def ask(request: pytest.FixtureRequest, store: Store, bridge: Bridge) -> Iterator[Ask]:
    """``ask(domid, kind, number)``, of either."""
    if request.param == "xenstore":
        yield lambda *which: console_info(store, *which)
    else:
        context = Context(bridge)
        yield lambda *which: consoles.console_info(context, store, *which)
        context.close()
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


def test_the_primary_console_is_told_from_both_its_ends(ask: Ask) -> None:
    """xen.md 5."""
    assert ask(DOMID) == PRIMARY


@pytest.mark.parametrize(
    "kind, number, tty, state",
    [
        (ConsoleKind.PV, 1, "/dev/pts/72", 4),
        (ConsoleKind.SERIAL, 0, "/dev/pts/73", None),
        (ConsoleKind.VUART, 0, "/dev/pts/74", None),
    ],
)
def test_the_others_are_told_by_kind_and_number(
    ask: Ask, kind: ConsoleKind, number: int, tty: str, state: int | None
) -> None:
    """xen.md 5: serial, paravirtual, extra."""
    info = ask(DOMID, kind, number)
    assert (info.kind, info.devid, info.tty, info.state) == (kind, number, tty, state)
    assert info.connection is Connection.PTY


def test_a_console_over_a_socket_has_no_tty(ask: Ask) -> None:
    info = ask(DOMID, ConsoleKind.PV, 2)
    assert (info.connection, info.tty) == (Connection.SOCKET, None)


def test_all_of_a_domain_s_are_found(store: Store) -> None:
    found = [(info.kind, info.devid) for info in all_consoles(store, DOMID)]
    assert found == [
        (ConsoleKind.PV, 0),
        (ConsoleKind.SERIAL, 0),
        (ConsoleKind.PV, 1),
        (ConsoleKind.PV, 2),
        (ConsoleKind.VUART, 0),
    ]


def test_a_console_that_is_not_there_names_those_that_are(ask: Ask) -> None:
    with pytest.raises(
        HypervisorError, match="domain 7 has no serial console 3; it has: pv 0, serial 0, pv 1"
    ) as caught:
        ask(DOMID, ConsoleKind.SERIAL, 3)
    assert caught.value.code == errno.ENOENT


def test_no_such_domain_is_one_clear_error(ask: Ask) -> None:
    with pytest.raises(HypervisorError, match="there is no domain 99"):
        ask(99)


def test_what_the_guest_writes_comes_through_the_bridge_and_back(guest: XenStandIn, bridge: Bridge, ask: Ask) -> None:
    """The tty is a real pty, whose master is the guest."""
    master, slave = os.openpty()
    tty.setraw(slave)  # as xenconsoled does
    guest.write(f"{HOME}/console/tty", os.ttyname(slave))
    got, typed = bytearray(), bytearray()
    os.write(master, b"login: ")  # before anybody listens
    with open_console(bridge, ask(DOMID), got.extend) as stream:
        reading = bridge.add_handle(master, 1, lambda id, fd, events, opaque: typed.extend(os.read(fd, 4096)))
        stream.write(b"root\x04")
        assert bridge.run(until=lambda: typed == b"root\x04" and got == b"login: ", timeout=PATIENCE)
        bridge.remove_handle(reading)
    bridge.run(timeout=0.01)
    os.close(master)
    os.close(slave)


def test_libxl_is_not_asked_on_the_running_loop_s_thread(guest: XenStandIn, bridge: Bridge) -> None:
    """xen.md 1.15."""
    context, store = Context(bridge), open_store()
    refused: list[str] = []

    def ask(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        try:
            consoles.console_info(context, store, DOMID)
        except HypervisorError as error:
            refused.append(str(error))

    bridge.add_timeout(0, ask)
    assert bridge.run(until=lambda: bool(refused), timeout=PATIENCE)
    assert "on the loop's thread" in refused[0]
    context.close()
    store.close()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
