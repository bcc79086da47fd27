"""A private libvirtd: libvirt's test driver behind a real daemon, over a unix socket and over loopback TCP.

With no driver modules to load (LIBVIRT_DRIVER_DIR is an empty directory) only the built-in test driver is left, and the
daemon is up in some 30 ms, needs no users and no D-Bus, and touches nothing of the machine's own libvirt.  Everything
of it is in one temporary directory, of a short name: a unix socket's path must stay under 108 bytes (unix(7)), which
pytest's own directories do not."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.support import freezing
from tests.support.freezing import Frozen
from tests.support.markers import needs
from tests.support.patience import PATIENCE
from tests.support.wanted import program

PACKAGE = "libvirt-daemon"
PORTS_TRIED = 5

_CONF = """\
unix_sock_dir="{directory}"
unix_sock_rw_perms="0700"
auth_unix_ro="none"
auth_unix_rw="none"
listen_tls=0
listen_tcp=1
tcp_port="{port}"
listen_addr="127.0.0.1"
auth_tcp="none"
keepalive_interval=5
keepalive_count=5
"""


class Libvirtd:
    """One daemon that runs.  ``pid`` is its process; another one's once it is started again."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.socket = directory / "libvirt-sock"
        self._executable = program("libvirtd", PACKAGE)
        self.drivers = directory / "no-drivers"
        self.prepare()
        self._process = self._start()

    def prepare(self) -> None:
        """Write what it reads."""
        (self.directory / "libvirtd.conf").write_text(_CONF.format(directory=self.directory, port=self.port))
        self.drivers.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        """How it is run."""
        return [self._executable, "--listen", "-f", f"{self.directory}/libvirtd.conf", "-p", f"{self.directory}/pid"]

    def environment(self) -> dict[str, str]:
        """What it is run with, besides our own."""
        return {"LIBVIRT_DRIVER_DIR": str(self.drivers), "XDG_RUNTIME_DIR": str(self.directory)}

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self.directory / "log", "ab") as log:
            return subprocess.Popen(
                self.command(),
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def unix_uri(self) -> str:
        return f"test+unix:///default?socket={self.socket}"

    @property
    def tcp_uri(self) -> str:
        return f"test+tcp://127.0.0.1:{self.port}/default"

    def wait_until_up(self) -> bool:
        """False where it ended instead, as it does when somebody took the port meanwhile."""
        for _ in range(int(PATIENCE * 100)):
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                _connect(socket.AF_UNIX, str(self.socket))
                _connect(socket.AF_INET, ("127.0.0.1", self.port))
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
                return False
        raise TimeoutError(f"libvirtd is not up after {PATIENCE} s; it says: {self.log()}")

    def kill(self) -> None:
        """As ``kill -9``: it cannot say goodbye."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """And whatever it started."""
        self.kill()

    def restart(self) -> None:
        """Another in the place of one that was killed: the same directory, sockets and port; up and accepting."""
        self._process = self._start()
        if not self.wait_until_up():
            raise RuntimeError(f"libvirtd does not start again; it says: {self.log()}")

    def freeze(self) -> Frozen:
        """Freeze the daemon, until `thaw` or the end of the ``with``."""
        return freezing.freeze(self.pid)

    def thaw(self) -> None:
        """Let the daemon go on from where it was frozen."""
        freezing.thaw(self.pid)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace").strip() or "nothing"


Daemon = TypeVar("Daemon", bound=Libvirtd)


@contextlib.contextmanager
def private_libvirtd() -> Iterator[Libvirtd]:
    """A daemon of one's own, up and accepting; ended, by its pid, and removed in the end."""
    with private(Libvirtd) as daemon:
        yield daemon


@contextlib.contextmanager
def private(make: Callable[[Path, int], Daemon]) -> Iterator[Daemon]:
    """As `private_libvirtd`, of any kind: ``make(directory, port)``."""
    needs("libvirt")
    for _ in range(PORTS_TRIED):
        directory = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
        try:
            daemon = make(directory, free_port())
            try:
                if daemon.wait_until_up():
                    yield daemon
                    return
                said = daemon.log()
            finally:
                daemon.end()
        finally:
            shutil.rmtree(directory)
    raise RuntimeError(f"libvirtd ended at once, {PORTS_TRIED} times; the last time it said: {said}")


def _connect(family: socket.AddressFamily, address: Any) -> None:
    with socket.socket(family) as probe:
        probe.connect(address)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
