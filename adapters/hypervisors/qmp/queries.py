"""What can be asked of a domain and changes nothing, as scripts: how it is, and where its consoles are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from eventbridge.hypervisor.model import Connection, ConsoleInfo, ConsoleKind, DomainInfo, State
from eventbridge.hypervisor.request import Request

from .events import STATES
from .scripts import Command, CommandFailed, Script
from .vm import Vm

# A chardev's filename, as QEMU words it (chardev/char-pty.c, char-socket.c).
_PTY = re.compile(r"pty:(?P<path>/.+)")
_SOCKET = re.compile(r"(?:disconnected:)?unix:(?P<path>/[^,]+)")
_NOT_CONSOLES = re.compile(r"compat_monitor\d+|qtest|gdb")
_SERIAL = re.compile(r"serial(\d+)")


def list_domains(vm: Vm, request: Request) -> Script:
    return [(yield from info(vm, request))]


def info(vm: Vm, request: Request) -> Script:
    status = yield from vm.status()
    cpus = yield from _asked("query-cpus-fast", [])
    memory = yield from _asked("query-memory-size-summary", {})
    kib = (memory.get("base-memory", 0) + memory.get("plugged-memory", 0)) // 1024
    return DomainInfo(
        vm.ref,
        STATES.get(status, State.PAUSED),
        # -machine none has neither.
        vcpus=len(cpus) or None,
        memory=kib or None,
        max_memory=kib or None,
        persistent=False,
    )


def _asked(command: str, otherwise: Any) -> Script:
    """Before there is a machine (-preconfig) both are refused."""
    try:
        return (yield Command(command))
    except CommandFailed:
        return otherwise


def console_info(vm: Vm, request: Request) -> Script:
    """``number`` counts the chardevs that are a pty or a unix socket: those of -serial first, then the others by name.
    QEMU does not say which device is behind one.
    """
    kind, number = request.arguments.get("kind"), request.arguments.get("number") or 0
    if kind not in (None, ConsoleKind.SERIAL):
        raise vm.refusal("console_info", f"it has no console of kind {kind}: over QMP there are serial ones only")
    consoles = sorted(_consoles(vm, (yield Command("query-chardev"))))
    if number >= len(consoles):
        raise vm.refusal(
            "console_info",
            f"it has no console {number}: {len(consoles)} of its chardevs are a pty or a unix socket"
            + ("" if consoles else "; give QEMU -serial pty, or -serial unix:PATH,server=on,wait=off"),
        )
    _, _, path, connection, filename = consoles[number]
    return ConsoleInfo(
        ConsoleKind.SERIAL, number, None, vm.ref.id or 0, output=filename, tty=path, connection=connection
    )


def _consoles(vm: Vm, chardevs: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, str, str, Connection, str]]:
    for chardev in chardevs:
        label, filename = chardev["label"], chardev["filename"]
        for pattern, connection in ((_PTY, Connection.PTY), (_SOCKET, Connection.SOCKET)):
            found = pattern.match(filename)
            if found and not _NOT_CONSOLES.fullmatch(label) and found["path"] != vm.address.path:
                serial = _SERIAL.fullmatch(label)
                yield int(serial[1]) if serial else 1 << 30, label, found["path"], connection, filename
