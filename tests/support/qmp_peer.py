"""A stand-in for QEMU that says what a test has it say, on a real socket: for what no QEMU can be brought to do."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.patience import PATIENCE

GREETING: dict[str, Any] = {
    "QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": "a stand-in"}, "capabilities": []}
}
ANSWERS: dict[str, Any] = {
    "query-name": {"name": "stand-in"},
    "query-uuid": {"UUID": "00000000-0000-0000-0000-000000000000"},
    "query-status": {"status": "running", "running": True},
    "query-cpus-fast": [],
    "query-memory-size-summary": {"base-memory": 0},
}


_numbers = itertools.count()


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


class Peer:
    """Greets who connects and answers every command, by ``answers`` or with nothing much; `say` is for the rest."""

    def __init__(self, directory: Path, greeting: bytes | None = None, answers: dict[str, Any] | None = None) -> None:
        self.path = directory / f"peer{next(_numbers)}"
        self.commands: list[str] = []
        self.on_command: Callable[[dict[str, Any]], bytes | None] = lambda command: None
        self._greeting = line(GREETING) if greeting is None else greeting
        self._answers = ANSWERS | (answers or {})
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._connected: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"qmp+unix://{self.path}"

    def say(self, data: bytes) -> None:
        """Blocks while nobody reads."""
        assert self._connected is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # hung up on before the end of it
            self._connected.sendall(data)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # hung up, by either
            self._connected, _ = self._listener.accept()
            self._connected.settimeout(PATIENCE)
            self._connected.sendall(self._greeting)
            for received in self._connected.makefile("rb"):
                command = json.loads(received)
                self.commands.append(command.get("execute") or command["exec-oob"])
                answer = self.on_command(command)
                self._connected.sendall(self._answer(command) if answer is None else answer)

    def _answer(self, command: dict[str, Any]) -> bytes:
        found = self._answers.get(self.commands[-1], {})
        key = "error" if isinstance(found, dict) and "class" in found else "return"
        return line({key: found, "id": command["id"]})

    def hang_up(self) -> None:
        for ours in (self._connected, self._listener):
            if ours is not None:
                with contextlib.suppress(OSError):
                    ours.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.hang_up()
        self._thread.join(PATIENCE)
        self._listener.close()
        if self._connected is not None:
            self._connected.close()
