"""Does it work here?  One probe of a host loop or a hypervisor, in a process of its own:

    python -m eventbridge.cli.probe NAME

prints one line of JSON with ``version`` and ``detail``, or with ``missing`` (it is not installed) or ``broken`` (it is,
but did not do its work).  `doctor` starts these: a library that crashes or hangs then takes nothing else with it, and
libvirt, which has one event implementation for a process, is met fresh.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.core.host import HostLoop
from eventbridge.core.host_lookup import HOSTS, factory
from eventbridge.core.masks import Events
from eventbridge.errors import EventBridgeError, HostUnavailable, HypervisorError, HypervisorUnavailable
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.plugins import entry_points
from eventbridge.stress import loops

from . import libvirt_activity
from .connections import Sources

Report = dict[str, str]
LONG_ENOUGH = 10.0  # seconds
ROUNDS = 9


# -- host loops


def probe_host(bridge: Bridge) -> str:
    """Some rounds of a timeout of 1 ms and then a byte through a pipe, from another thread while the loop sleeps."""
    reader, writer = os.pipe()
    since = 0.0
    timeouts: list[float] = []
    arrivals: list[float] = []

    def begin() -> None:
        nonlocal since
        since = time.monotonic()
        bridge.add_timeout(1, fired)

    def fired(id: int, opaque: object) -> None:
        timeouts.append(time.monotonic() - since)
        bridge.remove_timeout(id)
        threading.Thread(target=send).start()

    def send() -> None:
        nonlocal since
        since = time.monotonic()
        os.write(writer, b"!")

    def readable(id: int, fd: int, events: int, opaque: object) -> None:
        os.read(fd, 1)
        arrivals.append(time.monotonic() - since)
        if len(arrivals) < ROUNDS:
            begin()

    handle = bridge.add_handle(reader, Events.READABLE, readable)
    begin()
    bridge.run(until=lambda: len(arrivals) == ROUNDS, timeout=LONG_ENOUGH)
    bridge.remove_handle(handle)
    os.close(reader)
    os.close(writer)
    for what, came in {"timeout": timeouts, "byte": arrivals}.items():
        if len(came) < ROUNDS:
            raise EventBridgeError(f"{len(came)} of {ROUNDS} times a {what} came within {LONG_ENOUGH:g} s")
    return f"a timeout of 1 ms after {median(timeouts) * 1e3:.2f} ms, a byte after {median(arrivals) * 1e3:.2f} ms"


def _asyncio() -> Report:
    with loops.bridge_on("asyncio") as bridge:
        return {"version": f"Python {platform.python_version()}", "detail": probe_host(bridge)}


def _uvloop() -> Report:
    with loops.bridge_on("uvloop") as bridge:
        return {"version": f"uvloop {version('uvloop')}", "detail": probe_host(bridge)}


def _pyuv() -> Report:
    with contextlib.suppress(ImportError), loops.bridge_on("libuv") as bridge:
        import pyuv

        return {"version": f"pyuv {pyuv.__version__}, libuv {pyuv.LIBUV_VERSION}", "detail": probe_host(bridge)}
    raise HostUnavailable("No module named 'pyuv'")


def _cffi() -> Report:
    sys.modules["pyuv"] = None  # type: ignore[assignment]  # the interpreter's own way to say: not to be imported
    with loops.bridge_on("libuv") as bridge:
        uv_version = ctypes.CDLL("libuv.so.1").uv_version_string
        uv_version.restype = ctypes.c_char_p
        text = f"cffi {version('cffi')}, libuv {uv_version().decode()}"
        return {"version": text, "detail": probe_host(bridge)}


def _on_selector(module: Any, text: str) -> Report:
    adapter: Any = factory("select")
    selector = module.DefaultSelector()
    host: HostLoop = adapter(selector)
    with contextlib.closing(selector), Bridge(host) as bridge:
        return {"version": f"{text}, {type(selector).__name__}", "detail": probe_host(bridge)}


def _select() -> Report:
    return _on_selector(importlib.import_module("selectors"), f"Python {platform.python_version()}")


def _selectors2() -> Report:
    return _on_selector(_adapter("select").import_selectors2(), f"selectors2 {version('selectors2')}")


def _trio() -> Report:
    with loops.bridge_on("trio") as bridge:
        return {"version": f"trio {version('trio')}", "detail": probe_host(bridge)}


def _glib() -> Report:
    with loops.bridge_on("glib") as bridge:
        glib = _adapter("glib").GLib
        text = f"PyGObject {version('PyGObject')}, GLib {glib.MAJOR_VERSION}.{glib.MINOR_VERSION}.{glib.MICRO_VERSION}"
        return {"version": text, "detail": probe_host(bridge)}


def _gevent() -> Report:
    with loops.bridge_on("gevent") as bridge:
        return {"version": f"gevent {version('gevent')}", "detail": probe_host(bridge)}


def _twisted() -> Report:
    with loops.bridge_on("twisted") as bridge:
        reactor: Any = sys.modules["twisted.internet.reactor"]
        return {"version": f"Twisted {version('twisted')}, {type(reactor).__name__}", "detail": probe_host(bridge)}


def _qt() -> Report:
    with loops.bridge_on("qt") as bridge:
        core = _adapter("qt").Qt
        return {"version": f"{core.__package__}, Qt {core.qVersion()}", "detail": probe_host(bridge)}


def _announced(name: str) -> Report:
    """Somebody else's host, by its entry point."""
    with loops.bridge_on(name) as bridge:
        (entry,) = entry_points(HOSTS.group).select(name=name)
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
        return {"version": package, "detail": probe_host(bridge)}


def _adapter(name: str) -> Any:
    return sys.modules[factory(name).__module__]


# -- hypervisors


class _First:
    """A `connections.Listener` that waits for the first event."""

    def __init__(self) -> None:
        self.seen: DomainEvent | None = None
        self.error: Exception | None = None

    def opened(self, uri: str) -> None: ...

    def slow(self, uri: str) -> None: ...

    def failed(self, uri: str, error: Exception) -> None:
        self.error = error

    def event(self, event: DomainEvent) -> None:
        self.seen = self.seen or event


def probe_hypervisor(uri: str, stirring: Callable[[], contextlib.AbstractContextManager[None]]) -> Report:
    """Open it and see an event, with ``stirring`` something happening there."""
    driver = lookup.find(uri)
    first = _First()
    with loops.bridge_on("select") as bridge:
        sources = Sources(bridge, first)
        sources.start([uri])
        bridge.run(until=lambda: not sources.opening, timeout=LONG_ENOUGH)
        if sources.open:
            with stirring():
                bridge.run(until=lambda: first.seen is not None, timeout=LONG_ENOUGH)
        sources.close(LONG_ENOUGH)
    if first.seen is None:
        raise first.error or EventBridgeError(f"{uri} told no event within {LONG_ENOUGH:g} s")
    return {"version": driver.version(), "detail": f"{uri} told: {first.seen}"}


def probe_xen(uri: str) -> Report:
    """Open it and close it: nothing can be made to happen on a Xen host without a guest."""
    driver = lookup.find(uri)
    outcome = _First()
    with loops.bridge_on("select") as bridge:
        sources = Sources(bridge, outcome)
        sources.start([uri])
        bridge.run(until=lambda: not sources.opening, timeout=LONG_ENOUGH)
        opened = bool(sources.open)
        sources.close(LONG_ENOUGH)
    if isinstance(outcome.error, HypervisorError):  # its library is here; Xen, or xenstored, is not
        raise HypervisorUnavailable(str(outcome.error))
    if not opened:
        raise outcome.error or EventBridgeError(f"{uri} did not open within {LONG_ENOUGH:g} s")
    return {"version": driver.version(), "detail": f"{uri} opened, and lets its domains be watched"}


PROBES: dict[str, Callable[[], Report]] = {
    "asyncio": _asyncio,
    "uvloop": _uvloop,
    "libuv through pyuv": _pyuv,
    "libuv through cffi": _cffi,
    "select": _select,
    "select on selectors2": _selectors2,
    "trio": _trio,
    "glib": _glib,
    "gevent": _gevent,
    "twisted": _twisted,
    "qt": _qt,
    "sim": functools.partial(probe_hypervisor, "sim:///default?domains=4&seed=1", contextlib.nullcontext),
    "libxl": functools.partial(probe_xen, "libxl:///"),
    "xenstore": functools.partial(probe_xen, "xenstore:///"),
    "libvirt": functools.partial(
        probe_hypervisor, libvirt_activity.URI, functools.partial(libvirt_activity.stirred, 0.02)
    ),
}


def main(name: str) -> None:
    try:
        report = PROBES.get(name, functools.partial(_announced, name))()
    except (HostUnavailable, HypervisorUnavailable) as error:
        report = {"missing": str(error)}
    except Exception as error:
        report = {"broken": f"{type(error).__name__}: {error}"}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
