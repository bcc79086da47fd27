"""What host adapters have in common whose loop runs in somebody else's C, or has no place for an exception to go.

A base for adapters, ours and others': it keeps the calls that other threads leave, the thread that runs the loop, the
exceptions that must come out of `run`, and how deep runs are nested.  An adapter derived from it says how its loop is
run, stopped, woken and told to watch; every callback of the loop's goes through `LoopHost.call`.

Fact it rests on: most loops swallow what leaves a callback (GLib, Qt, libuv print it, Twisted logs it and drops the
watch, gevent drops it), and KeyboardInterrupt and SystemExit are to propagate (D4).
"""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from eventbridge.errors import HostUnavailable

Callback = Callable[[], None]


class LoopHost:
    """Derive from it; give `name`, and those that raise NotImplementedError here."""

    name: str

    def __init__(self) -> None:
        self._soon: collections.deque[Callback] = collections.deque()
        self._thread: int | None = None  # who runs the loop, as far as is known
        self._running = 0  # runs of ours, one inside the other
        self._raised: BaseException | None = None
        self._closed = False
        self._waking = threading.RLock()  # a loop is woken only while it is open; a signal's handler may come in

    # -- what an adapter says

    def run_loop(self) -> None:
        """Run the loop in this thread until `stop_loop`."""
        raise NotImplementedError

    def stop_loop(self) -> None:
        """Have the innermost `run_loop` return.  The loop's thread."""
        raise NotImplementedError

    def wake(self) -> None:
        """Have `run_soon` called on the loop's thread, now or when it first runs.  Any thread."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Give back what was made for this host.  Called once, when the loop does not run."""
        raise NotImplementedError

    def interrupted(self, error: BaseException) -> None:
        """A callback raised KeyboardInterrupt or SystemExit in a loop that somebody else runs: have it end."""
        raise error

    def watch(self, fd: int, callback: Callback) -> None:
        """As `HostLoop.watch`; it calls by way of `call`."""
        raise NotImplementedError

    def unwatch(self, fd: int) -> None:
        """As `HostLoop.unwatch`."""
        raise NotImplementedError

    # -- HostLoop

    def call_soon_threadsafe(self, callback: Callback) -> None:
        with self._waking:
            if self._closed:
                raise HostUnavailable(f"this {self.name} loop is closed")
            self._soon.append(callback)
            self.wake()

    def is_loop_thread(self) -> bool:
        return self._thread is None or self._thread == threading.get_ident()

    def report(self, exception: BaseException, context: str) -> None:
        """These loops have no exception handler that can be asked: to standard error, as the interpreter would."""
        print(f"exception {context}:", file=sys.stderr)
        traceback.print_exception(exception, file=sys.stderr)

    # -- RunnableHost

    def run(self) -> None:
        if self._closed:
            raise HostUnavailable(f"this {self.name} loop is closed")
        outer, self._thread = self._thread, threading.get_ident()  # before it counts as running: see `stop`
        self._running += 1
        try:
            self.run_loop()
        finally:
            self._running -= 1
            self._thread = outer
            self._end_of_run()
        self._raise_kept()

    def _end_of_run(self) -> None:
        if self._closed and not self._running:
            self.give_back()

    def _raise_kept(self) -> None:
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def stop(self) -> None:
        if not self._running:
            return
        if self._thread == threading.get_ident():
            self.stop_loop()
        else:  # it has begun to run since this thread was told that nobody does
            self.call_soon_threadsafe(self.stop)

    def close(self) -> None:
        with self._waking:
            if self._closed:
                return
            self._closed = True
        if self._running:
            self.stop_loop()  # there is nothing left to run for; `run` gives back
        else:
            self.give_back()

    # -- for the adapter's callbacks

    def call(self, callback: Callback) -> None:
        """Make the loop's call; raises nothing but what `interrupted` does."""
        if not self._running:
            self._thread = threading.get_ident()
        try:
            callback()
        except (KeyboardInterrupt, SystemExit) as error:
            if not self._running:
                self.interrupted(error)
                return
            self._raised = error
            self.stop_loop()
        except BaseException as error:
            self.report(error, f"in {callback!r}")

    def run_soon(self) -> None:
        """The calls that were left until now; what they leave themselves is for the loop's next turn."""
        for _ in range(len(self._soon)):
            self.call(self._soon.popleft())

    @contextlib.contextmanager
    def minding_signals(self) -> Iterator[None]:
        """Around a `run_loop` that sleeps in C, where no Python handler of a signal runs: a signal has the loop turn,
        and Ctrl-C ends it, instead of being raised in whichever callback Python comes to next.

        Nothing where this is not the main thread, which alone has signals, or where an outer run does so already.
        """
        if threading.current_thread() is not threading.main_thread() or self._running > 1:
            yield
            return
        reader, writer = socket.socketpair()
        with reader, writer, contextlib.ExitStack() as undo:
            reader.setblocking(False)
            writer.setblocking(False)
            outer = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, outer, warn_on_full_buffer=False)
            self.watch(reader.fileno(), lambda: _drain(reader))
            undo.callback(self.unwatch, reader.fileno())
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._ctrl_c)
                undo.callback(signal.signal, signal.SIGINT, signal.default_int_handler)
            yield

    def _ctrl_c(self, number: int, frame: object) -> None:
        self._raised = KeyboardInterrupt()
        with contextlib.suppress(HostUnavailable):
            self.call_soon_threadsafe(self.stop)


def _drain(reader: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        reader.recv(4096)
