"""Where a domain's consoles are, read from xenstore: both ends of each, and the tty at the host's.

The nodes are those that libxl and xenconsoled write (libxl_console.c, docs/misc/console.txt of Xen): a console is a
frontend below the guest's own path, which names its backend, which names who connects it and how.  Blocks for a few
round trips to xenstored: not for a running loop's thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import Connection, ConsoleInfo, ConsoleKind
from eventbridge.hypervisor.request import Request

from .xenstore.store import Store

# The frontend of console ``{number}``.  The first paravirtual one has a place of its own, as the oldest of them.
FRONTENDS: dict[ConsoleKind, str] = {
    ConsoleKind.SERIAL: "/local/domain/{domid}/serial/{number}",
    ConsoleKind.PV: "/local/domain/{domid}/device/console/{number}",
    ConsoleKind.VUART: "/local/domain/{domid}/vuart/{number}",
}
PRIMARY = "/local/domain/{domid}/console"

_MISSING = (errno.ENOENT, errno.EACCES)


def console_info(
    store: Store, domid: int, kind: ConsoleKind = ConsoleKind.PV, number: int = 0, tty: str | None = None
) -> ConsoleInfo:
    """Console ``number`` of that kind, from 0; the first paravirtual one where nothing is said.

    ``tty`` is what is known of it already, from libxl.  `HypervisorError` (ENOENT) where the domain has no such
    console.
    """
    frontend = frontend_path(domid, kind, number)
    if not _exists(store, frontend):
        raise _none(store, domid, kind, number)
    front = _reader(store, frontend)
    backend = front("backend")
    back = _reader(store, backend) if backend else _nothing
    tty = tty or front("tty")
    return ConsoleInfo(
        kind=kind,
        devid=number,
        frontend=frontend,
        frontend_domid=domid,
        backend=backend,
        backend_domid=_number(front("backend-id")),
        state=_number(back("state")),
        event_channel=_number(front("port")),
        ring_ref=_number(front("ring-ref")),
        output=front("output") or back("output"),
        tty=tty,
        connection=_connection(back("connection"), tty),
    )


def wanted(request: Request) -> tuple[ConsoleKind, int]:
    """Which console a request of "console_info" is about; `HypervisorError` where it names none that can be."""
    kind, number = request.arguments.get("kind"), request.arguments.get("number")
    try:
        return ConsoleKind.PV if kind is None else ConsoleKind(kind), int(number or 0)
    except (TypeError, ValueError):
        raise HypervisorError(
            f"console_info: {kind!r} {number!r} names no console: a kind is one of {', '.join(ConsoleKind)}, and a "
            "number counts from 0",
            operation="console_info",
        ) from None


def consoles(store: Store, domid: int) -> list[ConsoleInfo]:
    """All consoles of a domain.  `HypervisorError` (ENOENT) where there is no such domain."""
    if not _exists(store, f"/local/domain/{domid}"):
        raise HypervisorError(
            f"{store.address}: there is no domain {domid}", code=errno.ENOENT, operation="console_info"
        )
    found = [console_info(store, domid)] if _exists(store, PRIMARY.format(domid=domid)) else []
    for kind, path in FRONTENDS.items():
        above = path.format(domid=domid, number="").rstrip("/")
        for name in sorted(_names(store, above), key=lambda name: (len(name), name)):
            if name.isdecimal():
                found.append(console_info(store, domid, kind, int(name)))
    return found


def frontend_path(domid: int, kind: ConsoleKind, number: int) -> str:
    """Where the guest's end of a console is."""
    path = PRIMARY if kind is ConsoleKind.PV and number == 0 else FRONTENDS[kind]
    return path.format(domid=domid, number=number)


def _connection(named: str | None, tty: str | None) -> Connection:
    """What the backend says; a console with a tty and nothing said is xenconsoled's or QEMU's pty."""
    if named in (Connection.PTY, Connection.SOCKET):
        return Connection(named)
    return Connection.PTY if tty and tty.startswith("/dev/pts/") else Connection.UNKNOWN


def _reader(store: Store, above: str) -> Callable[[str], str | None]:
    def read(name: str) -> str | None:
        try:
            return store.read(f"{above}/{name}").decode(errors="replace")
        except HypervisorError as error:
            if error.code in _MISSING:
                return None
            raise

    return read


def _nothing(name: str) -> str | None:
    return None


def _exists(store: Store, path: str) -> bool:
    try:
        store.read(path)
    except HypervisorError as error:
        if error.code != errno.ENOENT:
            raise
        return False
    return True


def _names(store: Store, path: str) -> list[str]:
    return store.list(path) if _exists(store, path) else []


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else None


def _none(store: Store, domid: int, kind: ConsoleKind, number: int) -> HypervisorError:
    there = [f"{info.kind} {info.devid}" for info in consoles(store, domid)]
    return HypervisorError(
        f"{store.address}: domain {domid} has no {kind} console {number}; it has: {', '.join(there) or 'none at all'}",
        code=errno.ENOENT,
        operation="console_info",
    )
