"""What eventbridge asks of a host loop, and how it finds one.

A host adapter is small because the bridge has one fd for everything: the host watches it, runs a function on its own
thread, and says which thread that is.  Adapters live in ``eventbridge.adapters.hosts``, one module each; anybody's
may be announced through the entry-point group ``eventbridge.hosts``, where the entry's name is the host's and its
object a class with a ``running()`` class method (`HostFactory`).

The core reaches them by name only: nothing here imports an adapter until it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

from eventbridge.errors import HostUnavailable
from eventbridge.plugins import entry_points

ENTRY_POINT_GROUP = "eventbridge.hosts"

# Name: module and class, the libraries of which one must be loaded for such a loop to be running here (none: it cannot
# be seen from outside), and what to install.
BUILT_IN: dict[str, tuple[str, tuple[str, ...], str]] = {
    "asyncio": ("eventbridge.adapters.hosts.asyncio:AsyncioHost", ("asyncio",), "it is in the standard library"),
    "libuv": ("eventbridge.adapters.hosts.libuv:LibuvHost", (), "pip install eventbridge[libuv]"),
    "select": ("eventbridge.adapters.hosts.select:SelectHost", (), "it is in the standard library"),
    "trio": ("eventbridge.adapters.hosts.trio:TrioHost", ("trio",), "pip install eventbridge[trio]"),
    "glib": (
        "eventbridge.adapters.hosts.glib:GlibHost",
        ("gi.repository.GLib",),
        "apt-get install python3-gi, or "
        "libgirepository1.0-dev libcairo2-dev pkg-config gcc and pip install eventbridge[glib]",
    ),
    "gevent": ("eventbridge.adapters.hosts.gevent:GeventHost", ("gevent",), "pip install eventbridge[gevent]"),
    "twisted": (
        "eventbridge.adapters.hosts.twisted:TwistedHost",
        ("twisted.internet.reactor",),
        "pip install eventbridge[twisted]",
    ),
    "qt": (
        "eventbridge.adapters.hosts.qt:QtHost",
        ("PySide6.QtCore", "PyQt6.QtCore"),
        "pip install eventbridge[qt]",
    ),
}

# A loop may run on another: trio as a guest on any, asyncio on Qt (qasync) or GLib (gbulb), Twisted on asyncio, Qt or
# GLib, Qt on GLib; and gevent's hub runs wherever its thread waits.  The upper one is meant.
LOOKED_FOR = ("trio", "asyncio", "twisted", "qt", "glib", "gevent")

# What may be what runs here, and has no host.
FOREIGN = ("tkinter", "wx", "eventlet", "curio", "pyglet", "pygame")


@runtime_checkable
class HostLoop(Protocol):
    """A loop that somebody runs.  Its thread is whichever thread runs it, not the one that made this object."""

    name: str

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback()`` on the loop's thread while ``fd`` is readable (level-triggered).  The loop's thread, or
        before it runs.
        """

    def unwatch(self, fd: int) -> None:
        """Stop; nothing happens where ``fd`` is not watched or the loop is closed.  The loop's thread, or when it
        does not run.
        """

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Run ``callback()`` once on the loop's thread.  Any thread; `HostUnavailable` where the loop is closed for
        good.
        """

    def is_loop_thread(self) -> bool:
        """May this thread touch the loop now?  True on the thread that runs it, and anywhere while nobody runs it."""

    def report(self, exception: BaseException, context: str) -> None:
        """Hand a callback's exception to the loop's own handler for such.  Must not raise.  The loop's thread."""


@runtime_checkable
class RunnableHost(HostLoop, Protocol):
    """A host whose loop is ours to run."""

    def run(self) -> None:
        """Run the loop in this thread until `stop`.  A KeyboardInterrupt or SystemExit of a callback's comes out of
        it.
        """

    def stop(self) -> None:
        """Have `run` return after the present pass.  The loop's thread."""

    def close(self) -> None:
        """Give back what the host made for itself (not a loop that was given to it).  Idempotent."""


@runtime_checkable
class AwaitingHost(HostLoop, Protocol):
    """A host whose tasks can await something of the bridge's."""

    async def wait_for(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
        """Call ``subscribe(done)`` and wait until somebody calls ``done()``, once or more, on any thread: by then the
        bridge may be another loop's.  False after ``timeout`` seconds.  `HostUnavailable` where this is no task of
        such a loop.
        """


@runtime_checkable
class SwitchingHost(HostLoop, Protocol):
    """A host on whose thread several can wait, each without holding up the loop: greenlets."""

    def can_switch(self) -> bool:
        """Is this a thread on which one waits so?"""

    def switch_until(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
        """As `AwaitingHost.wait_for`, where `can_switch`; `HostUnavailable` in a callback of the loop's own."""


def can_switch(host: HostLoop) -> TypeGuard[SwitchingHost]:
    """Does one wait here with the loop going on?"""
    return hasattr(type(host), "switch_until") and host.can_switch()  # type: ignore[attr-defined]  # as was looked


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


class HostFactory(Protocol):
    """A host adapter's class."""

    def __call__(self) -> HostLoop:
        """The host on this thread's running loop, or on one of its own where the loop is ours to make; else
        `HostUnavailable`.
        """

    def running(self) -> HostLoop | None:
        """The host on the loop that is running in this thread, or None."""


def names() -> list[str]:
    """The hosts that can be asked for by name: ours, then those announced by others."""
    return [*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name not in BUILT_IN)]


def factory(name: str) -> HostFactory:
    """The adapter's class; `HostUnavailable` for a name that is not known, or whose library is missing."""
    if name in BUILT_IN:
        target, _, install = BUILT_IN[name]
        module, _, attribute = target.partition(":")
        try:
            found: Any = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise HostUnavailable(f"the host loop {name!r} cannot be used here: {error}; {install}") from error
        return found  # type: ignore[no-any-return]  # the table's promise, held by the conformance suite
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            announced: HostFactory = entry.load()
            return announced
    raise HostUnavailable(f"no host loop is called {name!r}; there are: {', '.join(names())}")


def by_name(name: str) -> HostLoop:
    """A host by its name."""
    return factory(name)()


def running() -> HostLoop:
    """The host on the loop that is running in this thread, whichever it is; `HostUnavailable`, with what was found,
    where there is none that can be served.
    """
    found = []
    for name in [*LOOKED_FOR, *(name for name in names() if name not in BUILT_IN)]:
        if name in BUILT_IN and not any(sys.modules.get(library) for library in BUILT_IN[name][1]):
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
