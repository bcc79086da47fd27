"""Processes that are frozen (SIGSTOP): they live, keep their sockets, and answer nothing.

kill(2) returns before the signal has taken effect: the threads of a process stop one after another, each when it
is next scheduled.  `freeze` returns once all have.  Whatever a test does, `thaw_all` runs before its fixtures
are torn down (`tests/conftest.py`), so that no teardown waits for a process that nobody would wake.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from types import TracebackType

from tests.support.patience import PATIENCE

_LOOKS = 0.001  # seconds between two looks into /proc
_frozen: list[Frozen] = []


class Frozen:
    """A process that is frozen, until `thaw` or the end of the ``with``."""

    def __init__(self, pid: int) -> None:
        """Freeze the process, and return once each of its threads has stopped."""
        self.pid = pid
        self._started = _started(pid)  # no pidfd: many of these tests count the fds that are open
        _frozen.append(self)
        try:
            os.kill(pid, signal.SIGSTOP)
            self._wait_until_stopped()
        except BaseException:
            self.thaw()
            raise

    def _wait_until_stopped(self) -> None:
        pause = threading.Event()
        for _ in range(int(PATIENCE / _LOOKS)):
            if set(states(self.pid)) == {"T"}:
                return
            pause.wait(_LOOKS)
        raise AssertionError(f"process {self.pid} does not stop: its threads are {states(self.pid)}")

    def thaw(self) -> None:
        """Let it go on.  Does nothing the second time, nor where the process has ended."""
        if self in _frozen:
            _frozen.remove(self)
            if _started(self.pid) == self._started:  # or the number is another process's by now
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Frozen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.thaw()


def freeze(pid: int) -> Frozen:
    """Freeze a process: ``with freeze(pid): ...``, or until `thaw`, or until the test's end."""
    return Frozen(pid)


def thaw(pid: int) -> None:
    """Let a process go on that `freeze` froze; does nothing to any other."""
    for one in [one for one in _frozen if one.pid == pid]:
        one.thaw()


def thaw_all() -> int:
    """Let everything go on that is still frozen; returns how many processes that was."""
    left = list(_frozen)
    for one in left:
        one.thaw()
    return len(left)


def states(pid: int) -> list[str]:
    """Return the state of each thread of a process, as proc(5) has it: "R", "S", "T"...  Raises FileNotFoundError where
    there is no such process.
    """
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread ended meanwhile
            found.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found


def _started(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot, as proc(5) has it; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
