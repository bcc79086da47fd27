"""Real QEMU processes for tests: private, on temporary paths, ended by their own process id.

`NONE` is a QEMU without a machine, up in 50 ms; `MACHINE` a small one that is emulated, paused, with no disk, which
does not need KVM.  Each has two monitors: the one that is under test, and a side door (`SideDoor`), through which a
test asks what is true, and does what somebody else would."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, TypeAlias

from tests.support import freezing
from tests.support.freezing import Frozen
from tests.support.markers import needs
from tests.support.patience import PATIENCE
from tests.support.wanted import program

NONE = ("-machine", "none")
MACHINE = ("-machine", "q35", "-m", "16", "-accel", "tcg,tb-size=1", "-S")
INCOMING = ("-incoming", "defer")


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """For what another process or thread does."""
    give_up, pause = monotonic() + patience, threading.Event()
    while not condition():
        assert monotonic() < give_up, "it did not come true"
        pause.wait(0.002)


class SideDoor:
    """A blocking client of a second monitor, and an independent one: a line of JSON out, lines of JSON in."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self.events: list[str] = []
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            if b"QMP" not in self._lines.readline():
                raise ConnectionResetError(f"{path}: no greeting")  # it is not ready to be spoken to yet
            self._negotiate()
        except BaseException:
            self._socket.close()
            raise

    def _negotiate(self) -> None:
        """Until commands are taken: a QEMU that was connected to while it started may greet twice, and expects the
        negotiation anew then.
        """
        while True:
            self.ask("qmp_capabilities")
            try:
                self.ask("query-name")
                return
            except RuntimeError as refused:
                assert "negotiation" in str(refused), refused

    def ask(self, command: str, **arguments: Any) -> Any:
        """Its return value; RuntimeError where it is refused; EOFError where QEMU has ended."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while line := self._lines.readline():
            found = json.loads(line)
            if "QMP" in found:
                continue
            if "event" in found:
                self.events.append(found["event"])
            elif "error" in found:
                raise RuntimeError(found["error"]["desc"])
            else:
                return found["return"]
        raise EOFError

    @property
    def status(self) -> str:
        """The run state."""
        return str(self.ask("query-status")["status"])

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


_SIDE = "compat_monitor99"  # as QEMU names the monitors of -qmp, by which one tells them from consoles


def _listening(path: Path) -> socket.socket:
    """Return a socket to which one can connect before QEMU accepts.

    It does not block.  QEMU hands its listening sockets from its main thread to the monitors' when it has started, and
    a connection that is pending at that moment is accepted by one of the two while the other waits for one more in
    accept(2): then that QEMU answers nobody (7.2, one start in a thousand on a busy machine).  Only when the side door
    has answered does a test connect to the other socket.
    """
    path.unlink(missing_ok=True)  # another QEMU's, which was killed
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    listening.setblocking(False)
    return listening


class Qemu:
    """One process; in a ``with`` statement it is up inside, and gone after."""

    def __init__(self, directory: Path, name: str, *arguments: str) -> None:
        needs("qemu")
        self.name = name
        self.path = directory / f"{name}.qmp"
        self._side = directory / f"{name}.side"
        self.log = directory / f"{name}.log"
        # It ends with the thread that started it, so that a test run that is killed leaves nothing.
        end_with_us = [program("setpriv", "util-linux"), "--pdeathsig", "KILL"]
        qemu = program("qemu-system-x86_64", "qemu-system-x86")
        with self.log.open("wb") as log, _listening(self._side) as side:
            server = f"socket,id={_SIDE},fd={side.fileno()},server=on,wait=off"
            monitors = ["-qmp", f"unix:{self.path},server=on,wait=off"]
            monitors += ["-chardev", server, "-mon", f"chardev={_SIDE},mode=control"]
            self.process = subprocess.Popen(
                [*end_with_us, qemu, "-nodefaults", "-display", "none", *arguments, *monitors],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[side.fileno()],
            )
        self.side: SideDoor

    @property
    def uri(self) -> str:
        return f"qmp+unix://{self.path}"

    @property
    def tcp_uri(self) -> str:
        """Where it was given a third monitor, at port 0 of 127.0.0.1."""
        names = [chardev["filename"] for chardev in self.side.ask("query-chardev")]
        (port,) = {match[1] for name in names if (match := re.search(r"tcp:127\.0\.0\.1:(\d+)", name))}
        return f"qmp+tcp://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_up(self) -> None:
        wait_until(self._is_up)

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            self.side = SideDoor(self._side)
            return True
        return False

    def kill(self) -> None:
        """-9, and wait for it."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def freeze(self) -> Frozen:
        """Freeze QEMU, until `thaw` or the end of the ``with``."""
        return freezing.freeze(self.pid)

    def thaw(self) -> None:
        """Let QEMU go on."""
        freezing.thaw(self.pid)

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self.side.close()
        self.kill()

    def __enter__(self) -> Qemu:
        try:
            self.wait_until_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


Start: TypeAlias = Callable[..., Qemu]
"""A fixture's: ``start(name, *arguments)`` makes one that is up."""


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Of a short name: a unix socket's path must stay under 108 bytes (unix(7))."""
    made = Path(tempfile.mkdtemp(prefix="qm", dir="/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made)
