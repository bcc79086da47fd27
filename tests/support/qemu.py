"""QEMU with no daemon: what ``qemu:///embed`` needs, in a private root.

libvirt's embedded driver starts threads that live as long as the process and takes one root for its life, so a script
of its own uses it (`command`).  It insists on a user and a group called libvirt-qemu, which Debian makes with the whole
of its system daemon only: where they are missing the script gets a mount namespace of its own in which they exist, and
the machine's files stay as they are."""

from __future__ import annotations

import contextlib
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import processes, wanted
from tests.support.markers import needs
from tests.support.wanted import missing, program

USER = "libvirt-qemu"
_ENTRIES = {"passwd": f"{USER}:x:64055:64055::/:/usr/sbin/nologin\n", "group": f"{USER}:x:64055:\n"}
_DRIVER = "libvirt_driver_qemu.so"

# Everything as the user who runs the tests, and nothing of the machine's confinement.
_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""

# $1: a directory with passwd and group.  Runs the rest in front of them.
_WITH_USER = """\
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
shift
exec "$@"
"""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""
"""A machine with no disk; it is only ever started paused (TCG, no KVM)."""


@contextlib.contextmanager
def embed_root() -> Iterator[Path]:
    """A root for ``qemu:///embed?root=...``; every QEMU that is left in it in the end is killed, by its pid."""
    needs("qemu")
    wanted.root("the configuration of qemu:///embed says which user QEMU runs as")
    if not list(Path("/usr/lib").glob(f"*/libvirt/connection-driver/{_DRIVER}")):
        missing(_DRIVER, "libvirt-daemon-driver-qemu")
    root = Path(tempfile.mkdtemp(prefix="em", dir="/tmp"))
    try:
        (root / "etc").mkdir()
        (root / "etc/qemu.conf").write_text(_CONF)
        yield root
    finally:
        for pidfile in (root / "run/qemu").glob("*.pid"):
            if pidfile.name != "driver.pid":  # libvirt's own, the script's
                processes.kill(int(pidfile.read_text()))
        shutil.rmtree(root)


def guest(name: str) -> str:
    """A definition for ``defineXML``."""
    return GUEST.format(name=name, emulator=program("qemu-system-x86_64", "qemu-system-x86"))


def command(root: Path, script: Path, *arguments: str) -> list[str]:
    """How to run a Python script that uses the embedded driver."""
    python = [sys.executable, str(script), *arguments]
    try:
        pwd.getpwnam(USER)
        return python
    except KeyError:
        for name, line in {
            "passwd": f"{USER}:x:64055:64055::/:/usr/sbin/nologin\n",
            "group": f"{USER}:x:64055:\n",
        }.items():
            (root / name).write_text(Path("/etc", name).read_text() + line)
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _WITH_USER, "sh", str(root), *python]
