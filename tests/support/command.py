"""The command ``eventbridge`` in a process of its own, as a user or a script runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]

_CHANGES_OUTPUT = ("EVENTBRIDGE_DEBUG", "NO_COLOR", "PYTHONUNBUFFERED")

EVENTBRIDGE = (sys.executable, "-m", "eventbridge")


def environment(python_path: str = "", **more: str) -> dict[str, str]:
    """This one's, with ``python_path`` first on the module path, and nothing that changes what is shown or when."""
    env = {name: value for name, value in os.environ.items() if name not in _CHANGES_OUTPUT}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [python_path, str(ROOT)]))
    return {**env, **more}


def blocking(directory: Path, *modules: str) -> str:
    """A module path on which ``modules`` are there but cannot be imported, as where they are not installed."""
    for module in modules:
        text = f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')\n"
        (directory / f"{module}.py").write_text(text)
    return str(directory)


def eventbridge(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return run(*EVENTBRIDGE, *arguments, env=env)


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env or environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )


class Running:
    """One that runs: what it says is waited for line by line, and by one reader: ``stdout`` and ``stderr``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None and process.stderr is not None
        self.stdout: IO[str] = process.stdout
        self.stderr: IO[str] = process.stderr

    def until(self, *texts: str) -> list[str]:
        """Standard error's lines, up to where each of ``texts`` has been in one."""
        lines: list[str] = []
        while not all(any(text in line for line in lines) for text in texts):
            line = self.stderr.readline()
            assert line, f"it ended without {texts}, saying {lines}"
            lines.append(line)
        return lines

    def shows(self, count: int) -> list[str]:
        """So many lines of standard output."""
        lines = [self.stdout.readline() for _ in range(count)]
        assert all(lines), f"it ended after {lines}"
        return lines

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> tuple[int, str, str]:
        """Exit code, and the rest of standard output and of standard error: all that was not read yet."""
        rests = _Rest(self.stdout), _Rest(self.stderr)
        code = self.process.wait(PATIENCE)
        out, err = (rest.text() for rest in rests)
        return code, out, err


class _Rest:
    """What is left of a pipe, read on a thread of its own, so that whoever writes to another is not held up.

    Through the same file object as the lines before: `Popen.communicate` reads the pipe itself, and what that object
    has read ahead is lost.
    """

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._read: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._read.append(self._pipe.read())

    def text(self) -> str:
        """When the other end is closed."""
        self._thread.join(PATIENCE)
        assert self._read, "somebody else has the other end of the pipe"
        return self._read[0]


@contextlib.contextmanager
def interruptible(handler: signal.Handlers = signal.SIG_DFL) -> Iterator[None]:
    """A child that is started meanwhile is interrupted by SIGINT, or (SIG_IGN) is not, whatever these tests were
    started by: a script's background job ignores it and hands that on.
    """
    ours = signal.default_int_handler if handler is signal.SIG_DFL else handler  # a function is the default in a child
    before = signal.signal(signal.SIGINT, ours)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def running(
    *arguments: str, env: dict[str, str] | None = None, sigint: signal.Handlers = signal.SIG_DFL
) -> Iterator[Running]:
    """Run it until the test is done with it."""
    with interruptible(sigint):
        process = subprocess.Popen(
            [*EVENTBRIDGE, *arguments],
            env=env or environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            yield Running(process)
        finally:
            process.kill()  # does nothing to one that has ended
