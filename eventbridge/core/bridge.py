"""BridgeCore: what hypervisor libraries are plugged into.

It joins a registry (what is wanted), a poller (one fd that is readable when there is work), a dispatcher (one pass
over that work) and a host loop (whoever calls the dispatcher), and owns their lifetimes: attaching, moving to another
host (D9), closing (D8), forking (D7).  Any thread may call it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Self, TypeVar

from eventbridge.errors import BridgeForked, HostUnavailable, UnknownHandle

from . import host_lookup
from .affinity import hook_side, loop_side
from .binding import Berth
from .dispatcher import Dispatcher
from .handles import FreeCallback, Handle, HandleCallback, TimeoutCallback, cannot_watch, check_fd
from .host import HostLoop, RunnableHost, on_loop, runs_here
from .host_lookup import awaiting
from .masks import effective
from .models import AttachedSource, DirectSource
from .observed import Observation
from .observer import ObservedLink, Observer
from .poll_poller import best_poller
from .poller import PollerProtocol
from .registry import Registry
from .runs import Runs
from .safepoint import Between
from .timers import Timer
from .transfer import give

ErrorHandler = Callable[[BaseException, str], None]
_Item = TypeVar("_Item")
LONGEST_TIMEOUT = 2**31 - 1
"""Milliseconds: what fits libvirt's C int; 24 days."""


class BridgeCore:
    """One dispatcher on one host loop, without what its operator asks of it (`eventbridge.bridge.Bridge`).

    ``host`` is a name (``"select"``, ``"libuv"``, ``"asyncio"``...), a `HostLoop`, or None for the loop that is
    running in this thread.  By name, a host that finds no running loop makes one of its own, to be run by `run`.
    ``on_error(exception, context)`` is called with each exception of a callback or free, on the loop thread; without
    it the host loop's own exception handler is.

    Raises `HostUnavailable` where there is no such host or no such loop.  Every method may be called from any thread
    unless it says otherwise. Upstream of the six: libvirt's ``virEventRegisterImpl`` (libvirt-event.h).
    """

    def __init__(
        self,
        host: HostLoop | str | None = None,
        *,
        on_error: ErrorHandler | None = None,
        poller: PollerProtocol | None = None,
    ) -> None:
        if host is None:
            host = host_lookup.running()
        elif isinstance(host, str):
            host = host_lookup.by_name(host)
        elif not isinstance(host, HostLoop):
            raise TypeError(
                f"host must be a name, a HostLoop or None, not {host!r}; "
                "a loop of yours goes into its host first: AsyncioHost(loop)"
            )
        self._on_error = on_error
        self._poller = poller or best_poller()
        self._registry = Registry(self._poller)
        self._dispatcher = Dispatcher(self._registry, self.is_loop_thread, self._report, self._rebuild)
        self._sources: dict[int, tuple[DirectSource, AttachedSource]] = {}
        self._closed = threading.Event()
        self._runs = Runs(self._dispatcher)
        self._berth = Berth(host, self._poller.fileno(), self._dispatcher, self)
        self._between = Between(self._registry, self._dispatcher, lambda: self._berth.serving)
        self.observers: tuple[Observer, ...] = ()
        """Who observes this bridge now."""
        self._observation = Observation(
            self._dispatcher, self._berth, self._watch_anew, lambda: self.closed, self._observed_by
        )
        self.links: weakref.WeakSet[ObservedLink] = weakref.WeakSet()
        """The connections on this bridge, for its observers."""
        self.moves = 0
        """How often it was moved to another host."""
        try:
            self._berth.begin()
        except BaseException:
            self._poller.close()
            raise
        _living.add(self)
        for born in list(BORN):
            born(self)

    # -- handles and timeouts: the hook side

    @hook_side
    def add_handle(
        self,
        fd: int,
        events: int,
        callback: HandleCallback,
        opaque: Any = None,
        free: FreeCallback | None = None,
        *,
        unpack: bool = False,
    ) -> int:
        """Watch a file descriptor; returns its id, 1 or more, never used again in this bridge's life (H1).

        ``callback(id, fd, events, opaque)`` is called on the loop's thread, for as long as the fd is ready for
        ``events``, a combination of `Events`; ERROR and HANGUP are reported asked for or not, and 0 turns the handle
        off (H2).  ``free(opaque)`` is called once on the loop's thread after the handle is removed (H7).  The bridge
        never closes ``fd`` nor changes its flags (H10).  With ``unpack`` the call is ``callback(id, fd, events,
        opaque[0], opaque[1])``, which spares a C function the Python one that would take ``opaque`` apart for it.

        Raises TypeError, ValueError, OSError (EBADF for an fd that is not open), `BridgeClosed` or `BridgeForked`;
        nothing is then registered, and ``free`` will not be called.
        """
        if type(fd) is not int or fd < 0:
            fd = check_fd(fd)
        mask = effective(events)
        if not callable(callback):
            raise TypeError(f"callback must be callable, as callback(id, fd, events, opaque); found {callback!r}")
        if free is not None and not callable(free):
            raise TypeError(f"free must be callable, as free(opaque), or None; found {free!r}")
        try:
            return self._registry.add_handle(Handle(fd, mask, callback, opaque, free, unpack))
        except OSError as error:
            raise cannot_watch(fd, error) from None

    @hook_side
    def update_handle(self, id: int, events: int) -> None:
        """Change what a handle asks for, at once (H5).  `UnknownHandle` for an id that is not registered; OSError
        EBADF, and nothing changed, where its fd was closed.
        """
        self._registry.update_handle(id, effective(events))

    @hook_side
    def remove_handle(self, id: int) -> None:
        """No call starts after this returns on the loop's thread; from another, at most one that was decided already
        (H6). Raises `UnknownHandle`.
        """
        self._registry.remove_handle(id)

    @hook_side
    def add_timeout(
        self,
        ms: int,
        callback: TimeoutCallback,
        opaque: Any = None,
        free: FreeCallback | None = None,
        *,
        unpack: bool = False,
    ) -> int:
        """Call ``callback(id, opaque)`` on the loop's thread every ``ms`` milliseconds, first after ``ms``; 0: in
        every pass of the loop; -1: not until updated (T1).  Never early (T3).  Returns an id as `add_handle` does, of
        a space of its own.

        Raises TypeError, ValueError (``ms`` beyond -1 .. 2**31-1), `BridgeClosed` or `BridgeForked`.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, as callback(id, opaque); found {callback!r}")
        if free is not None and not callable(free):
            raise TypeError(f"free must be callable, as free(opaque), or None; found {free!r}")
        return self._registry.add_timeout(Timer(callback, opaque, free, unpack), _milliseconds(ms))

    @hook_side
    def update_timeout(self, id: int, ms: int) -> None:
        """Re-arm a timeout from now, at once, also while the loop sleeps (T2).  Raises `UnknownHandle`, and as
        `add_timeout`.
        """
        self._registry.update_timeout(id, _milliseconds(ms))

    @hook_side
    def remove_timeout(self, id: int) -> None:
        """As `remove_handle`."""
        self._registry.remove_timeout(id)

    # -- direct-fd sources

    def add_source(self, source: DirectSource) -> None:
        """Serve a library of the direct-fd model: poll its fd for what it wishes, drain it, mind its deadline."""
        if id(source) in self._sources:
            raise ValueError(f"{source!r} is on this bridge already")
        self._sources[id(source)] = (source, AttachedSource(self, source, self._registry.lock))

    def update_source(self, source: DirectSource) -> None:
        """Ask the source again for its events and its deadline: they have changed outside its ``drain``."""
        self._attached(source).refresh()

    def remove_source(self, source: DirectSource) -> None:
        """Stop serving it; its ``detached`` is called on the loop's thread.  `UnknownHandle` where it is not on this
        bridge.
        """
        attached = self._attached(source)
        del self._sources[id(source)]
        attached.detach()

    def _attached(self, source: DirectSource) -> AttachedSource:
        try:
            return self._sources[id(source)][1]
        except KeyError:
            self._registry.check()
            raise UnknownHandle(f"{source!r} is not on this bridge") from None

    # -- running, where the loop is ours to run

    def run(self, until: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
        """Run the host's loop in this thread until ``until()`` is true (asked first, then after every pass), `stop`
        is called, the bridge has moved to another host, or ``timeout`` seconds have passed.  False only for the
        timeout.  A condition that another thread makes true is seen after the next pass: that thread calls `stop` too,
        or anything that makes one.

        For hosts that are ours to run (`RunnableHost`): all that eventbridge brings, where nobody else runs their
        loop.  `HostUnavailable` for others.
        """
        self._registry.check()
        host = self.host
        if not isinstance(host, RunnableHost):
            raise HostUnavailable(f"the {host.name} loop is not ours to run: run it as its own documentation says")
        if until is not None and until():
            return True
        expired: list[int] = []

        def expire(id: int, opaque: Any) -> None:
            expired.append(id)
            on_loop(host, host.stop)

        deadline = Timer(expire, None, None)
        try:
            if timeout is not None:
                with self._registry.lock:
                    self._registry.set_timer(deadline, max(1, -int(-timeout * 1000 // 1)))
            self._runs.run(host, until)
        finally:
            with self._registry.lock:
                self._registry.timers.forget(deadline)
        return not expired or (until is not None and until())

    def stop(self) -> None:
        """End `run`.  Any thread, and from within a callback."""
        self._registry.check()
        host = self.host
        if not isinstance(host, RunnableHost):
            raise HostUnavailable(f"the {host.name} loop is not ours to stop")
        on_loop(host, host.stop)

    # -- the whole bridge

    @property
    def host(self) -> HostLoop:
        """The host loop it is on, or, while it is moved, is to be on."""
        return self._berth.host

    @property
    def closed(self) -> bool:
        return self._registry.refusal is not None

    @property
    def forked(self) -> bool:
        """Is it the parent's, of which this process is a forked child (D7)?"""
        return self._registry.refusal is BridgeForked

    def check(self) -> None:
        """Raises `BridgeClosed` or `BridgeForked` where nothing can be registered any more."""
        self._registry.check()

    def is_loop_thread(self) -> bool:
        """Is this the thread that runs the host loop (or does nobody run it now)?"""
        return self._berth.serving.is_loop_thread()

    def is_running_here(self) -> bool:
        """Does this very thread run the host loop now?  Whoever is about to block asks this."""
        serving, host = self._berth.serving, self.host
        return runs_here(serving) or (host is not serving and runs_here(host))

    def is_empty(self) -> bool:
        """Is nothing registered, and every ``free`` called?"""
        return self._registry.is_empty()

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait, in a task of the host loop, until nothing is registered and every ``free`` is called; False after
        ``timeout`` seconds. May be awaited by several at once.  On a host without tasks:
        ``bridge.run(until=bridge.is_empty)``.
        """
        host = awaiting(self.host, "use bridge.run(until=bridge.is_empty, timeout=...)")
        waiting: list[Callable[[], None]] = []

        def subscribe(done: Callable[[], None]) -> None:
            waiting.append(done)
            self._registry.drained_to.append(done)
            on_loop(self._berth.serving, self._tell_drained)

        if self._registry.is_empty():
            return True
        try:
            return await host.wait_for(subscribe, timeout)
        finally:
            for done in waiting:
                with contextlib.suppress(ValueError):
                    self._registry.drained_to.remove(done)

    def _tell_drained(self) -> None:
        """After every pass while somebody drains."""
        waiting = self._registry.drained_to
        if waiting and not self._registry.is_empty():
            self._dispatcher.after_pass(self._tell_drained)
        elif waiting:
            for done in list(waiting):
                done()

    def move(self, host: HostLoop | str) -> None:
        """Go on on another host loop with everything that is registered (D9); nothing happens where it is there
        already.  From any thread; both loops may be running, or neither.

        The old loop's last pass is over before the new one's first begins.  Where another thread runs the old one it
        is asked to let go, and this returns: what was to be closed of it may be, by a call that is left there after
        this one.  `HostUnavailable` where the new host cannot take the bridge: it stays where it was.  Where that is
        found out only on another thread, ``on_error`` is told.
        """
        self._registry.check()
        new = host_lookup.by_name(host) if isinstance(host, str) else host
        if not isinstance(new, HostLoop):
            raise TypeError(f"host must be a name or a HostLoop, not {host!r}")
        was = self.host
        self._berth.move(new)
        self.moves += new is not was

    def between_passes(self, step: Callable[[], None]) -> None:
        """Call ``step()`` once, when no callback is under way and none begins meanwhile: at once where nobody runs the
        loop, or this thread does and is in no callback, or the bridge is closed; else on the loop's thread, soon.
        Any thread; it waits for nothing.  `close` makes what is left of such calls first.
        """
        self._between.add(step)

    def transfer(self, to: BridgeCore, free: FreeCallback) -> tuple[dict[int, int], dict[int, int]]:
        """Carry what was registered with this very ``free`` function, and only that, to another bridge, with the
        calls of it that are owed.

        So what one library has here follows it to where it is installed next, and the rest stays.  Ids are kept but
        for those that the other bridge has given out itself: returned are the new ids by the old, of handles and of
        timeouts; their callbacks are told the old ones still; 0 is for what is lost with a bridge that is closed.
        Any thread; a callback that is under way is not waited for (see `between_passes`).
        """
        to._registry.check()
        return give(self._registry, to._registry, free)

    def close(self) -> None:
        """Remove every handle and timeout, call every ``free``, and be gone (D8).  Idempotent; any thread; returns at
        once.

        Where another thread runs the loop the frees are called there, soon; inside a callback, when the pass is over.
        """
        self._between.take()
        if not self._registry.close():
            return
        _living.discard(self)
        self._between.take()  # what has come between the two

        self._berth.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = (
            "closed"
            if self.closed
            else f"{len(self._registry.handles)} handles, {len(self._registry.timeouts)} timeouts"
        )
        return f"<Bridge on {self.host.name}: {state}>"

    # -- observers

    def observe(self, observer: Observer) -> None:
        """Call the observer from now on; of callbacks, from the next pass on.  Any thread.

        It is called at once with each connection that there is.
        """
        self._observation.add(observer)
        for link in _copy(self.links):
            observer.linked(link, "")

    def unobserve(self, observer: Observer) -> None:
        """Stop calling the observer.  Any thread; idempotent."""
        self._observation.remove(observer)

    def _observed_by(self, observers: tuple[Observer, ...]) -> None:
        self.observers = observers

    # -- for the dispatcher and the host

    def has_left(self, host: HostLoop) -> None:
        """As `binding.Mover.has_left`."""
        self._runs.end(host)

    def has_ended(self, host: HostLoop) -> None:
        """As `binding.Mover.has_ended`."""
        while self._registry.frees:
            self._dispatcher.run_frees(len(self._registry.frees))
        self._tell_drained()
        self._poller.close()
        if isinstance(host, RunnableHost):
            host.close()
        self._closed.set()

    def could_not_move(self, error: HostUnavailable) -> None:
        """As `binding.Mover.could_not_move`."""
        self._report(error, "while it was moved")

    def _rebuild(self) -> None:
        """Leave ghosts behind (H11): the host must look away while the poller's fd becomes another file."""
        self._watch_anew(self._registry.table.rebuild)

    @loop_side
    def _watch_anew(self, step: Callable[[], None] = lambda: None) -> None:
        """Take a step under the lock while the host looks away.  The loop's thread."""
        host = self._berth.serving
        host.unwatch(self._poller.fileno())
        try:
            with self._registry.lock:
                step()
        finally:
            host.watch(self._poller.fileno(), self._dispatcher.run_pass)

    def _report(self, error: BaseException, context: str) -> None:
        if self._on_error is not None:
            self._on_error(error, context)
        else:
            self._berth.serving.report(error, f"{context} of {self!r}")

    def _forked(self) -> None:
        """In the child: refuse everything, touch nothing (D7)."""
        self._registry.abandon()


def _milliseconds(ms: object) -> int:
    if type(ms) is int and -1 <= ms <= LONGEST_TIMEOUT:  # as nearly always
        return ms
    if not isinstance(ms, int):
        raise TypeError(f"ms must be a whole number of milliseconds, or -1 to disable; found {ms!r}")
    if not -1 <= ms <= LONGEST_TIMEOUT:
        raise ValueError(f"ms must be between -1 (disabled) and {LONGEST_TIMEOUT}; found {ms}")
    return ms


_living: weakref.WeakSet[BridgeCore] = weakref.WeakSet()
BORN: list[Callable[[BridgeCore], object]] = []
"""Called with each bridge that is made, on the thread that makes it."""


def living() -> list[BridgeCore]:
    """Return every bridge of this process that is not closed.  Any thread."""
    return _copy(_living)


def _copy(these: weakref.WeakSet[_Item]) -> list[_Item]:
    while True:
        with contextlib.suppress(RuntimeError):  # one was added meanwhile
            return list(these)


def _after_fork() -> None:
    for bridge in list(_living):
        bridge._forked()
    _living.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
