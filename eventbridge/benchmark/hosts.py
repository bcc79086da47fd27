"""Every host loop twice: with a bridge on it, and with a watch of the loop's own for each fd.  `HOSTS` is the table.

The second is the thinnest direct mapping, what a program without eventbridge would write on that loop, and no more:
it watches an fd for reading, and calls ``callback(fd, events)``, or with whatever the loop hands out by itself where
that spares a call.  No timeouts, no removal, no ERROR or HANGUP.  libvirt has no part in either, so that loop and
bridge alone are compared: each side registers by its own Python functions.

The main thread of a worker's process.  Libraries of others are imported when their row is made."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from eventbridge.bridge import Bridge, attach
from eventbridge.core.host_lookup import factory

from .eventfds import READABLE, Unfit
from .host_rigs import CallbackRig, Resume, TrioRig
from .rigs import Api, AsyncioRig, Rig, TurnRig, handles_only, of_a_bridge

SELECT_LIMIT = 1024
"""select(2) takes no fd from here on (FD_SETSIZE)."""


@dataclass(frozen=True, slots=True)
class Host:
    """``watch``: what stands for one fd on this loop, in words; ``needs``: the modules without which it is left out."""

    with_bridge: Callable[[], Rig]
    with_watches: Callable[[], Rig]
    watch: str
    needs: tuple[str, ...] = ()


# -- asyncio, and the loops that are compatible with it


def _runner(make_loop: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda main: make_loop().run_until_complete(main)


def _new_loop(module: str) -> Callable[[], Any]:
    return lambda: import_module(module).new_event_loop()


def _gbulb() -> Any:
    return import_module("gbulb").GLibEventLoop()


def _qasync() -> Any:
    return import_module("qasync").QEventLoop(_qt_application())


def _add_reader() -> Api:
    loop = asyncio.get_running_loop()

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        loop.add_reader(fd, callback, fd, READABLE)
        return fd

    return handles_only(add_handle)


def _add_handler() -> Api:
    """tornado's own way, over its asyncio loop."""
    loop = import_module("tornado.ioloop").IOLoop.current()

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        loop.add_handler(fd, callback, loop.READ)
        return fd

    return handles_only(add_handle)


def _asyncio_like(
    make_loop: Callable[[], Any], *needs: str, install: Callable[[], Api] = _add_reader, watch: str = "add_reader"
) -> Host:
    runner = _runner(make_loop)
    return Host(
        lambda: AsyncioRig(runner, lambda: of_a_bridge(attach())), lambda: AsyncioRig(runner, install), watch, needs
    )


# -- trio


def _watching_tasks(nursery: Any) -> Api:
    wait_readable = import_module("trio").lowlevel.wait_readable

    async def watching(fd: int, callback: Callable[..., object]) -> None:
        while True:
            await wait_readable(fd)
            callback(fd, READABLE)

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        nursery.start_soon(watching, fd, callback)
        return fd

    return handles_only(add_handle)


# -- loops of callbacks: a function for each makes its rig, with the six functions that ``api(loop)`` gives


def _glib(api: Callable[[Any], Api]) -> Rig:
    glib: Any = import_module("gi.repository.GLib")
    loop = glib.MainLoop()

    def later(seconds: float, resume: Resume) -> None:
        glib.timeout_add(round(seconds * 1000), resume)  # once, for it returns nothing

    return CallbackRig(api(glib), later, loop.run, loop.quit)


def _unix_fd_add(glib: Any) -> Api:
    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        source: int = glib.unix_fd_add_full(glib.PRIORITY_DEFAULT, fd, glib.IOCondition.IN, callback)
        return source

    return handles_only(add_handle)


def _gevent(api: Callable[[Any], Api]) -> Rig:
    gevent, event = import_module("gevent"), import_module("gevent.event").Event()
    loop = gevent.get_hub().loop
    timers = []  # gevent does not hold them

    def later(seconds: float, resume: Resume) -> None:
        timers.append(loop.timer(seconds))
        timers[-1].start(resume)

    return CallbackRig(api(loop), later, event.wait, event.set)


def _io(loop: Any) -> Api:
    watchers = []

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        watchers.append(loop.io(fd, READABLE))
        watchers[-1].start(callback, fd, READABLE)
        return fd

    return handles_only(add_handle)


def _twisted(api: Callable[[Any], Api]) -> Rig:
    reactor: Any = import_module("twisted.internet.reactor")
    return CallbackRig(api(reactor), reactor.callLater, partial(reactor.run, False), reactor.stop)


def _add_reader_of_twisted(reactor: Any) -> Api:
    interfaces: Any = import_module("twisted.internet.interfaces")

    @import_module("zope.interface").implementer(interfaces.IReadDescriptor)
    class Reader:
        def __init__(self, fd: int, callback: Callable[..., object]) -> None:
            self._fd, self._callback = fd, callback

        def fileno(self) -> int:
            return self._fd

        def doRead(self) -> None:
            self._callback(self._fd, READABLE)

        def connectionLost(self, reason: object) -> None: ...

        def logPrefix(self) -> str:
            return "watch"

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        reactor.addReader(Reader(fd, callback))
        return fd

    return handles_only(add_handle)


def _qt_application() -> Any:
    return import_module("eventbridge.adapters.hosts.qt").application()


def _qt(api: Callable[[Any], Api]) -> Rig:
    application, core = _qt_application(), import_module("PySide6.QtCore")
    return CallbackRig(
        api(core),
        lambda seconds, resume: core.QTimer.singleShot(round(seconds * 1000), resume),
        application.exec,
        application.quit,
    )


def _socket_notifier(core: Any) -> Api:
    notifiers = []

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        notifiers.append(core.QSocketNotifier(fd, core.QSocketNotifier.Type.Read))
        notifiers[-1].activated.connect(callback)
        return fd

    return handles_only(add_handle)


def _pyuv(api: Callable[[Any], Api]) -> Rig:
    pyuv: Any = import_module("pyuv")
    loop = pyuv.Loop()
    timers = []

    def later(seconds: float, resume: Resume) -> None:
        timers.append(pyuv.Timer(loop))
        timers[-1].start(lambda _: resume(), seconds, 0)

    return CallbackRig(api(loop), later, loop.run, loop.stop)


def _poll(loop: Any) -> Api:
    pyuv: Any = import_module("pyuv")
    polls = []

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        polls.append(pyuv.Poll(loop, fd))
        polls[-1].start(pyuv.UV_READABLE, callback)
        return fd

    return handles_only(add_handle)


def _bridge_on(name: str, *loop: Any) -> Api:
    host: Any = factory(name)
    return of_a_bridge(Bridge(host(*loop)))


def _callbacks(
    rig: Callable[..., Rig], bridge: Callable[[Any], Api], watches: Callable[[Any], Api], watch: str, *needs: str
) -> Host:
    return Host(partial(rig, bridge), partial(rig, watches), watch, needs)


# -- selectors


def _bridge_on_selector(make: Callable[[], selectors.BaseSelector]) -> Rig:
    host: Any = factory("select")
    on = host(make())
    return TurnRig(of_a_bridge(Bridge(on)), on.run_once)


def _registrations(make: Callable[[], selectors.BaseSelector]) -> Rig:
    selector = make()

    def add_handle(fd: int, events: int, callback: Callable[..., object], opaque: object) -> int:
        if fd >= SELECT_LIMIT and make is selectors.SelectSelector:
            raise Unfit(f"select(2) takes no fd of {SELECT_LIMIT} or above")
        selector.register(fd, selectors.EVENT_READ, callback)
        return fd

    def turn() -> None:
        for key, events in selector.select():
            key.data(key.fd, events)

    return TurnRig(handles_only(add_handle), turn)


def _selector(name: str) -> Host:
    make = getattr(selectors, name)
    return Host(partial(_bridge_on_selector, make), partial(_registrations, make), f"{name}.register")


HOSTS: dict[str, Host] = {
    "asyncio": _asyncio_like(asyncio.new_event_loop),
    "uvloop": _asyncio_like(_new_loop("uvloop"), "uvloop"),
    "rloop": _asyncio_like(_new_loop("rloop"), "rloop"),
    "tornado": _asyncio_like(asyncio.new_event_loop, "tornado", install=_add_handler, watch="IOLoop.add_handler"),
    "gbulb": _asyncio_like(_gbulb, "gbulb"),
    "qasync": _asyncio_like(_qasync, "qasync", "PySide6"),
    "trio": Host(
        lambda: TrioRig(lambda _: of_a_bridge(attach())),
        lambda: TrioRig(_watching_tasks),
        "a task around wait_readable",
        ("trio",),
    ),
    "glib": _callbacks(_glib, lambda _: _bridge_on("glib"), _unix_fd_add, "GLib.unix_fd_add_full", "gi"),
    "gevent": _callbacks(_gevent, lambda _: _bridge_on("gevent"), _io, "hub.loop.io", "gevent"),
    "twisted": _callbacks(
        _twisted, lambda _: _bridge_on("twisted"), _add_reader_of_twisted, "reactor.addReader", "twisted"
    ),
    "qt": _callbacks(_qt, lambda _: _bridge_on("qt"), _socket_notifier, "QSocketNotifier", "PySide6"),
    "libuv": _callbacks(_pyuv, partial(_bridge_on, "libuv"), _poll, "pyuv.Poll", "pyuv"),
    "select": _selector("SelectSelector"),
    "poll": _selector("PollSelector"),
    "epoll": _selector("EpollSelector"),
}
