"""Where a domain's consoles are, read from its live definition.

libvirt lists the first serial port twice, as ``<serial>`` and as a ``<console>`` whose target is "serial"
(formatdomain.html, "Console"); here it is one, of kind serial.  Looks into text only: any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from eventbridge.hypervisor.model import Connection, ConsoleInfo, ConsoleKind

# By a console's or serial port's type: what is at the host's end.  Others (file, tcp, spicevmc...) are unknown here.
CONNECTIONS: dict[str, Connection] = {"pty": Connection.PTY, "unix": Connection.SOCKET}


def consoles(definition: str, domid: int) -> list[ConsoleInfo]:
    """All consoles of a domain that runs, the primary one first."""
    devices = ElementTree.fromstring(definition).find("devices")
    found: dict[tuple[ConsoleKind, int], ConsoleInfo] = {}
    for kind, element in () if devices is None else _elements(devices):
        info = _info(kind, element, domid)
        found.setdefault((kind, info.devid), info)
    return list(found.values())


def choose(there: list[ConsoleInfo], kind: ConsoleKind | None, number: int | None) -> ConsoleInfo | None:
    """The console of that kind and number; where nothing is said, the primary one."""
    for info in there:
        if kind in (None, info.kind) and number in (None, info.devid):
            return info
    return None


def _elements(devices: ElementTree.Element) -> Iterator[tuple[ConsoleKind, ElementTree.Element]]:
    for element in devices.findall("console"):
        target = element.find("target")
        serial = target is not None and target.get("type") == "serial"
        yield ConsoleKind.SERIAL if serial else ConsoleKind.PV, element
    for element in devices.findall("serial"):
        yield ConsoleKind.SERIAL, element


def _info(kind: ConsoleKind, element: ElementTree.Element, domid: int) -> ConsoleInfo:
    target, source = element.find("target"), element.find("source")
    type_ = element.get("type", "")
    path = None if source is None else source.get("path")
    connection = CONNECTIONS.get(type_, Connection.UNKNOWN)
    return ConsoleInfo(
        kind=kind,
        devid=int("0" if target is None else target.get("port", "0")),
        frontend=None,
        frontend_domid=domid,
        output=type_ if path is None or connection is Connection.PTY else f"{type_}:{path}",
        tty=element.get("tty") or (path if connection is Connection.PTY else None),
        connection=connection,
    )
