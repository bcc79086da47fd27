"""Processes that are not this one's children, and have to end all the same."""

from __future__ import annotations

import contextlib
import os
import select
import signal

from tests.support.patience import PATIENCE


def kill(pid: int) -> None:
    """Kill a process (SIGKILL) and return once it has ended: kill(2) returns before.  Does nothing if there is none."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            assert select.select([process], [], [], PATIENCE)[0], f"process {pid} outlives SIGKILL"
        finally:
            os.close(process)
