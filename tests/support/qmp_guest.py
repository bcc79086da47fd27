"""What a guest does, done in its place: QEMU's own test protocol (qtest) writes to the machine's ports.

The ports are q35's: ICH9's ACPI (its data sheet; no BIOS has set its base address, so that is done here), the reset
register at 0xcf9, and pvpanic's at 0x505 (QEMU's docs/specs/pvpanic.rst)."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.patience import PATIENCE
from tests.support.qmp_qemu import MACHINE

_PCI_ADDRESS, _PCI_DATA = 0xCF8, 0xCFC
_ICH9 = 0x8000_0000 | 31 << 11  # device 31, function 0
_PM_BASE = 0x600
_PM1_STATUS, _PM1_CONTROL = _PM_BASE, _PM_BASE + 4
_SLEEP = 1 << 13
SLEEP_TYPES = {"off": 0, "memory": 1, "disk": 2}


_RESET_VECTOR = 0xFFF0
_HALT = b"\xf4\xeb\xfd"  # hlt; jmp back to it


def machine(directory: Path, *arguments: str) -> tuple[str, ...]:
    """A machine whose guest is a `Guest` at ``directory``, and nobody else: its BIOS does nothing."""
    bios = directory / "bios"
    bios.write_bytes((b"\x90" * _RESET_VECTOR + _HALT).ljust(1 << 16, b"\x90"))
    qtest = f"unix:{directory / 'qtest'},server=on,wait=off"
    return *MACHINE, "-bios", str(bios), "-device", "pvpanic", "-qtest", qtest, *arguments


class Guest:
    """Of a machine that is up."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(directory / "qtest"))
        self._lines = self._socket.makefile("rb")

    def _out(self, size: str, port: int, value: int) -> None:
        self._socket.sendall(f"out{size} {port:#x} {value:#x}\n".encode())
        while (line := self._lines.readline()).split()[:1] != [b"OK"]:
            assert line, "QEMU has ended"

    def panic(self) -> None:
        self._out("b", 0x505, 1)

    def reset(self) -> None:
        self._out("b", 0xCF9, 6)

    def sleep(self, how: str) -> None:
        """One of `SLEEP_TYPES`."""
        for register, value in ((0x40, _PM_BASE | 1), (0x44, 0x80)):  # PMBASE; ACPI_CNTL: enable
            self._out("l", _PCI_ADDRESS, _ICH9 | register)
            self._out("l", _PCI_DATA, value)
        self._out("w", _PM1_CONTROL, SLEEP_TYPES[how] << 10 | _SLEEP)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
