"""A fork, as a daemon may do it at any moment: the child finds the bridge refusing (D7), and goes; or lingers, and so
keeps alive whatever its parent closes (H11).

In the child nothing is done but calls on the bridge and system calls: other threads' locks may be held there for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Callable

from eventbridge.bridge import Bridge
from eventbridge.errors import BridgeForked

VERDICT = 256
"""Bytes of a verdict: far less than a pipe holds."""


def fork(bridge: Bridge, complain: Callable[[str], None], *, linger: bool = False) -> int:
    """Fork here and now, and hear what the child found; returns the id of one that lingers, else 0.  Not in a moment
    in which this very thread is inside the bridge.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12 on a fork among threads is warned of; it is the very thing that is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        _child(bridge, reader, writer, linger)
    os.close(writer)
    verdict = os.read(reader, VERDICT)
    os.close(reader)
    if verdict != b"ok":
        complain(f"a forked child says: {verdict.decode(errors='replace') or 'nothing, and has gone'} (D7)")
    if linger:
        return pid
    end(pid, complain, killed=False)
    return 0


def end(pid: int, complain: Callable[[str], None] = lambda _: None, *, killed: bool = True) -> None:
    """Wait for a child, killed first where it lingers."""
    if killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return  # the host's own child watcher was quicker
    if not killed and status:
        complain(f"a forked child ended with status {status:#x} (D7)")


def _child(bridge: Bridge, reader: int, writer: int, linger: bool) -> None:
    """Never returns."""
    try:
        os.close(reader)
        os.write(writer, _verdict(bridge).encode()[:VERDICT] or b"ok")
        os.close(writer)
        while linger:
            signal.pause()
    finally:
        os._exit(0)


def _verdict(bridge: Bridge) -> str:
    """What was not refused; nothing where all was."""
    calls: dict[str, Callable[[], object]] = {
        "add_handle": lambda: bridge.add_handle(0, 1, print),
        "update_handle": lambda: bridge.update_handle(1, 0),
        "remove_handle": lambda: bridge.remove_handle(1),
        "add_timeout": lambda: bridge.add_timeout(1, print),
        "update_timeout": lambda: bridge.update_timeout(1, 1),
        "remove_timeout": lambda: bridge.remove_timeout(1),
        "run": lambda: bridge.run(timeout=0),
        "stop": bridge.stop,
    }
    for name, call in calls.items():
        try:
            call()
        except BridgeForked:
            continue
        except BaseException as error:
            return f"{name} raised {error!r}"
        return f"{name} was not refused"
    return "" if bridge.forked else "bridge.forked is false"
