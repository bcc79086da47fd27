"""Contenders: every event implementation that is measured, how to make it, and what it needs to be installed.

A contender's name is what it is, "@", and the host loop it is on.  `CONTENDERS` is the table; making one imports its
libraries, which only a worker's process does, and registers it with libvirt for that process's life."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from select import POLLIN, epoll, poll
from typing import Any

from eventbridge.bridge import Bridge, attach

from . import direct
from .hosts import HOSTS
from .rigs import Api, AsyncioRig, Rig, TurnRig, handles_only, of_a_bridge

INSTALL = {
    "libvirt": "apt-get install libvirt-dev pkg-config gcc, then pip install libvirt-python",
    "libvirtaio": "apt-get install libvirt-dev pkg-config gcc, then pip install libvirt-python",
    "uvloop": "pip install eventbridge[uvloop]",
    "pyuv": "pip install pyuv (tests/support/setup.sh tells how it builds)",
    "trio": "pip install eventbridge[trio]",
    "gi": "apt-get install libgirepository1.0-dev pkg-config gcc, then pip install eventbridge[glib]",
    "gevent": "pip install eventbridge[gevent]",
    "twisted": "pip install eventbridge[twisted]",
    "PySide6": "pip install eventbridge[qt]",
    **{module: f"pip install {module}" for module in ("rloop", "tornado", "gbulb", "qasync")},
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of a table.  ``rivals``: the contenders it is measured against, by what they are."""

    make: Callable[[], Rig]
    needs: tuple[str, ...]
    what: str
    rivals: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why it is left out here: the library that is not installed, and how to get it; or None."""
        for module in self.needs:
            if find_spec(module) is None:
                return f"{module} is not installed: {INSTALL[module]}"
        return None


# -- how each is made


def _through_libvirt() -> Api:
    """The six functions as libvirt offers them to Python: into its C API, and out again to the implementation."""
    libvirt: Any = import_module("libvirt")
    return Api(
        libvirt.virEventAddHandle,
        libvirt.virEventUpdateHandle,
        libvirt.virEventRemoveHandle,
        libvirt.virEventAddTimeout,
        libvirt.virEventUpdateTimeout,
        libvirt.virEventRemoveTimeout,
    )


def _install(bridge: Bridge) -> Api:
    import_module("eventbridge.adapters.hypervisors.libvirt").install(bridge)
    return _through_libvirt()


def _install_libvirtaio() -> Api:
    import_module("libvirtaio").virEventRegisterAsyncIOImpl()
    return _through_libvirt()


def _install_direct() -> Api:
    direct.DirectAsyncio().register()
    return _through_libvirt()


def _uvloop_run(main: Any) -> Any:
    return import_module("uvloop").run(main)


def _on_asyncio(install: Callable[[], Api]) -> Rig:
    return AsyncioRig(asyncio.run, install)


def _on_uvloop(install: Callable[[], Api]) -> Rig:
    return AsyncioRig(_uvloop_run, install)


def _ours_libuv() -> Rig:
    pyuv: Any = import_module("pyuv")
    bridge = Bridge("libuv")
    host: Any = bridge.host
    return TurnRig(_install(bridge), partial(host.loop.run, pyuv.UV_RUN_ONCE))


def _ours_select() -> Rig:
    bridge = Bridge("select")
    host: Any = bridge.host
    return TurnRig(_install(bridge), host.run_once)


def _libvirt_c() -> Rig:
    libvirt: Any = import_module("libvirt")
    libvirt.virEventRegisterDefaultImpl()
    return TurnRig(_through_libvirt(), libvirt.virEventRunDefaultImpl)


def _direct_libuv() -> Rig:
    pyuv: Any = import_module("pyuv")
    loop = pyuv.Loop()
    direct.DirectLibuv(loop).register()
    return TurnRig(_through_libvirt(), partial(loop.run, pyuv.UV_RUN_ONCE))


def _direct_select() -> Rig:
    mapping = direct.DirectSelect()
    mapping.register()
    return TurnRig(_through_libvirt(), mapping.turn)


class LoneHost:
    """The least that can be a host loop: it waits for the one fd.  What is measured on it is the core alone."""

    name = "alone"

    def __init__(self) -> None:
        self._wait = poll()
        self._callback: Callable[[], None] = lambda: None

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._wait.register(fd, POLLIN)
        self._callback = callback

    def unwatch(self, fd: int) -> None:
        self._wait.unregister(fd)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        callback()

    def is_loop_thread(self) -> bool:
        return True

    def report(self, exception: BaseException, context: str) -> None:
        print(f"exception {context}:", file=sys.stderr)
        traceback.print_exception(exception, file=sys.stderr)

    def turn(self) -> None:
        self._wait.poll()
        self._callback()


def _ours_alone() -> Rig:
    host = LoneHost()
    return TurnRig(of_a_bridge(Bridge(host)), host.turn)


def _bare_epoll() -> Rig:
    """The floor of every loop in Python: no removal in mid-pass, no timeouts, nothing."""
    waiting, callbacks = epoll(), dict[int, Callable[..., object]]()

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        waiting.register(fd, events)
        callbacks[fd] = callback
        return fd

    def turn() -> None:
        for fd, events in waiting.poll():
            callbacks[fd](fd, events)

    return TurnRig(handles_only(add_handle), turn)


_C = "libvirt-c"

CONTENDERS: dict[str, Contender] = {
    "ours@asyncio": Contender(
        partial(_on_asyncio, lambda: _install(attach())),
        ("libvirt",),
        "eventbridge on asyncio",
        (_C, "libvirtaio@asyncio", "direct@asyncio"),
    ),
    "ours@uvloop": Contender(
        partial(_on_uvloop, lambda: _install(attach())),
        ("libvirt", "uvloop"),
        "eventbridge on uvloop",
        (_C, "libvirtaio@uvloop", "direct@uvloop"),
    ),
    "ours@libuv": Contender(_ours_libuv, ("libvirt", "pyuv"), "eventbridge on libuv", (_C, "direct@libuv")),
    "ours@select": Contender(_ours_select, ("libvirt",), "eventbridge on select", (_C, "direct@select")),
    "libvirtaio@asyncio": Contender(
        partial(_on_asyncio, _install_libvirtaio),
        ("libvirtaio",),
        "libvirt-python's implementation on asyncio",
        (_C, "direct@asyncio"),
    ),
    "libvirtaio@uvloop": Contender(
        partial(_on_uvloop, _install_libvirtaio),
        ("libvirtaio", "uvloop"),
        "libvirt-python's implementation on uvloop",
        (_C, "direct@uvloop"),
    ),
    _C: Contender(_libvirt_c, ("libvirt",), "libvirt's own loop in C (virEventRunDefaultImpl)"),
    "direct@asyncio": Contender(
        partial(_on_asyncio, _install_direct), ("libvirt",), "the thinnest mapping to asyncio", (_C,)
    ),
    "direct@uvloop": Contender(
        partial(_on_uvloop, _install_direct), ("libvirt", "uvloop"), "the thinnest mapping to uvloop", (_C,)
    ),
    "direct@libuv": Contender(_direct_libuv, ("libvirt", "pyuv"), "the thinnest mapping to libuv", (_C,)),
    "direct@select": Contender(_direct_select, ("libvirt",), "the thinnest mapping to select", (_C,)),
    "ours": Contender(_ours_alone, (), "the core alone: no libvirt, no host but poll(2)", ("epoll",)),
    "epoll": Contender(_bare_epoll, (), "a bare epoll loop in Python"),
}
for _name, _host in HOSTS.items():
    CONTENDERS[f"bridge@{_name}"] = Contender(
        _host.with_bridge, _host.needs, f"eventbridge on {_name}, no libvirt", (f"watch@{_name}",)
    )
    CONTENDERS[f"watch@{_name}"] = Contender(
        _host.with_watches, _host.needs, f"the thinnest mapping to {_name}, no libvirt; for each fd: {_host.watch}"
    )
