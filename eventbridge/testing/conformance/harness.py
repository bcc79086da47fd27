"""The rig: a bridge on the host under test, with its loop run by the test's thread, or by a thread of its own.

A conformance test is written once and run both ways.  It never sleeps: callbacks note what they saw with `Rig.note`,
and the test waits with `Rig.until` for a condition over the notes.  What must *not* happen is given its chance by
`Rig.settle`, which lets three more rounds go by.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.core.host import HostLoop
from eventbridge.core.masks import Events
from eventbridge.core.poller import PollerProtocol
from eventbridge.errors import HostUnavailable

from ..patience import PATIENCE


class Rig:
    """One bridge, one loop, what its callbacks noted, and the fds a test opened."""

    def __init__(
        self, host: HostLoop, own_thread: bool, poller: PollerProtocol | None = None, patience: float = PATIENCE
    ) -> None:
        self.patience = patience
        self.notes: list[Any] = []
        self.errors: list[tuple[BaseException, str]] = []
        self.own_thread = own_thread
        self._changed = threading.Event()  # something was noted, or the loop has ended
        self._fds: list[int] = []
        self._raised: BaseException | None = None
        self._always = os.eventfd(1)  # readable for ever; opened first, so that no closed number is reused for it
        self.own(self._always)
        self.bridge = Bridge(host, on_error=self._on_error, poller=poller)
        self._thread: threading.Thread | None = None
        if own_thread:
            self.start()

    # -- the loop

    def start(self) -> None:
        """Run the loop in a thread of its own, and wait until it has made a pass: by the bridge's means, for the host's
        own may be what is broken.
        """
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        turning = threading.Event()
        self.bridge._dispatcher.after_pass(turning.set)
        self.bridge._registry.wake()
        self._thread.start()
        assert turning.wait(self.patience), "the loop does not turn"

    def _run(self) -> None:
        try:
            self.bridge.run()
        except BaseException as error:
            self._raised = error
        self._changed.set()

    def until(self, condition: Callable[[], object]) -> None:
        """Let the loop run until the condition holds; an AssertionError with the notes where it never does."""
        if self._thread is None:
            self.bridge.run(lambda: bool(condition()), self.patience)
        else:
            self.wait_for(condition)
        assert condition(), f"this never came true; noted: {self.notes[-20:]}, errors: {self.errors[-5:]}"

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Leave the loop to its own thread until the condition holds, or patience is at its end.

        No lock is held over the notes: a loop that notes without end took it again each time before this thread woke,
        for 5 s once.
        """
        end = time.monotonic() + self.patience
        while not (condition() or self._raised) and time.monotonic() < end:
            self._changed.wait(0.02)  # not all that is waited for is noted: look again by and by
            self._changed.clear()

    def settle(self, rounds: int = 3) -> None:
        """Let so many rounds go by: whatever else was to happen has happened then."""
        seen = 0

        def count(id: int, fd: int, events: int, opaque: Any) -> None:
            nonlocal seen
            seen += 1
            self._changed.set()

        handle = self.bridge.add_handle(self._always, Events.READABLE, count)
        self.until(lambda: seen >= rounds)
        self.bridge.remove_handle(handle)

    @property
    def loop_thread(self) -> int:
        """The ``threading.get_ident()`` of the thread that runs the loop.  Known, not asked of a callback: a host that
        calls on threads of its own making may have the same number reused each time.
        """
        return threading.get_ident() if self._thread is None else self._thread.ident or 0

    @property
    def passes(self) -> int:
        """How many passes there were.  Cheap: `Bridge.stats` looks at every handle."""
        return self.bridge._dispatcher.passes

    def quiet(self) -> int:
        """How many passes the loop makes in 20 ms: an idle one a few, one that spins a thousand, for ever."""
        self.settle()
        passes = self._passes_in_a_while()
        # On a busy machine a loop may have wake-ups left of when there was work (rloop, two dozen): it has had them.
        return passes if passes < 20 else self._passes_in_a_while()

    def _passes_in_a_while(self) -> int:
        before = self.passes
        if self._thread is None:
            self.bridge.run(timeout=0.02)
        else:
            self._thread.join(0.02)  # it does not end: this is the time that an idle loop is given to spin in
        return self.passes - before

    def on_loop(self, call: Callable[[], Any]) -> Any:
        """Make a call on the loop's thread, in a callback, and return what it returned."""
        results: list[Any] = []

        def fire(id: int, opaque: Any) -> None:
            self.bridge.remove_timeout(id)
            try:
                results.append(call())
            except BaseException as error:
                results.append(error)
            self.note("on_loop")

        self.bridge.add_timeout(0, fire)
        self.until(lambda: results)
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    def from_thread(self, call: Callable[[], Any]) -> Any:
        """Make a call on a third thread, and wait for it."""
        results: list[Any] = []

        def run() -> None:
            try:
                results.append(call())
            except BaseException as error:
                results.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.patience)
        assert results, "the call never returned"
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    # -- what callbacks do

    def note(self, what: Any) -> None:
        self.notes.append(what)
        if not self._changed.is_set():
            self._changed.set()

    def noted(self, what: Any) -> int:
        """How often."""
        return self.notes.count(what)

    def noting(self, name: str) -> Callable[..., None]:
        """A callback of either kind, or a free, that notes its name and leaves everything as it is."""
        return lambda *_: self.note(name)

    def reading(self, name: str) -> Callable[[int, int, int, Any], None]:
        """A handle's callback that drains its fd and notes (name, events)."""

        def callback(id: int, fd: int, events: int, opaque: Any) -> None:
            if events & Events.READABLE:
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 65536)
            self.note((name, events))

        return callback

    def _on_error(self, error: BaseException, context: str) -> None:
        self.errors.append((error, context))
        self.note("error")

    # -- fds

    def own(self, *fds: int) -> None:
        """To be closed at the end, unless the test did."""
        self._fds.extend(fds)

    def pipe(self, content: bytes = b"") -> tuple[int, int]:
        """A reader and a writer, non-blocking, with something in it."""
        reader, writer = os.pipe()
        self.own(reader, writer)
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        if content:
            os.write(writer, content)
        return reader, writer

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a stream, non-blocking."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.own(ours.detach(), theirs.detach())
        return socket.socket(fileno=self._fds[-2]), socket.socket(fileno=self._fds[-1])

    def close(self, fd: int) -> None:
        self._fds.remove(fd)
        os.close(fd)

    def end(self) -> None:
        """Stop the loop, close the bridge, close the fds."""
        if self._thread is not None:
            if self._thread.is_alive() and not self.bridge.closed:
                with contextlib.suppress(Exception):
                    self.bridge.add_timeout(0, lambda *_: self.bridge.host.stop())  # type: ignore[attr-defined]  # it is ours to run
            elif self._thread.is_alive():
                stop = getattr(self.bridge.host, "stop", None)
                if stop is not None:
                    with contextlib.suppress(HostUnavailable):  # closed: it is about to end by itself
                        self.bridge.host.call_soon_threadsafe(stop)
            self._thread.join(self.patience)
            assert not self._thread.is_alive(), "the loop does not stop"
        self.bridge.close()
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)


@contextlib.contextmanager
def raises(*kinds: type[BaseException]) -> Iterator[list[BaseException]]:
    """Like pytest's, without needing it: the block must raise one of these; yields a list that then holds it."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
    else:
        raise AssertionError(f"nothing was raised; one of {[kind.__name__ for kind in kinds]} should have been")


def busy(seconds: float) -> None:
    """Occupy this thread, as a slow callback does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
