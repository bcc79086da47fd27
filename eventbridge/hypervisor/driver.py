"""Which hypervisor a URI means, and what every driver can do: tell its events, and do what it is asked.

Drivers live in ``eventbridge.adapters.hypervisors`` and are reached by name only.  Anybody's may be announced through
the entry-point group ``eventbridge.hypervisors``: the entry's name is the URI's scheme, its object a `Driver`.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol
from urllib.parse import urlsplit

from eventbridge.bridge import Bridge
from eventbridge.errors import HypervisorUnavailable
from eventbridge.plugins import entry_points

from .events import Emit
from .request import Request

ENTRY_POINT_GROUP = "eventbridge.hypervisors"

_LIBVIRT = "eventbridge.adapters.hypervisors.libvirt.driver:driver"
_QMP = "eventbridge.adapters.hypervisors.qmp.driver:driver"
_SIM = "eventbridge.adapters.hypervisors.sim.driver:driver"
_XENSTORE = "eventbridge.adapters.hypervisors.xen.store_driver.driver:driver"
_XEN = "eventbridge.adapters.hypervisors.xen.driver:driver"

# libvirt's schemes are those of its documentation (uri.html, and the pages of its drivers).
_LIBVIRT_SCHEMES = (
    "test qemu xen lxc ch vz bhyve vbox openvz hvf esx vpx gsx hyperv vmwareplayer vmwarews vmwarefusion"
).split()

# Scheme (what is before "+" in the URI's): the driver, and what to install where it cannot be loaded.
BUILT_IN: dict[str, tuple[str, str]] = {
    "sim": (_SIM, "it is part of eventbridge"),
    "qmp": (_QMP, "it is part of eventbridge"),
    "libxl": (_XEN, "apt-get install libxenmisc4.17, or of whichever version Xen is here"),
    "xenstore": (_XENSTORE, "it is part of eventbridge"),
    **dict.fromkeys(
        _LIBVIRT_SCHEMES, (_LIBVIRT, "apt-get install libvirt-dev pkg-config gcc, then pip install libvirt-python")
    ),
}


class Subscription(Protocol):
    """A source of events that is open."""

    def close(self) -> None:
        """No event is emitted after it returns.  May block: not on the loop's thread while the loop runs.
        Idempotent.
        """


class Session(Subscription, Protocol):
    """A hypervisor that is open: its events, and what can be asked of it (`operations.OPERATIONS`)."""

    @property
    def operations(self) -> frozenset[str]:
        """What it can do; fixed from the beginning."""

    def begin(self, request: Request) -> None:
        """Have it done, and answered in time; one of ``operations``.  Any thread; never blocks, never raises.

        The caller holds the domain's job until the answer, so at most one normal request a domain is under way, beside
        an asynchronous one.  After `close`, or when the hypervisor has gone, requests are refused with
        `ConnectionLost`, those under way too.
        """

    def given_up(self, request: Request) -> None:
        """Whoever asked waits no more: its deadline has passed.  For what can be cut short, or made room for.  Any
        thread; never blocks.
        """


class Driver(Protocol):
    """One hypervisor."""

    def subscribe(self, uri: str, bridge: Bridge, emit: Emit) -> Session:
        """Open ``uri`` and call ``emit(event)`` on the bridge's loop for everything that happens from then on.

        Blocks until it is open: call it on a thread of its own where a loop is running.  `HypervisorError` where it
        cannot be opened.
        """

    def version(self) -> str:
        """The library's name and version, for ``eventbridge doctor``."""


def scheme(uri: str) -> str:
    """What decides the driver: the part of the URI's scheme before "+"; `HypervisorUnavailable` for what is no URI."""
    try:
        found = urlsplit(uri).scheme
    except ValueError as error:
        raise HypervisorUnavailable(f"{uri!r} is no URI: {error}") from None
    if not found or ":" not in uri:
        raise HypervisorUnavailable(f"{uri!r} is no URI: it needs a scheme, as in sim:///default or qemu:///system")
    return found.partition("+")[0]


def schemes() -> list[str]:
    """The schemes that a driver is known for, installed or not: ours, then those announced by others."""
    return [*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name not in BUILT_IN)]


def find(uri: str) -> Driver:
    """The driver for a URI; `HypervisorUnavailable` where its scheme is not known or its library is missing."""
    wanted = scheme(uri)
    if wanted in BUILT_IN:
        target, install = BUILT_IN[wanted]
        module, _, attribute = target.partition(":")
        try:
            found: Any = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise HypervisorUnavailable(f"{uri}: its library cannot be loaded: {error}; {install}") from error
        driver: Driver = found
        return driver
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == wanted:
            announced: Driver = entry.load()
            return announced
    raise HypervisorUnavailable(
        f"{uri}: no driver knows the scheme {wanted!r}; there are: {', '.join(sorted(schemes()))}"
    )
