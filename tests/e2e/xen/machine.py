"""The machine that Xen runs on: one QEMU, its CPU emulated, its serial console read line by line.

Emulated (``-accel tcg``), for Xen wants a machine to itself, and nested virtualisation is seldom there.  The CPU model
is the plainest that works: with QEMU's ``max`` or a named EPYC domain 0 crashes.  Whatever ends the ``with``, QEMU is
ended with it, by its own handle.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tests.e2e.xen.images import Images

QEMU = "qemu-system-x86_64"
CPU = "qemu64,+rdrand,+svm,+npt"
MEMORY = 1024
"""MiB in all: Xen's, domain 0's and its guests'."""
DOMAIN0_MEMORY = 560


class WentSilent(Exception):
    """The machine printed nothing for too long."""


def command(images: Images, memory_disk: Path) -> list[str]:
    """QEMU's: Xen is the kernel that it loads, and the first module is domain 0's kernel."""
    xen = (
        f"com1=115200,8n1 console=com1 loglvl=warning guest_loglvl=error spec-ctrl=no dom0_max_vcpus=1"
        f" dom0_mem={DOMAIN0_MEMORY}M,max:{DOMAIN0_MEMORY}M"
    )
    linux = f"{images.linux} console=hvc0 quiet mitigations=off"
    return [
        *(QEMU, "-accel", "tcg", "-cpu", CPU, "-smp", "1", "-m", str(MEMORY)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(images.xen), "-append", xen, "-initrd", f"{linux},{memory_disk}"),
    ]


def memory_disk(images: Images, overlay: Path) -> Path:
    """Domain 0's files and the project's over them, as the one file that a module is.  Takes the overlay's place."""
    target = overlay.with_suffix(".img")
    with open(target, "wb") as whole:
        for part in (images.domain0, overlay):
            with open(part, "rb") as stream:
                shutil.copyfileobj(stream, whole, 1 << 20)
    overlay.unlink()
    return target


@contextlib.contextmanager
def running(images: Images, disk: Path, log: Path, silence: float) -> Iterator[Iterator[bytes]]:
    """Yield the lines of the machine's serial console, and keep them in ``log`` too.

    The iterator raises `WentSilent` once the machine has printed nothing for ``silence`` seconds.  There is no limit
    on the whole: an emulated processor on a busy machine takes several times as long, and passes.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with subprocess.Popen(
        command(images, disk), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as qemu:
        reader = threading.Thread(target=_read, args=(cast(BinaryIO, qemu.stdout), log, lines), name="serial console")
        reader.start()
        try:
            yield _until_silent(silence, lines)
        finally:
            qemu.kill()
            reader.join()


def _until_silent(silence: float, lines: queue.SimpleQueue[bytes | None]) -> Iterator[bytes]:
    while True:
        try:
            line = lines.get(timeout=silence)
        except queue.Empty:
            raise WentSilent(f"the machine printed nothing for {silence:g} s, and was ended") from None
        if line is None:
            return
        yield line


def _read(console: BinaryIO, log: Path, lines: queue.SimpleQueue[bytes | None]) -> None:
    with open(log, "wb", buffering=0) as kept:
        for line in console:
            kept.write(line)
            lines.put(line)
    lines.put(None)
