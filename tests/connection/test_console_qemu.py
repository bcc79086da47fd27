"""A guest's serial console through a connection: its bytes, and its end."""

from __future__ import annotations

import asyncio

import pytest

import eventbridge
from eventbridge.connection.console import ConsoleSession
from eventbridge.hypervisor.model import Connection, ConsoleKind
from tests.support import qmp_qemu
from tests.support.patience import patience
from tests.support.qmp_guest import Guest, machine
from tests.support.qmp_qemu import Qemu

pytestmark = pytest.mark.qemu

_COM1 = 0x3F8


def write(guest: Guest, data: bytes) -> None:
    for byte in data:
        guest._out("b", _COM1, byte)


async def read(console: ConsoleSession, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await anext(console)
    return found


def test_a_guests_bytes_come_out_and_the_end_of_it_is_the_end() -> None:
    async def main() -> None:
        with qmp_qemu.directory() as directory:
            arguments = machine(directory, "-serial", "pty")
            with Qemu(directory, "vm", *arguments) as qemu, Guest(directory) as guest:
                async with patience(), eventbridge.connect(qemu.uri, reconnect=None) as hv:
                    (vm,) = await hv.domains()
                    async with vm.open_console() as console:
                        assert console.info is not None
                        assert (console.info.kind, console.info.connection) == (ConsoleKind.SERIAL, Connection.PTY)
                        write(guest, b"hello, host\r\n")
                        assert await read(console, 13) == b"hello, host\r\n"
                        console.write(b"x")
                        while console._stream is not None and console._stream.waiting:
                            await vm.info()
                        qemu.kill()
                        assert [data async for data in console] == []

    asyncio.run(main())
