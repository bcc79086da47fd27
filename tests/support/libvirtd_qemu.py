"""A private libvirtd with the QEMU driver, and nothing of the machine's own libvirt.

As root libvirt's directories are fixed, so each daemon has a mount namespace of its own in which they are empty ones of
ours, and in which the user exists that Debian's build insists on (`tests.support.qemu`).  It has a host's name and UUID
of its own, too, or libvirt would refuse to migrate from one daemon to another on what it takes for the same host.  Its
guests are machines without a disk, started paused (TCG, no KVM); what is left of them in the end is killed, by pid.

A paused guest's memory is empty, and an empty one has moved at once.  `heavy_guest`'s is a file of the host's, which
`fill` fills with what cannot be squeezed: so a migration, at a MiB a second, takes as long as a test needs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.support import processes, wanted
from tests.support.libvirtd import Libvirtd, free_port, private
from tests.support.markers import needs
from tests.support.qemu import _CONF, _DRIVER, _ENTRIES, guest
from tests.support.wanted import missing

# Directories of the machine's in whose place the daemon finds empty ones, but for `_ETC`: libvirt, as root, keeps all
# that it has below these.
_PLACES = {"/etc": "etc", "/run": "run", "/var/lib": "lib", "/var/cache": "cache", "/var/log": "logs"}
_ETC = "passwd group hosts nsswitch.conf ld.so.cache localtime".split()

# $1: the daemon's directory, $2: the host's name.  Runs the rest there.
_INSIDE = """\
set -e
directory=$1 host=$2
shift 2
hostname "$host"
{mounts}
exec "$@"
"""

_QEMU_CONF = """\
memory_backing_dir = "{directory}/ram"
migration_address = "{loopback}"
migration_port_min = {ports}
migration_port_max = {last_port}
"""
MEMORY_MIB = 64


HOSTS = ("red.test", "blue.test")
"""Names of daemons' hosts, which each of them resolves to `LOOPBACK`."""
LOOPBACK = "127.0.0.2"
"""A loopback address that libvirt lets a migration come in at; 127.0.0.1 it refuses in qemu.conf."""


class QemuLibvirtd(Libvirtd):
    """One daemon that runs, for ``qemu:///system``, on a host called ``host``, one of `HOSTS`."""

    def __init__(self, directory: Path, port: int, host: str = HOSTS[0]) -> None:
        self.host = host
        super().__init__(directory, port)

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "no-drivers").rmdir()
        self.drivers = self.directory / "drivers"
        self.drivers.mkdir()
        (self.drivers / _DRIVER).symlink_to(_driver())
        for name in (*_PLACES.values(), "ram"):
            (self.directory / name).mkdir()
        etc = self.directory / "etc"
        for name in _ETC:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"/etc/{name}", etc)
        for name, line in {**_ENTRIES, "hosts": f"{LOOPBACK} {' '.join(HOSTS)}\n"}.items():
            with open(etc / name, "a") as file:
                file.write(line)
        ports = free_port()
        (etc / "libvirt").mkdir()
        (etc / "libvirt/qemu.conf").write_text(
            _CONF + _QEMU_CONF.format(directory=self.directory, loopback=LOOPBACK, ports=ports, last_port=ports + 3)
        )
        with open(self.directory / "libvirtd.conf", "a") as conf:
            conf.write(f'host_uuid="{uuid.uuid4()}"\n')
            # All from the beginning: where calls come quickly, and hang, libvirtd 9.0.0 sometimes makes no further
            # worker for those behind them, though it has fewer than it may (max_workers, 20).
            conf.write("min_workers=20\n")

    def command(self) -> list[str]:
        mounts = "\n".join(f'mount --bind "$directory/{ours}" {place}' for place, ours in _PLACES.items())
        inside = ["sh", "-c", _INSIDE.format(mounts=mounts), "sh", str(self.directory), self.host]
        return ["unshare", "--mount", "--uts", "--propagation", "private", *inside, *super().command()]

    @property
    def unix_uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def tcp_uri(self) -> str:
        return f"qemu+tcp://127.0.0.1:{self.port}/system"

    def fill(self, name: str) -> None:
        """The memory of a `heavy_guest` that is paused, with noise."""
        [memory] = self.directory.glob(f"ram/libvirt/qemu/*-{name}/pc.ram")
        with open(memory, "r+b") as file:
            for _ in range(MEMORY_MIB):
                file.write(os.urandom(1 << 20))

    def end(self) -> None:
        super().end()
        for name in self.names():
            with contextlib.suppress(FileNotFoundError):  # it has ended by itself
                processes.kill(self.guest_pid(name))

    def names(self) -> list[str]:
        """Of the guests that run."""
        found = [pidfile.stem for pidfile in self.directory.glob("run/libvirt/qemu/*.pid")]
        return [name for name in found if name != "driver"]  # the daemon's own

    def guest_pid(self, name: str) -> int:
        """The process of a guest that runs."""
        return int((self.directory / f"run/libvirt/qemu/{name}.pid").read_text())


@contextlib.contextmanager
def private_qemu_libvirtd(host: str = HOSTS[0]) -> Iterator[QemuLibvirtd]:
    """A daemon of one's own, up and accepting; ended with all its guests, by pid, and removed in the end."""
    needs("qemu")
    wanted.root("libvirt's QEMU driver needs mount namespaces of its own")
    _driver()
    with private(functools.partial(QemuLibvirtd, host=host)) as daemon:
        yield daemon


def _driver() -> Path:
    for path in Path("/usr/lib").glob(f"*/libvirt/connection-driver/{_DRIVER}"):
        return path
    missing(_DRIVER, "libvirt-daemon-driver-qemu")
    raise FileNotFoundError(_DRIVER)


def heavy_guest(name: str) -> str:
    """As `guest`, with memory that can be filled from outside."""
    memory = f"<memory unit='MiB'>{MEMORY_MIB}</memory><memoryBacking><source type='file'/></memoryBacking>"
    return guest(name).replace("<memory unit='MiB'>16</memory>", memory)
