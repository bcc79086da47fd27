"""Whose callback is it?  Which hypervisor's library registered a handle or a timeout, and what is called for it.

Worked out when it is asked, from what is registered anyway: the module of its ``free``, or of its callback; behind an
`AttachedSource`, of the class of its `DirectSource`.  So it costs a registration nothing.  Plain look-ups: any thread.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .handles import Handle
from .models import AttachedSource
from .timers import Timer, _gone

OURS = "eventbridge"
"""The owner of what the core has registered for itself: a connection's mailbox, the deadline of a call."""
APPLICATION = "application"
"""The owner of what no library that is known to us has registered."""

_ADAPTERS = ("eventbridge.adapters.hypervisors.", "adapters.hypervisors.")

# A module's package, or the first name in it that says which hypervisor: the owner's name.
NAMES = {
    "libvirtaio": "libvirt",
    "libvirtmod": "libvirt",
    "libvirt": "libvirt",
    "xen": "libxl",
    "xen.xenstore": "xenstore",
    "xen.store_driver": "xenstore",
}


class Origin(NamedTuple):
    """Where a callback comes from."""

    kind: str
    """``handle``, ``timeout``, or ``free`` (of what was removed); "" where it is not known."""
    id: int
    """As `Bridge.add_handle` or `Bridge.add_timeout` has given it; 0 where it is not known, or the bridge's own."""
    fd: int | None
    owner: str
    """libvirt, libxl, xenstore, qmp, sim; else `OURS` or `APPLICATION`."""
    callback: str
    """The function, by its module and name."""

    def __str__(self) -> str:
        if not self.kind:
            return self.callback
        on = "" if self.fd is None else f" on fd {self.fd}"
        which = f"{self.kind} {self.id}{on}" if self.id else self.kind
        return f"{which} of {self.owner} ({self.callback})" if self.callback else f"{which} of {self.owner}"


FREES = Origin("free", 0, None, OURS, "")
"""Whatever ``free`` functions were owed, together."""


NOBODYS = Origin("", 0, None, "", "")
"""Of nothing."""


def one_of(together: int) -> Origin:
    """Of several that were timed together: it is not known of which."""
    return NOBODYS._replace(callback=f"one of {together} callbacks")


def origin(item: Handle | Timer, callback: Any = None) -> Origin:
    """``callback``: what it was, where it may be removed by now, and has forgotten it."""
    callback = callback or item.callback
    if callback is _gone:  # a timeout that is removed, perhaps by its own callback, which runs still
        return Origin("timeout", item.id, None, APPLICATION if item.free is None else owner(item, item.free), "")
    if isinstance(item, Handle):
        return Origin("handle", item.id, item.fd, owner(item, callback), name(callback))
    return Origin("timeout", item.id, None, owner(item, callback), name(callback))


def owner(item: Handle | Timer, callback: Any = None) -> str:
    """Whose it is.  ``free`` speaks first: a callback may be the library's own C function, or one put before it."""
    for function in (item.free, callback or item.callback):
        found = APPLICATION if function is None else _owner_of(_module(function))
        if found != APPLICATION:
            return found
    return APPLICATION


def name(callback: Any) -> str:
    """A function by its module and name; a `DirectSource` by its class."""
    behind = _behind(callback)
    if behind is not callback:
        return f"{type(behind).__module__}.{type(behind).__qualname__}"
    while isinstance(callback, functools.partial):
        callback = callback.func
    module = getattr(callback, "__module__", None) or ""
    return f"{module}.{getattr(callback, '__qualname__', '') or type(callback).__qualname__}"


def _behind(callback: Any) -> Any:
    """The source that is drained by it; itself where it is no `AttachedSource`'s."""
    whose = getattr(callback, "__self__", None)
    return whose._source if isinstance(whose, AttachedSource) else callback


def _module(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    behind = _behind(function)
    if behind is not function:
        return type(behind).__module__
    whose = getattr(function, "__self__", None)
    if whose is not None and not isinstance(whose, type) and hasattr(function, "__func__"):
        return type(whose).__module__  # a method: it is the object's class that says whose it is
    return getattr(function, "__module__", None) or type(function).__module__


@functools.lru_cache(maxsize=1024)
def _owner_of(module: str) -> str:
    for prefix in _ADAPTERS:
        if module.startswith(prefix):
            family, _, rest = module.removeprefix(prefix).partition(".")
            part = f"{family}.{rest.partition('.')[0]}"
            return NAMES.get(part) or NAMES.get(family, family)
    top = module.partition(".")[0]
    return OURS if top == OURS else NAMES.get(top, APPLICATION)
