"""Which driver a URI means.

Drivers live in ``eventbridge.adapters.hypervisors`` and are found by name only.  Anybody's may be announced in the
entry-point group ``eventbridge.hypervisors``: the entry's name is the URI's scheme, its object a `Driver`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from eventbridge.errors import HypervisorUnavailable
from eventbridge.plugins import BuiltIn, Catalogue, NotInstalled

from .driver import Driver

_OURS = "it is part of eventbridge"
_LIBVIRT = BuiltIn(
    ".libvirt.driver:driver", "apt-get install libvirt-dev pkg-config gcc, then pip install libvirt-python"
)

# libvirt's schemes are those of its documentation (uri.html, and the pages of its drivers).
_LIBVIRT_SCHEMES = (
    "test qemu xen lxc ch vz bhyve vbox openvz hvf esx vpx gsx hyperv vmwareplayer vmwarews vmwarefusion"
).split()

DRIVERS = Catalogue(
    "eventbridge.hypervisors",
    "hypervisors",
    {
        "sim": BuiltIn(".sim.driver:driver", _OURS),
        "qmp": BuiltIn(".qmp.driver:driver", _OURS),
        "libxl": BuiltIn(".xen.driver:driver", "apt-get install libxenmisc4.17, or of whichever version Xen is here"),
        "xenstore": BuiltIn(".xen.store_driver.driver:driver", _OURS),
        **dict.fromkeys(_LIBVIRT_SCHEMES, _LIBVIRT),
    },
)
"""By the part of a URI's scheme before "+"."""


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
    return DRIVERS.names()


def find(uri: str) -> Driver:
    """Return the driver for a URI; `HypervisorUnavailable` if its scheme is not known or its library is missing."""
    wanted = scheme(uri)
    try:
        found: Driver = DRIVERS.load(wanted)
    except NotInstalled as error:
        raise HypervisorUnavailable(f"{uri}: its library cannot be loaded: {error}") from error.__cause__
    except KeyError:
        raise HypervisorUnavailable(
            f"{uri}: no driver knows the scheme {wanted!r}; there are: {', '.join(sorted(schemes()))}"
        ) from None
    return found
