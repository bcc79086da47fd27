"""The faults of a racing round, each injected from a thread beside it.  What a scripted round has of them are steps.

- *eintr*: a storm of signals at the loop's thread and the working ones, whose system calls are interrupted by them
  (siginterrupt); some of the handlers operate on the bridge.
- *emfile*: for a moment no new fd is to be had.
- *restart*: the loop is stopped, by the bridge or by its own means, and run again.
- *clock*: the whole process is stopped for a second, as in a suspend, and finds the clock ahead.

*shutdown* ends interpreters, so it has those of its own: `shutdown`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from eventbridge.errors import EventBridgeError

if TYPE_CHECKING:
    from .hazards import Hazards

Inject: TypeAlias = Callable[["Hazards"], None]

STORM_SECONDS = 0.2
GAP = 0.0005
"""Seconds between two signals of a storm."""
STARVED_SECONDS = 0.03
STOPPED_SECONDS = 1.0
ALL = ("eintr", "emfile", "restart", "clock", "shutdown")


def eintr(hazards: Hazards) -> None:
    from .hazards import BARE, OPERATING

    end = time.monotonic() + STORM_SECONDS
    others = signal.getitimer(signal.ITIMER_REAL)
    try:
        while time.monotonic() < end and hazards.wait(GAP):
            signal.setitimer(signal.ITIMER_REAL, GAP)  # once: where this thread is not let in, the storm is to abate
            signal.pthread_kill(hazards.loop_thread, OPERATING)
            for worker in hazards.workers:
                if worker.is_alive() and worker.ident is not None:
                    signal.pthread_kill(worker.ident, BARE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)


def emfile(hazards: Hazards) -> None:
    hazards.starve(STARVED_SECONDS)


def restart(hazards: Hazards) -> None:
    bridge = hazards.bridge
    own = own_means(bridge.host)
    with contextlib.suppress(EventBridgeError):
        if own is not None and hazards.counts["restart"] % 2:
            bridge.host.call_soon_threadsafe(own)
        else:
            bridge.stop()


def own_means(host: Any) -> Callable[[], None] | None:
    """How a loop of this kind is stopped by those who know nothing of the bridge; None where only its owner can."""
    loop: Any = getattr(host, "loop", None)
    if host.name in ("asyncio", "libuv"):
        stop: Callable[[], None] = loop.stop
        return stop
    if host.name == "twisted":
        crash: Callable[[], None] = loop.crash  # one that was stopped cannot be started again
        return crash
    return None


def clock(hazards: Hazards) -> None:
    """Another process stops this one, waits, and has it go on."""
    command = 'kill -STOP "$0"; sleep "$1"; kill -CONT "$0"'
    subprocess.run(["sh", "-c", command, str(os.getpid()), str(STOPPED_SECONDS)], check=False, stdin=subprocess.DEVNULL)
    hazards.wait(STARVED_SECONDS)


FAULTS: dict[str, Inject] = {"eintr": eintr, "emfile": emfile, "restart": restart, "clock": clock}
