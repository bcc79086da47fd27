"""What can be asked of a domain, on real QEMUs: each operation does what it says, and refuses in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventbridge.adapters.hypervisors.qmp import driver
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor import lookup, operations
from eventbridge.hypervisor.model import Connection, ConsoleKind, DomainRef, State
from tests.support.patience import PATIENCE
from tests.support.qmp_qemu import INCOMING, MACHINE, NONE, Start
from tests.support.qmp_rig import Rig

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"


def test_it_is_the_driver_of_its_scheme() -> None:
    assert lookup.find("qmp+unix:///run/qmp") is driver
    assert lookup.find("qmp+tcp://localhost:4444") is driver
    assert driver.version().startswith("QMP")


def test_it_does_operations_of_the_table_and_no_others(rig: Rig, start: Start) -> None:
    session = rig.open(start("a", *NONE).uri).session
    assert session.operations <= set(operations.OPERATIONS)
    assert {"list", "info", "suspend", "destroy", "migrate", "save"} <= session.operations


def test_the_domain_is_the_machine_by_its_own_name_and_uuid(rig: Rig, start: Start) -> None:
    qemu = start("a", *MACHINE, "-name", "guest=mail", "-uuid", UUID.upper())
    (info,) = rig.open(qemu.uri).ask("list")
    assert info.domain == DomainRef("mail", UUID, qemu.pid)
    assert (info.state, info.vcpus, info.memory, info.persistent) == (State.PAUSED, 1, 16 * 1024, False)


def test_a_machine_without_a_name_is_called_as_its_socket(rig: Rig, start: Start) -> None:
    """And a UUID of zeros is none."""
    info = rig.open(start("db", *NONE).uri).ask("info")
    assert (info.domain.name, info.domain.uuid) == ("db", None)
    assert (info.vcpus, info.memory) == (None, None), "there is no machine"


def test_start_suspend_and_resume_are_what_qemu_then_is(each_rig: Rig, start: Start) -> None:
    qemu = start()
    opened = each_rig.open(qemu.uri)
    for operation, status in (
        ("start", "running"),
        ("suspend", "paused"),
        ("resume", "running"),
        ("resume", "running"),
    ):
        assert opened.ask(operation) is None
        assert qemu.side.status == status
    assert opened.ask("info").state is State.RUNNING
    assert opened.said == ["started booted", "suspended", "resumed"]
    assert [event.sequence for event in opened.events] == [1, 2, 3]
    assert {event.domain for event in opened.events} == {DomainRef("a", None, qemu.pid)}


def test_what_runs_cannot_be_started(rig: Rig, start: Start) -> None:
    opened = rig.open(start("a", *NONE).uri)
    error = opened.begin("start").error()
    assert isinstance(error, HypervisorError)
    assert str(error) == "cannot start a: it runs already"
    assert (error.operation, error.domain) == ("start", "a")
    assert not opened.events


def test_started_paused_it_stays_so(rig: Rig, start: Start) -> None:
    qemu = start()
    opened = rig.open(qemu.uri)
    assert opened.ask("start", paused=True) is None
    assert qemu.side.status == "prelaunch"
    assert not opened.events


@pytest.mark.parametrize("operation", ["start", "suspend", "resume", "migrate", "save"])
def test_who_waits_for_a_migration_can_do_nothing_else(rig: Rig, start: Start, operation: str) -> None:
    qemu = start("a", *MACHINE, *INCOMING)
    opened = rig.open(qemu.uri)
    assert opened.ask("info").state is State.NO_MACHINE
    error = opened.begin(operation, path="/tmp/never-written", to="tcp:127.0.0.1:1").error()
    assert isinstance(error, HypervisorError)
    assert "migrat" in str(error)
    assert qemu.side.status == "inmigrate"
    assert not opened.events
    assert not Path("/tmp/never-written").exists()


def test_shutdown_asks_and_reboot_resets(rig: Rig, start: Start) -> None:
    """A reset of what is paused leaves it paused, and the stream says so."""
    qemu = start()
    opened = rig.open(qemu.uri)
    assert opened.ask("shutdown") is None
    assert opened.ask("reboot") is None
    assert opened.said == ["other powerdown", "rebooted host", "suspended reset"]
    assert qemu.side.status == "prelaunch"
    opened.ask("resume")
    assert opened.ask("reboot") is None
    opened.told("started booted")
    assert opened.said[4:] == ["rebooted host"]


def test_destroy_is_done_when_it_has_ended(each_rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    answered: list[int] = []
    destroying = opened.begin("destroy")
    opened.on_event = lambda event: answered.append(len(destroying.answers))
    assert destroying.value() is None
    assert opened.story == ["shutdown host", "stopped destroyed", "connection_lost eof"]
    assert answered == [0, 0, 1], "before the connection's end is told, which loses what is under way"
    assert isinstance(opened.begin("info").error(), ConnectionLost)
    qemu.process.wait(PATIENCE)


def test_a_domain_is_found_by_uuid_then_name_then_id(rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE, "-name", "mail", "-uuid", UUID)
    opened = rig.open(qemu.uri)
    for right in (
        DomainRef(None, UUID),
        DomainRef(None, UUID.upper()),
        DomainRef("mail"),
        DomainRef(None, id=qemu.pid),
    ):
        assert opened.ask("info", right).domain.name == "mail"
    for wrong in (DomainRef("mail", UUID.replace("4", "5")), DomainRef("news", id=qemu.pid), DomainRef(None, id=1)):
        error = opened.begin("suspend", wrong).error()
        assert isinstance(error, NoSuchDomain)
        assert "only mail" in str(error)
    assert not opened.events


def test_the_consoles_are_the_ptys_and_sockets_of_its_chardevs(rig: Rig, start: Start, directory: Path) -> None:
    socket = directory / "tty"
    qemu = start("a", *MACHINE, "-serial", "pty", "-serial", f"unix:{socket},server=on,wait=off", "-serial", "null")
    opened = rig.open(qemu.uri)
    first, second = opened.ask("console_info"), opened.ask("console_info", kind=ConsoleKind.SERIAL, number=1)
    assert (first.connection, first.devid) == (Connection.PTY, 0)
    assert first.tty is not None and Path(first.tty).is_char_device()
    assert (second.connection, second.tty, second.devid) == (Connection.SOCKET, str(socket), 1)
    error = opened.begin("console_info", number=2).error()
    assert str(error).startswith("cannot console info a: it has no console 2: 2 of its chardevs")
    assert "serial ones only" in str(opened.begin("console_info", kind=ConsoleKind.PV).error())


def test_many_at_a_time_are_each_answered_once(each_rig: Rig, start: Start) -> None:
    """Requests overlap on one socket, and each gets its own answer."""
    opened = each_rig.open(start("a", *NONE).uri)
    asked = [opened.begin(operation) for operation in ("info", "list", "console_info", "reboot") * 50]
    for each in asked:
        each_rig.until(lambda each=each: each.done)
    assert all(len(each.answers) == 1 for each in asked)
    infos = [each.answers[0][0] for each in asked if each.request.operation == "info"]
    lists = [each.answers[0][0] for each in asked if each.request.operation == "list"]
    assert [[info] for info in infos] == lists
    refused = [each.answers[0][1] for each in asked if each.request.operation == "console_info"]
    assert all("it has no console 0" in str(error) for error in refused)
    assert opened.said == ["rebooted host"] * 50
