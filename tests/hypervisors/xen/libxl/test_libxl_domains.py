"""The domains as libxl knows them: all, one, by name, and one that is not there."""

from __future__ import annotations

import errno

import pytest

from eventbridge.adapters.hypervisors.xen.libxl import domains
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import State
from tests.support.libxl_rig import Rig, on_another_thread
from tests.support.xen import table
from tests.support.xen.standin import CRASH, POWEROFF, SUSPEND, XenStandIn


def test_every_domain_is_listed_with_its_name_and_uuid(xen: XenStandIn, rig: Rig) -> None:
    web, db = xen.create(7, "web"), xen.create(8, "db", hvm=True)
    found = {info.domain.id: info for info in rig.context.list()}
    assert {domid: info.domain.name for domid, info in found.items()} == {0: "Domain-0", 7: "web", 8: "db"}
    assert (found[7].domain.uuid, found[8].domain.uuid) == (str(web.uuid), str(db.uuid))
    assert {info.state for info in found.values()} == {State.RUNNING}


def test_one_is_told_in_numbers(xen: XenStandIn, rig: Rig) -> None:
    xen.create(7, "web")
    info = rig.context.info(7)
    assert (info.domain.name, info.vcpus) == ("web", 1)
    assert info.memory == info.max_memory == table.PAGES * 4, "KiB"
    assert rig.context.list()[1] == info


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        (table.RUNNING, State.RUNNING),
        (table.BLOCKED, State.BLOCKED),
        (table.PAUSED | table.BLOCKED, State.PAUSED),
        (table.SHUTDOWN | POWEROFF << table.REASON_SHIFT, State.SHUTDOWN),
        (table.SHUTDOWN | SUSPEND << table.REASON_SHIFT, State.SUSPENDED),
        (table.SHUTDOWN | CRASH << table.REASON_SHIFT, State.CRASHED),
        (table.SHUTDOWN | 99 << table.REASON_SHIFT, State.SHUTDOWN),
        (table.SHUTDOWN | table.DYING, State.DYING),
        (0, State.RUNNING),
    ],
)
def test_its_state_is_what_its_flags_say(xen: XenStandIn, stepped: Rig, flags: int, state: State) -> None:
    """A domain with none of them waits for a processor."""
    xen.create(7)
    xen.table.set_flags(7, flags)
    assert stepped.context.info(7).state is state
    assert domains.is_dying(stepped.context.domains.all()[1]) == (state is State.DYING)


def test_no_such_domain_is_one_clear_error(xen: XenStandIn, rig: Rig) -> None:
    with pytest.raises(HypervisorError, match=r"^libxl:///: there is no domain 99$") as caught:
        rig.context.info(99)
    assert (caught.value.code, caught.value.domain) == (-21, "99")
    assert rig.context.domains.one(99) is None
    assert rig.context.domains.name(99) is None


def test_a_domain_without_a_name_is_listed_all_the_same(xen: XenStandIn, stepped: Rig) -> None:
    """It is being made, or unmade."""
    guest = xen.create(7)
    xen.rm(f"{guest.path}/name")
    (info,) = [info for info in stepped.context.list() if info.domain.id == 7]
    assert (info.domain.name, info.domain.uuid) == (None, str(guest.uuid))


def test_a_hypervisor_that_refuses_is_one_clear_error(xen: XenStandIn, rig: Rig) -> None:
    xen.create(7)
    xen.refuse(errno.EPERM)
    with pytest.raises(HypervisorError, match="cannot list the domains: it failed; libxl said: ") as caught:
        rig.context.list()
    assert "\n" not in str(caught.value)
    with pytest.raises(HypervisorError, match="cannot look at domain 7"):
        rig.context.info(7)
    xen.refuse(0)
    assert [info.domain.id for info in rig.context.list()] == [0, 7]


def test_any_thread_may_look(xen: XenStandIn, rig: Rig) -> None:
    xen.create(7)
    assert on_another_thread(rig.context.list) == rig.context.list()
