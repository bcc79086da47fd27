"""What eventbridge asks of a host loop.

A host adapter is small because the bridge has one fd for everything: the host watches it, runs a function on its own
thread, and says which thread that is.  Adapters live in ``eventbridge.adapters.hosts``, one module each; `host_lookup`
finds them by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeGuard, runtime_checkable


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


class HostFactory(Protocol):
    """A host adapter's class."""

    def __call__(self) -> HostLoop:
        """The host on this thread's running loop, or on one of its own where the loop is ours to make; else
        `HostUnavailable`.
        """

    def running(self) -> HostLoop | None:
        """The host on the loop that is running in this thread, or None."""


def on_loop(host: HostLoop, step: Callable[[], None]) -> None:
    """Now, where this thread may touch the loop; else soon, on the loop's own."""
    if host.is_loop_thread():
        step()
    else:
        host.call_soon_threadsafe(step)


def runs_here(host: HostLoop) -> bool:
    """Does this very thread run the host's loop now?"""
    if not host.is_loop_thread():
        return False
    # A host that nobody runs says so on every thread: another one can tell.
    others: list[bool] = []
    asking = threading.Thread(target=lambda: others.append(host.is_loop_thread()))
    asking.start()
    asking.join()
    # Asked last: it may have begun to run on another thread between the two looks.
    return not others[0] and host.is_loop_thread()
