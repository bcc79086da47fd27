"""What a libvirt connection is asked, one function an operation, and the table of them.

Each runs on a worker thread, blocks for as long as libvirt does, and raises libvirtError as it comes; what that means
is `errors`' to say.  What a driver cannot do it says itself, in its own words: no list of drivers is kept here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from xml.etree import ElementTree

import libvirt

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import ConsoleInfo, DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request

from . import domains
from .connection_pool import Connections
from .consoles import choose, consoles
from .errors import refusal
from .job_monitor import Overseer

MIB = 1 << 20

# Which flags of virDomainUndefineFlags remove what else libvirt keeps of a domain, the most that a driver knows first;
# none at all is virDomainUndefine's.
UNDEFINE_FLAGS: tuple[int, ...] = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM,
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE,
    0,
)

# By the argument of ``migrate`` that asks for it.
MIGRATE_FLAGS: dict[str, int] = {
    "live": libvirt.VIR_MIGRATE_LIVE,
    "persistent": libvirt.VIR_MIGRATE_PERSIST_DEST,
    "undefine": libvirt.VIR_MIGRATE_UNDEFINE_SOURCE,
}


@dataclass(slots=True)
class Asked:
    """One request, inside a connection."""

    request: Request
    connection: Any
    connections: Connections
    uri: str
    aborted: Callable[[], bool] = lambda: False
    """Has libvirt agreed to cut it short?"""

    def given(self, name: str) -> Any:
        """An argument; None where it was not given."""
        return self.request.arguments.get(name)

    def domain(self) -> Any:
        """libvirt's object for the domain that is meant, looked up now."""
        return domains.find(self.connection, self.request.domain)

    @contextlib.contextmanager
    def overseen(self, domain: Any) -> Iterator[None]:
        """Around a call that takes long: it tells its progress and can be aborted."""
        overseer = Overseer(self.connections, self.uri, domains.reference(domain), self.request)
        self.aborted = lambda: overseer.aborted
        with overseer.watching():
            yield


# -- of the hypervisor


def list_(asked: Asked) -> list[DomainInfo]:
    return domains.every(asked.connection)


def create(asked: Asked) -> DomainRef:
    return domains.reference(asked.connection.createXML(asked.given("definition"), _start_flags(asked)))


def define(asked: Asked) -> DomainRef:
    return domains.reference(asked.connection.defineXML(asked.given("definition")))


def restore(asked: Asked) -> DomainRef:
    """Which domain it is that runs again libvirt does not say; the file does."""
    path, definition = asked.given("path"), asked.given("definition")
    flags = libvirt.VIR_DOMAIN_SAVE_PAUSED if asked.given("paused") else 0
    saved = asked.connection.saveImageGetXMLDesc(path)
    if flags or definition:
        asked.connection.restoreFlags(path, definition, flags)
    else:
        asked.connection.restore(path)
    uuid = ElementTree.fromstring(saved).findtext("uuid")
    return domains.reference(asked.connection.lookupByUUIDString(uuid))


# -- of a domain


def info(asked: Asked) -> DomainInfo:
    return domains.info(asked.domain())


def console_info(asked: Asked) -> ConsoleInfo:
    domain = asked.domain()
    there = consoles(domain.XMLDesc(), domain.ID())
    kind, number = asked.given("kind"), asked.given("number")
    found = choose(there, kind, number)
    if found is None:
        named = " ".join(str(part) for part in (kind, "console", number) if part is not None)
        known = ", ".join(f"{info.kind} {info.devid}" for info in there) or "none at all"
        raise refusal(HypervisorError, asked.uri, asked.request, f"there is no such console: {named}; it has: {known}")
    return found


def start(asked: Asked) -> None:
    flags = _start_flags(asked)
    domain = asked.domain()
    if flags:
        domain.createWithFlags(flags)
    else:
        domain.create()  # older drivers have only this


def suspend(asked: Asked) -> None:
    asked.domain().suspend()


def resume(asked: Asked) -> None:
    asked.domain().resume()


def shutdown(asked: Asked) -> None:
    asked.domain().shutdown()


def reboot(asked: Asked) -> None:
    asked.domain().reboot()


def destroy(asked: Asked) -> None:
    asked.domain().destroy()


def undefine(asked: Asked) -> None:
    """With all that libvirt keeps of it: its managed save, its snapshots' and checkpoints' metadata, its NVRAM."""
    domain = asked.domain()
    for flags in UNDEFINE_FLAGS:
        try:
            domain.undefineFlags(flags) if flags else domain.undefine()
            return
        except libvirt.libvirtError as error:
            # A flag that the driver does not know, or none of them.
            unknown = error.get_error_code() in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT)
            if not (flags and unknown):
                raise


# -- of a domain, for as long as it takes


def save(asked: Asked) -> None:
    domain = asked.domain()
    with asked.overseen(domain):
        domain.save(asked.given("path"))


def managed_save(asked: Asked) -> None:
    domain = asked.domain()
    with asked.overseen(domain):
        domain.managedSave()


def migrate(asked: Asked) -> None:
    """``to`` is the destination's libvirt URI, as the source's daemon reaches it."""
    domain = asked.domain()
    flags = sum(flag for name, flag in MIGRATE_FLAGS.items() if asked.given(name))
    bandwidth, downtime = asked.given("bandwidth"), asked.given("downtime")
    params = {} if bandwidth is None else {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: _mib(bandwidth)}
    if downtime is not None:
        domain.migrateSetMaxDowntime(int(downtime))
    with asked.overseen(domain):
        _migrate(domain, asked.given("to"), params, flags)


def _migrate(domain: Any, to: str, params: dict[str, Any], flags: int) -> None:
    """Who talks to the destination is our daemon (QEMU, libxl) or the hypervisor itself (others): a driver refuses the
    one it has not got before anything is done.
    """
    try:
        domain.migrateToURI3(to, params, flags | libvirt.VIR_MIGRATE_PEER2PEER)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED:
            raise
        domain.migrateToURI3(to, params, flags)


def set_bandwidth(asked: Asked) -> None:
    asked.domain().migrateSetMaxSpeed(_mib(asked.given("bandwidth")))


def set_downtime(asked: Asked) -> None:
    asked.domain().migrateSetMaxDowntime(int(asked.given("downtime")))


def _start_flags(asked: Asked) -> int:
    return int(libvirt.VIR_DOMAIN_START_PAUSED) if asked.given("paused") else 0


def _mib(bandwidth: float) -> int:
    """libvirt's unit, from bytes/s: a limit is not exceeded, and the least there is is 1 MiB/s (0 is "no limit")."""
    return max(1, int(bandwidth) // MIB)


Calls: TypeAlias = Callable[[Asked], Any]

CALLS: dict[str, Calls] = {
    "list": list_,
    "create": create,
    "define": define,
    "restore": restore,
    "info": info,
    "console_info": console_info,
    "start": start,
    "suspend": suspend,
    "resume": resume,
    "shutdown": shutdown,
    "reboot": reboot,
    "destroy": destroy,
    "undefine": undefine,
    "save": save,
    "managed_save": managed_save,
    "migrate": migrate,
    "set_bandwidth": set_bandwidth,
    "set_downtime": set_downtime,
}
LONG: frozenset[str] = frozenset({"restore", "save", "managed_save", "migrate"})
"""Those that take as long as they take, on threads of their own: they leave the others' to the others."""
