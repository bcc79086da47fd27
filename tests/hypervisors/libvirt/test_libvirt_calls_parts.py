"""What sessions are made of: tables, the calls that depend on the driver, consoles; with stand-ins for objects of
libvirt's where libvirt cannot be brought to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt import domains, operations
from eventbridge.adapters.hypervisors.libvirt.connection_pool import Shared
from eventbridge.adapters.hypervisors.libvirt.consoles import choose, consoles
from eventbridge.adapters.hypervisors.libvirt.domains import state_of
from eventbridge.adapters.hypervisors.libvirt.errors import LOSSES, meaning
from eventbridge.adapters.hypervisors.libvirt.operations import Asked
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import Connection, ConsoleKind, DomainRef, State
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted
from tests.hypervisors.libvirt.calls_rig import Answer, Refusal
from tests.support.watched import DOMAIN, Connect

NO_SUPPORT = Refusal(libvirt.VIR_ERR_NO_SUPPORT)


# -- states


def test_every_state_of_libvirts_has_one_of_ours() -> None:
    names = [
        name for name in dir(libvirt) if name.startswith("VIR_DOMAIN_") and name.removeprefix("VIR_DOMAIN_") in _STATES
    ]
    assert len(names) == len(_STATES)
    assert {name: state_of(getattr(libvirt, f"VIR_DOMAIN_{name}"), 0) for name in _STATES} == _STATES


_STATES = {
    "NOSTATE": State.RUNNING,
    "RUNNING": State.RUNNING,
    "BLOCKED": State.BLOCKED,
    "PAUSED": State.PAUSED,
    "SHUTDOWN": State.SHUTDOWN,
    "SHUTOFF": State.STOPPED,
    "CRASHED": State.CRASHED,
    "PMSUSPENDED": State.PM_SUSPENDED,
}


def test_a_reason_decides_where_a_state_alone_would_mislead() -> None:
    assert state_of(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED) is State.CRASHED
    assert state_of(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN) is State.SHUTDOWN
    assert state_of(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION) is State.PAUSED
    assert state_of(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED) is State.STOPPED
    assert state_of(999, 999) is State.RUNNING, "a state of a libvirt to come is of a domain that is there"


class WithoutStatistics:
    """A stand-in for a connection whose driver has none, a real one otherwise; ``vanish`` is called after its list."""

    def __init__(self, real: Any, vanish: Callable[[], None]) -> None:
        self._real = real
        self._vanish = vanish

    def getAllDomainStats(self, *arguments: int) -> Any:
        raise NO_SUPPORT

    def listAllDomains(self, flags: int = 0) -> Any:
        found = self._real.listAllDomains(flags)
        self._vanish()
        return found


def test_without_statistics_each_is_asked_and_one_that_vanishes_meanwhile_is_left_out(
    bridge: Bridge, connect: Connect
) -> None:
    real = connect("test:///default")
    gone = real.createXML(DOMAIN.format("gone"))
    with_them = domains.every(real)
    assert {each.domain.name for each in with_them} == {"test", "gone"}
    assert domains.every(WithoutStatistics(real, lambda: None)) == with_them
    steps = iter([gone.destroy])
    assert [each.domain.name for each in domains.every(WithoutStatistics(real, lambda: next(steps, int)()))] == ["test"]


# -- what errors mean


@pytest.mark.parametrize(
    ("code", "alive", "kind"),
    [
        *((code, False, ConnectionLost) for code in sorted(LOSSES)),
        *((code, True, HypervisorError) for code in sorted(LOSSES)),
        (libvirt.VIR_ERR_NO_DOMAIN, True, NoSuchDomain),
        (libvirt.VIR_ERR_NO_DOMAIN, False, NoSuchDomain),
        (libvirt.VIR_ERR_OPERATION_ABORTED, True, JobAborted),
        (libvirt.VIR_ERR_OPERATION_INVALID, True, HypervisorError),
        (libvirt.VIR_ERR_OPERATION_INVALID, False, HypervisorError),
    ],
)
def test_a_code_means_one_kind_of_error(code: int, alive: bool, kind: type[Exception]) -> None:
    request = Request("save", DomainRef("web"), {}, Answer())
    error = meaning("x:///", request, Refusal(code, "its\nwords"), alive)
    assert type(error) is kind
    assert str(error).startswith("x:///: save of web: ")
    assert "its words" in str(error)
    if isinstance(error, HypervisorError):
        assert (error.code, error.operation, error.domain) == (code, "save", "web")


def test_a_failure_after_an_abort_was_agreed_to_is_the_abort() -> None:
    request = Request("save", DomainRef("web"), {}, Answer())
    failed = Refusal(libvirt.VIR_ERR_OPERATION_FAILED)
    assert type(meaning("x:///", request, failed, alive=True, aborted=True)) is JobAborted
    lost = Refusal(libvirt.VIR_ERR_RPC)
    assert type(meaning("x:///", request, lost, alive=False, aborted=True)) is ConnectionLost


def test_what_to_do_is_said_where_it_is_known() -> None:
    request = Request("suspend", DomainRef("web"), {}, Answer())
    error = meaning("x:///", request, Refusal(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state lock"), True)
    assert str(error).startswith("x:///: suspend of web: cannot acquire state lock; something else ")


# -- calls that depend on the driver


class Spy:
    """A stand-in for a domain: notes what it is asked, and refuses with ``refusals``, by method, each in turn."""

    def __init__(self, **refusals: list[int]) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._refusals = refusals

    def __getattr__(self, name: str) -> Callable[..., None]:
        def asked(*arguments: Any) -> None:
            self.asked.append((name, *arguments))
            codes = self._refusals.get(name)
            if codes:
                raise Refusal(codes.pop(0))

        return asked


class AskedOfSpy(Asked):
    """Of a domain that is no real one, and that nobody oversees."""

    def domain(self) -> Any:
        return self.connection

    def overseen(self, domain: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _asked(domain: Spy, **given: Any) -> Asked:
    return AskedOfSpy(Request("any", DomainRef("web"), given, Answer()), domain, Shared(domain), "x:///")


@pytest.mark.parametrize("refusals", range(len(operations.UNDEFINE_FLAGS)))
def test_undefining_removes_as_much_as_the_driver_knows(refusals: int) -> None:
    domain = Spy(undefineFlags=[libvirt.VIR_ERR_INVALID_ARG] * refusals)
    operations.undefine(_asked(domain))
    flags = operations.UNDEFINE_FLAGS[refusals]
    assert domain.asked[-1] == (("undefineFlags", flags) if flags else ("undefine",))
    assert len(domain.asked) == refusals + 1


def test_a_real_refusal_to_undefine_is_not_tried_again_with_less() -> None:
    domain = Spy(undefineFlags=[libvirt.VIR_ERR_OPERATION_INVALID])
    with pytest.raises(Refusal):
        operations.undefine(_asked(domain))
    assert len(domain.asked) == 1


def test_a_migration_goes_by_the_daemon_or_else_directly() -> None:
    wanted = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    domain = Spy(migrateToURI3=[libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED])
    operations.migrate(_asked(domain, to="there", live=True, undefine=True, persistent=False, downtime=7.9))
    assert domain.asked == [
        ("migrateSetMaxDowntime", 7),
        ("migrateToURI3", "there", {}, wanted | libvirt.VIR_MIGRATE_PEER2PEER),
        ("migrateToURI3", "there", {}, wanted),
    ]


def test_a_migration_that_fails_is_not_tried_another_way() -> None:
    domain = Spy(migrateToURI3=[libvirt.VIR_ERR_OPERATION_FAILED])
    with pytest.raises(Refusal):
        operations.migrate(_asked(domain, to="there"))
    assert len(domain.asked) == 1


@pytest.mark.parametrize(("bytes_a_second", "mib"), [(1, 1), (1 << 20, 1), ((1 << 20) * 5 // 2, 2), (100 << 20, 100)])
def test_a_bandwidth_is_never_exceeded_and_never_becomes_no_limit(bytes_a_second: int, mib: int) -> None:
    domain = Spy()
    operations.set_bandwidth(_asked(domain, bandwidth=bytes_a_second))
    operations.migrate(_asked(domain, to="there", bandwidth=bytes_a_second))
    assert domain.asked[0] == ("migrateSetMaxSpeed", mib)
    assert domain.asked[1][2] == {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: mib}


# -- consoles


CONSOLES = """
<domain><devices>
  <serial type='pty'><source path='/dev/pts/5'/><target type='isa-serial' port='0'/></serial>
  <serial type='file'><source path='/tmp/log'/><target type='isa-serial' port='1'/></serial>
  <console type='pty' tty='/dev/pts/5'><source path='/dev/pts/5'/><target type='serial' port='0'/></console>
  <console type='unix'><source mode='bind' path='/tmp/s'/><target type='virtio' port='1'/></console>
  <console type='pty'><target type='xen' port='2'/></console>
</devices></domain>
"""


def test_consoles_are_told_once_each_with_both_their_ends() -> None:
    assert [(info.kind, info.devid, info.connection, info.output, info.tty) for info in consoles(CONSOLES, 7)] == [
        (ConsoleKind.SERIAL, 0, Connection.PTY, "pty", "/dev/pts/5"),
        (ConsoleKind.PV, 1, Connection.SOCKET, "unix:/tmp/s", None),
        (ConsoleKind.PV, 2, Connection.PTY, "pty", None),
        (ConsoleKind.SERIAL, 1, Connection.UNKNOWN, "file:/tmp/log", None),
    ]
    assert {info.frontend_domid for info in consoles(CONSOLES, 7)} == {7}
    assert consoles("<domain/>", 7) == consoles("<domain><devices/></domain>", 7) == []


def test_the_console_that_is_meant_is_chosen() -> None:
    there = consoles(CONSOLES, 7)
    assert choose(there, None, None) == there[0]
    assert choose(there, ConsoleKind.PV, None) == there[1]
    assert choose(there, ConsoleKind.PV, 2) == there[2]
    assert choose(there, ConsoleKind.SERIAL, 1) == there[3]
    assert choose(there, ConsoleKind.PV, 0) is None
    assert choose([], None, None) is None
