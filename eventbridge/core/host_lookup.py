"""The host loop of a name, or the one that runs in this thread.

Anybody's adapter may be announced in the entry-point group ``eventbridge.hosts``: the entry's name is the host's, its
object a class with a ``running()`` class method (`HostFactory`).  The core names the adapters, and imports none until
one is asked for.
"""

from __future__ import annotations

import contextlib
import sys

from eventbridge.errors import HostUnavailable
from eventbridge.plugins import BuiltIn, Catalogue, NotInstalled

from .host import AwaitingHost, HostFactory, HostLoop

_STANDARD = "it is in the standard library"

HOSTS = Catalogue(
    "eventbridge.hosts",
    "hosts",
    {
        "asyncio": BuiltIn(".asyncio:AsyncioHost", _STANDARD, ("asyncio",)),
        "libuv": BuiltIn(".libuv:LibuvHost", "pip install eventbridge[libuv]"),
        "select": BuiltIn(".select:SelectHost", _STANDARD),
        "trio": BuiltIn(".trio:TrioHost", "pip install eventbridge[trio]", ("trio",)),
        "glib": BuiltIn(
            ".glib:GlibHost",
            "apt-get install python3-gi, or "
            "libgirepository1.0-dev libcairo2-dev pkg-config gcc and pip install eventbridge[glib]",
            ("gi.repository.GLib",),
        ),
        "gevent": BuiltIn(".gevent:GeventHost", "pip install eventbridge[gevent]", ("gevent",)),
        "twisted": BuiltIn(".twisted:TwistedHost", "pip install eventbridge[twisted]", ("twisted.internet.reactor",)),
        "qt": BuiltIn(".qt:QtHost", "pip install eventbridge[qt]", ("PySide6.QtCore", "PyQt6.QtCore")),
    },
)

LOOKED_FOR = ("trio", "asyncio", "twisted", "qt", "glib", "gevent")
"""In this order, because a loop may run on another: trio as a guest on any, asyncio on Qt (qasync) or GLib (gbulb),
Twisted on asyncio, Qt or GLib, Qt on GLib; and gevent's hub runs wherever its thread waits.  The upper one is meant.
"""

FOREIGN = ("tkinter", "wx", "eventlet", "curio", "pyglet", "pygame")
"""Loops that may run here and for which there is no host."""


def names() -> list[str]:
    """Return the hosts that can be asked for by name: ours, then those announced by others."""
    return HOSTS.names()


def factory(name: str) -> HostFactory:
    """Return the adapter's class; `HostUnavailable` for a name that is not known, or whose library is missing."""
    try:
        found: HostFactory = HOSTS.load(name)
    except NotInstalled as error:
        raise HostUnavailable(f"the host loop {name!r} cannot be used here: {error}") from error.__cause__
    except KeyError:
        raise HostUnavailable(f"no host loop is called {name!r}; there are: {', '.join(names())}") from None
    return found


def by_name(name: str) -> HostLoop:
    """Return a host by its name."""
    return factory(name)()


def running() -> HostLoop:
    """Return the host on the loop that is running in this thread, whichever it is.

    Raises `HostUnavailable`, with what was found, if none is running that can be served.
    """
    found = []
    for name in [*LOOKED_FOR, *HOSTS.announced()]:
        if name in HOSTS.built_in and not any(sys.modules.get(library) for library in HOSTS.built_in[name].loaded_by):
            continue  # its library is not even loaded
        try:
            host = factory(name).running()
        except HostUnavailable as error:
            found.append(f"{name}: {error}")
            continue
        if host is not None:
            return host
        if name != "asyncio":  # which is always loaded
            found.append(f"{name} is loaded, but does not run in this thread")
    found.extend(f"{name} is loaded, for whose loop there is no host" for name in FOREIGN if sys.modules.get(name))
    raise HostUnavailable(
        "no event loop is running in this thread: call attach() inside one (a coroutine, a callback), "
        f"or name a loop: Bridge(NAME) with one of {', '.join(names())}"
        + (f". Found: {'; '.join(found)}" if found else "")
    )


def awaiting(host: HostLoop, instead: str) -> AwaitingHost:
    """Where the task that runs here waits: ``host``, or, where another thread runs that (the bridge has moved), the
    loop that runs in this one.  `HostUnavailable`, with what to do ``instead``, where neither has tasks.
    """
    # isinstance looks at all of the protocol, for 10 us (Python 3.11)
    if hasattr(type(host), "wait_for") and host.is_loop_thread():
        return host  # type: ignore[return-value]  # as was looked
    with contextlib.suppress(HostUnavailable):
        here = running()
        if hasattr(type(here), "wait_for"):
            return here  # type: ignore[return-value]  # as was looked
    raise HostUnavailable(f"the {host.name} host has no tasks to wait in: {instead}")
