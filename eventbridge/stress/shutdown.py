"""The *shutdown* fault: an interpreter ends while a bridge on this host has live registrations, in each of the ways
that one can; it must end with the exit code that it should, say nothing, and neither hang nor crash.

As a program: ``python -m eventbridge.stress.shutdown MODULE:NEW_BRIDGE HOST WAY``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

from eventbridge.bridge import Bridge

from .plan import named

PATIENCE = 60.0
"""Seconds for an interpreter to start, do little, and end; long, as the machine may be busy."""
CODE = 7
MESSAGE = "an exception that nobody catches"
OWN_THREAD = "a daemon thread runs the loop"
MAIN_THREADS = ("qasync", "qt")
"""Hosts whose loop is the main thread's alone.  Qt's aborts or complains by itself, with no bridge, where a daemon
thread runs it at the end (PySide6 6.11.3).
"""
OWN_NOISE = {"qasync": "RuntimeError: Signal source has been deleted"}
"""How what a host's own library says at the end of any interpreter, with no bridge, ends: qasync 0.28.0 of a loop that
was not closed.
"""


class Uncaught(Exception):
    """What ends one of them."""


def _live(bridge: Bridge) -> None:
    """Handles that are ready again and again, one that never is, timeouts, and frees that are owed."""
    for ready in (True, False):
        reader, writer = os.pipe()
        bridge.add_handle(reader, 1, lambda *_: None, object(), lambda _: None)
        if ready:
            os.write(writer, b"!")
    bridge.remove_handle(bridge.add_handle(reader, 1, lambda *_: None, object(), lambda _: None))
    for ms in (0, 1, 3_600_000, -1):
        bridge.add_timeout(ms, lambda *_: None, object(), lambda _: None)


def _in_a_callback(bridge: Bridge, error: BaseException) -> None:
    def raise_it(*_: Any) -> None:
        raise error

    bridge.add_timeout(10, raise_it)
    bridge.run()


def exit_in_a_callback(bridge: Bridge) -> None:
    _in_a_callback(bridge, SystemExit(CODE))


def exit_after_a_run(bridge: Bridge) -> None:
    bridge.run(timeout=0.02)
    sys.exit(CODE)


def end_of_main(bridge: Bridge) -> None:
    bridge.run(timeout=0.02)


def end_before_any_run(bridge: Bridge) -> None:
    """Nothing more."""


def uncaught(bridge: Bridge) -> None:
    bridge.run(timeout=0.02)
    raise Uncaught(MESSAGE)


# How it ends, and with which exit code.
WAYS = {
    "sys.exit in a callback": (exit_in_a_callback, CODE),
    "sys.exit after a run": (exit_after_a_run, CODE),
    "the end of main": (end_of_main, 0),
    "the end of main before any run": (end_before_any_run, 0),
    "an uncaught exception": (uncaught, 1),
    OWN_THREAD: (end_before_any_run, 0),
}


def ways(host: str) -> list[str]:
    return [way for way in WAYS if not (way == OWN_THREAD and host in MAIN_THREADS)]


def end(new_bridge: str, host: str, way: str) -> str:
    """Have an interpreter end this way; what was wrong with it, or nothing."""
    command = [sys.executable, "-m", __name__, new_bridge, host, way]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"{way}: the interpreter hangs at its end"
    said = ended.stderr.strip()
    if way == "an uncaught exception" and said.endswith(MESSAGE) and said.count("Traceback") == 1:
        said = ""
    if host in OWN_NOISE and said.endswith(OWN_NOISE[host]):
        said = ""
    if ended.returncode != WAYS[way][1] or said:
        return (
            f"{way}: exit code {ended.returncode} instead of {WAYS[way][1]}; standard error: {said[-800:] or 'nothing'}"
        )
    return ""


def main(new_bridge: str, host: str, way: str) -> None:
    if way == OWN_THREAD:
        running = threading.Event()
        threading.Thread(target=_run_for_ever, args=(named(new_bridge), host, running), daemon=True).start()
        assert running.wait(PATIENCE)
        return
    kept.extend(named(new_bridge)(host))
    _live(kept[0])
    WAYS[way][0](kept[0])


kept: list[Any] = []
"""The bridge and its loop, as a program may have them in a global; the interpreter's end finds them there."""


def _run_for_ever(new_bridge: Any, host: str, running: threading.Event) -> None:
    kept.extend(new_bridge(host))
    _live(kept[0])
    kept[0].host.call_soon_threadsafe(running.set)
    kept[0].run()


if __name__ == "__main__":
    main(*sys.argv[1:])
