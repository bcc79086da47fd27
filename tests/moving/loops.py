"""Loops to move between, and what a bridge has on it when it moves.

A `Loop` is a host whose loop is run by a thread of its own, or by the test's; `Witness` is told from whatever thread
makes the passes, and says at once where two made them together or none was allowed to (D1)."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from time import monotonic, monotonic_ns
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.core.host import RunnableHost
from eventbridge.errors import BridgeClosed, HostUnavailable, UnknownHandle
from tests.support import wanted
from tests.support.patience import PATIENCE

MAIN = ["asyncio", "uvloop", "libuv", "select", "trio", "glib", "gevent", "twisted", "qt"]
MORE = ["tornado", "gbulb"]

PERIOD = 2
"""Milliseconds of the witness's timeout."""


def _on_asyncio(make: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
    loop = make()
    return AsyncioHost(loop), loop.close  # a loop given to a host is not the host's to close


def _by(name: str, kind: str, **options: Any) -> tuple[Any, Callable[[], object]]:
    host = getattr(wanted.adapter(name), kind)(**options)
    return host, host.close


def _libuv() -> tuple[Any, Callable[[], object]]:
    adapter = wanted.adapter("libuv")
    loop = adapter.uv.Loop()
    keep = adapter.uv.Async(loop, lambda _: None)  # a libuv loop that has nothing to wait for ends

    def close() -> None:
        keep.close()
        loop.run()

    return adapter.LibuvHost(loop), close


def _gbulb() -> Any:
    return wanted.module("gbulb").GLibEventLoop(context=wanted.module("gi.repository.GLib").MainContext.new())


HOSTS: dict[str, Callable[[], tuple[Any, Callable[[], object]]]] = {
    "asyncio": functools.partial(_by, "asyncio", "AsyncioHost"),
    "uvloop": lambda: _on_asyncio(wanted.module("uvloop").new_event_loop),
    "libuv": _libuv,
    "select": functools.partial(_by, "select", "SelectHost"),
    "trio": functools.partial(_by, "trio", "TrioHost"),
    "glib": functools.partial(_by, "glib", "GlibHost", apart=True),
    "gevent": functools.partial(_by, "gevent", "GeventHost", apart=True),
    "twisted": functools.partial(_by, "twisted", "TwistedHost", apart=True),
    "qt": functools.partial(_by, "qt", "QtHost", apart=True),
    "tornado": lambda: _on_asyncio(lambda: wanted.module("tornado.ioloop").IOLoop(make_current=False).asyncio_loop),
    "gbulb": lambda: _on_asyncio(_gbulb),
}
"""By name: a fresh host, and what closes its loop.  Not rloop: of a hundred times that its 0.5.0 is given the fd before
it runs, it forgets it once."""


class Loop:
    """One host's; run by whoever calls `run`, or by a thread of its own from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        self.name = name
        made, self._close = HOSTS[name]()
        self.host: RunnableHost = made
        self.raised: list[BaseException] = []
        self._thread: threading.Thread | None = None

    @property
    def thread(self) -> int:
        """0 while none runs it."""
        return self._thread.ident or 0 if self._thread is not None else 0

    def start(self) -> Loop:
        """And wait until it turns."""
        self._thread = threading.Thread(target=self._run, name=f"loop of {self.name}", daemon=True)
        self._thread.start()
        turning = threading.Event()
        self.host.call_soon_threadsafe(turning.set)
        assert turning.wait(PATIENCE), f"{self.name} does not turn"
        return self

    def do(self, step: Callable[[], Any]) -> Any:
        """On its thread, outside of any pass."""
        done, results = threading.Event(), []

        def there() -> None:
            try:
                results.append(step())
            except BaseException as error:
                self.raised.append(error)
            done.set()

        self.host.call_soon_threadsafe(there)
        assert done.wait(PATIENCE), f"{self.name} does not do it"
        if self.raised:
            raise self.raised.pop()
        return results[0]

    def stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(HostUnavailable):  # closed, and about to end
                self.host.call_soon_threadsafe(self.host.stop)
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), f"{self.name} does not stop"
        self._thread = None

    def _run(self) -> None:
        try:
            self.host.run()
        except BaseException as error:
            self.raised.append(error)

    def close(self) -> None:
        self.stop()
        self.host.close()
        self._close()
        assert not self.raised, self.raised


@contextlib.contextmanager
def loops(*names: str) -> Iterator[dict[str, Loop]]:
    """So many, none of them running; closed, whatever runs of them stopped, in the end."""
    with contextlib.ExitStack() as closing:
        made: dict[str, Loop] = {}
        for name in names:
            made[name] = Loop(name)
            closing.callback(made[name].close)
        yield made


class Witness:
    """What every bridge in these tests carries: a timeout that ticks, one that is armed anew each time, one that is
    turned off; and a look at each callback that it is told of: `saw`."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.errors: list[str] = []
        self.ticks = 0
        self._since = monotonic_ns()
        self._armed = 0
        self.threads: dict[int, int] = {}
        """How often it was called on which."""
        self._inside: list[int] = []
        self._changed = threading.Condition()
        self._ids = [bridge.add_timeout(PERIOD, self._tick), bridge.add_timeout(-1, self._never)]
        self._ids.append(bridge.add_timeout(PERIOD, self._again))

    @contextlib.contextmanager
    def saw(self) -> Iterator[None]:
        """Around a callback."""
        me = threading.get_ident()
        self._inside.append(me)
        if self._inside != [me] * len(self._inside):
            self.errors.append(f"two threads are inside callbacks: {self._inside}")
        if not self.bridge.is_loop_thread():
            self.errors.append(f"called on a thread that does not run {self.bridge!r}")
        self.threads[me] = self.threads.get(me, 0) + 1
        try:
            yield
        finally:
            self._inside.remove(me)
            self.changed()

    def changed(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, happened: Callable[[], object], why: Callable[[], object] = lambda: "") -> None:
        """Wait, on a thread that runs no loop."""
        give_up = monotonic() + PATIENCE
        with self._changed:
            while not happened() and not self.errors and monotonic() < give_up:
                self._changed.wait(0.02)  # not all that is waited for is told
        assert happened(), f"this never came true on {self.bridge!r}: {why()} {self.errors}"

    def check(self) -> None:
        """Nothing was wrong, and it did not tick more often than its period lets it (T4)."""
        assert not self.errors, self.errors[:5]
        assert self.ticks <= (monotonic_ns() - self._since) / (PERIOD * 1_000_000)

    def end(self) -> None:
        for id in self._ids:
            self.bridge.remove_timeout(id)
        self.check()

    def _tick(self, id: int, opaque: object) -> None:
        with self.saw():
            self.ticks += 1

    def _again(self, id: int, opaque: object) -> None:
        with self.saw():
            if self._armed and monotonic_ns() < self._armed + PERIOD * 1_000_000:
                self.errors.append("a timeout was called early (T3), or twice")
            self._armed = monotonic_ns()
            with contextlib.suppress(UnknownHandle, BridgeClosed):  # decided on before it was removed (H6)
                self.bridge.update_timeout(id, PERIOD)

    def _never(self, id: int, opaque: object) -> None:
        self.errors.append("a timeout that is turned off was called")


def tour(names: list[str]) -> list[str]:
    """A walk that begins at the first, takes every way from one to another once, and ends where it began: Hierholzer's
    way to find one."""
    ways = {name: [other for other in names if other != name] for name in names}
    walk: list[str] = []
    path = [names[0]]
    while path:
        if ways[path[-1]]:
            path.append(ways[path[-1]].pop())
        else:
            walk.append(path.pop())
    return walk[::-1]


@contextlib.contextmanager
def travelling(loop: Loop, errors: list[Any]) -> Iterator[tuple[Bridge, Witness]]:
    bridge = Bridge(loop.host, on_error=lambda error, context: errors.append((error, context)))
    witness = Witness(bridge)
    yield bridge, witness
    bridge.close()
    assert not errors
