"""gevent: its hub, the greenlet that runs libev's loop (or libuv's) whenever all others of its thread wait.

Callbacks are made in the hub.  There they may do what never waits, and spawn a greenlet for the rest: gevent refuses
to block in its hub.  In every other greenlet ``call.result()`` waits as greenlets do, with the hub going on
(`SwitchingHost`); in the hub it refuses, as on any loop's own thread.

Facts it rests on: a hub belongs to a thread for ever, so the host of another's hub may be used, but not run, anywhere
else.  Of a loop only ``async_().send()`` may be called from other threads.  An exception that leaves a watcher's
callback stops the watcher; the hub throws KeyboardInterrupt and SystemExit into the main greenlet.  Under
``gevent.monkey.patch_all()`` threads are greenlets, which cannot stand in for them here: hypervisor libraries call from
threads of their own, and their calls block.  So it is refused; ``patch_all(thread=False)`` is served.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.hub
import gevent.monkey
from gevent._hub_local import get_hub_if_exists  # gevent.get_hub would make one

from eventbridge.core.loop_host import Callback, LoopHost
from eventbridge.errors import HostUnavailable

_READ = 1  # gevent's io watchers: 1 read, 2 write


class GeventHost(LoopHost):
    """``GeventHost()`` on this thread's hub, ``GeventHost(hub)`` on another's.  ``GeventHost(apart=True)`` is on none
    until `run`, and then on that of whichever thread runs it.
    """

    name = "gevent"

    def __init__(self, hub: Any = None, *, apart: bool = False) -> None:
        super().__init__()
        if gevent.monkey.is_module_patched("threading"):
            raise HostUnavailable(
                "gevent's threads are greenlets here, and hypervisor libraries need real ones: "
                "gevent.monkey.patch_all(thread=False)"
            )
        if hub is not None and not isinstance(hub, gevent.hub.Hub):
            raise TypeError(f"hub must be a gevent hub, not {hub!r}")
        self.loop: Any = None  # the hub, while there is one
        self._apart = apart
        self._async: Any = None
        self._watched: dict[int, Callback] = {}
        self._watchers: dict[int, Any] = {}
        self._ends: list[gevent.event.Event] = []  # of each run, the innermost last
        if not apart:
            self.loop = gevent.get_hub() if hub is None else hub

    @classmethod
    def running(cls) -> GeventHost | None:
        """The hub runs when this greenlet waits: it is enough that there is one."""
        hub = get_hub_if_exists()
        return None if hub is None else cls(hub)

    def watch(self, fd: int, callback: Callback) -> None:
        self._watched[fd] = callback
        if self.loop is not None:
            self._begin(fd)

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)
        _end(self._watchers.pop(fd, None))

    def call_soon_threadsafe(self, callback: Callback) -> None:
        if self.loop is not None and self.loop.dead:
            raise HostUnavailable("this gevent hub is destroyed")
        super().call_soon_threadsafe(callback)

    def wake(self) -> None:
        if self._async is not None:
            self._async.send()
        elif self.loop is not None:
            self.loop.loop.run_callback_threadsafe(self.run_soon)

    def is_loop_thread(self) -> bool:
        return self.loop is None or get_hub_if_exists() is self.loop

    def interrupted(self, error: BaseException) -> None:
        """As gevent does with it, the watcher going on."""
        self.loop.handle_system_error(type(error), error)

    def _begin(self, fd: int) -> None:
        watcher = self._watchers[fd] = self.loop.loop.io(fd, _READ)
        watcher.start(self.call, self._watched[fd])

    # -- RunnableHost

    def run_loop(self) -> None:
        with contextlib.ExitStack() as undo:
            if self._apart and self._running == 1:
                self._bind(undo)
            if not self.is_loop_thread():
                raise HostUnavailable("a gevent hub is run by its own thread: this is another's")
            if gevent.getcurrent() is self.loop:
                raise HostUnavailable("this is a callback of the hub's, which cannot run itself: spawn a greenlet")
            keep = self.loop.loop.async_()  # gevent ends a wait, with LoopExit, that has nothing to wait for
            keep.start(lambda: None)
            undo.callback(_end, keep)
            self._ends.append(gevent.event.Event())
            undo.callback(self._ends.pop)
            undo.enter_context(self.minding_signals())
            self._ends[-1].wait()

    def _bind(self, undo: contextlib.ExitStack) -> None:
        """To this thread's hub, for one run; it is destroyed afterwards if it was made for that."""
        is_new = get_hub_if_exists() is None
        self.loop = gevent.get_hub()
        if is_new:
            undo.callback(self.loop.destroy, destroy_loop=True)
        undo.callback(self._unbind)
        self._async = self.loop.loop.async_()
        self._async.start(self.run_soon)
        for fd in self._watched:
            self._begin(fd)
        self.wake()

    def _unbind(self) -> None:
        while self._watchers:
            _end(self._watchers.popitem()[1])
        bell, self._async, self.loop = self._async, None, None
        _end(bell)

    def stop_loop(self) -> None:
        self._ends[-1].set()

    def give_back(self) -> None:
        for fd in list(self._watched):
            self.unwatch(fd)

    # -- SwitchingHost

    def can_switch(self) -> bool:
        return self.loop is not None and self.is_loop_thread()

    def switch_until(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
        if gevent.getcurrent() is self.loop:
            raise HostUnavailable("this is a callback of the hub's, which cannot wait: spawn a greenlet")
        event = gevent.event.Event()
        hub = self.loop

        def done() -> None:
            if get_hub_if_exists() is hub:
                event.set()
            elif not hub.dead:  # the bridge has moved to another thread meanwhile
                hub.loop.run_callback_threadsafe(event.set)

        subscribe(done)
        return bool(event.wait(timeout))


def _end(watcher: Any) -> None:
    if watcher is not None:
        watcher.stop()
        watcher.close()
