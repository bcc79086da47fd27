"""Which domain, and how it is: libvirt's objects and states to eventbridge's, as tables.

Whatever asks the daemon blocks: worker threads.  A domain is looked up anew for each call, one RPC of some 100 us over
a unix socket, and never kept: libvirt's object holds the name and the id of its own beginning, which a rename, a
restart or another domain of the same UUID makes another's.  `info` is three RPCs, and four of a domain that is paused.
None of them takes a job inside libvirt (``qemuDomainGetInfo``, ``qemuDomainGetState``), as the one RPC of
``virDomainListGetStats`` that would tell the same does: they answer for a QEMU that hangs, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import libvirt

from eventbridge.hypervisor.model import DomainInfo, DomainRef, State

# By virDomainState's and virDomain*Reason's names in libvirt-domain.h without VIR_DOMAIN_; a reason that is not here
# changes nothing.
STATES: dict[str, State] = {
    "NOSTATE": State.RUNNING,  # Xen's word for a domain that runs and is neither blocked nor on a processor just now
    "RUNNING": State.RUNNING,
    "BLOCKED": State.BLOCKED,
    "PAUSED": State.PAUSED,
    "PAUSED_CRASHED": State.CRASHED,  # kept for whoever wants to look at it (on_crash=preserve)
    "PAUSED_SHUTTING_DOWN": State.SHUTDOWN,
    "SHUTDOWN": State.SHUTDOWN,
    "SHUTOFF": State.STOPPED,
    "CRASHED": State.CRASHED,
    "PMSUSPENDED": State.PM_SUSPENDED,
}

Numbers: TypeAlias = tuple[int, int | None]
"""A state, and a reason."""


def _by_number() -> Iterator[tuple[Numbers, State]]:
    for name, state in STATES.items():
        of, _, reason = name.partition("_")
        number = getattr(libvirt, f"VIR_DOMAIN_{of}")
        if not reason:
            yield (number, None), state
        elif hasattr(libvirt, f"VIR_DOMAIN_{name}"):  # as all but bindings older than it
            yield (number, getattr(libvirt, f"VIR_DOMAIN_{name}")), state


_states: dict[Numbers, State] = dict(_by_number())
_ambiguous = {number for number, reason in _states if reason is not None}


def state_of(number: int, reason: int | None = None) -> State:
    """A state that a newer libvirt has is one of a domain that is there, and so runs."""
    return _states.get((number, reason)) or _states.get((number, None), State.RUNNING)


def find(connection: Any, wanted: DomainRef | None) -> Any:
    """libvirt's object for a domain, by its UUID, else its name, else its id; libvirtError where there is none."""
    wanted = wanted or DomainRef(None)
    if wanted.uuid is not None:
        return connection.lookupByUUIDString(wanted.uuid)
    if wanted.name is not None:
        return connection.lookupByName(wanted.name)
    return connection.lookupByID(-1 if wanted.id is None else wanted.id)


def reference(domain: Any) -> DomainRef:
    """What libvirt's object holds; asking for more would cost a call to the daemon."""
    id = domain.ID()
    return DomainRef(domain.name(), domain.UUIDString(), None if id < 0 else id)


def info(domain: Any) -> DomainInfo:
    """One domain, that has just been looked up."""
    number, max_memory, memory, vcpus, cpu_time = domain.info()
    reason = None
    if number in _ambiguous:
        number, reason = domain.state()
    return DomainInfo(
        reference(domain),
        state_of(number, reason),
        vcpus=vcpus,
        memory=memory,
        max_memory=max_memory,
        cpu_time=cpu_time,
        persistent=bool(domain.isPersistent()),
    )


def every(connection: Any) -> list[DomainInfo]:
    """All of them, in two RPCs however many there are, and none that takes a job of any: what would need one (memory,
    processors) is left out, and so is the processors' time, of which libvirt's QEMU driver makes a probe of the host
    that takes seconds.  One RPC a domain more where the driver has no statistics.
    """
    states = list(_every_state(connection))
    # Asked last: one that is transient and has gone by now is not called persistent.
    persistent = {each.UUIDString() for each in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)}
    return [DomainInfo(known, state, persistent=known.uuid in persistent) for known, state in states]


def _every_state(connection: Any) -> Iterable[tuple[DomainRef, State]]:
    try:
        found = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return _state_of_each(connection)
    return ((reference(domain), state_of(stats["state.state"], stats["state.reason"])) for domain, stats in found)


def _state_of_each(connection: Any) -> Iterator[tuple[DomainRef, State]]:
    for domain in connection.listAllDomains():
        try:
            yield reference(domain), state_of(*domain.state())
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it has vanished meanwhile
                raise
