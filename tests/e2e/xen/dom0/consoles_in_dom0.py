"""A guest's console through the bridge: both ways, to its end."""

from __future__ import annotations

import random

import pytest

from eventbridge import Bridge
from eventbridge.hypervisor.model import Connection, ConsoleKind
from tests.e2e.xen.dom0 import guests
from tests.e2e.xen.dom0.typed import Typed
from tests.support.patience import PATIENCE

on_one_host = pytest.mark.parametrize("bridge", ["select"], indirect=True)
BYTES = 20_000
"""More than the rings (1 and 2 KiB) and the tty (4 KiB) hold together."""


@on_one_host
def test_a_console_is_described_from_both_its_ends(bridge: Bridge, toolstack: guests.Toolstack) -> None:
    """xen.md 5."""
    domid = toolstack.create(guests.small("described"))
    typed = Typed(bridge, domid)
    info = typed.info
    typed.stream.close()
    assert (info.kind, info.devid, info.connection) == (ConsoleKind.PV, 0, Connection.PTY)
    assert (info.frontend, info.frontend_domid) == (f"/local/domain/{domid}/console", domid)
    assert (info.backend, info.backend_domid) == (f"/local/domain/0/backend/console/{domid}/0", 0)
    assert info.tty is not None and info.tty.startswith("/dev/pts/")
    assert info.event_channel is not None and info.ring_ref is not None


def test_every_byte_goes_to_the_guest_and_comes_back_in_order(bridge: Bridge, toolstack: guests.Toolstack) -> None:
    """xen.md 5: what the guest wrote before anybody listened is there too, and nothing is made of any byte."""
    typed = Typed(bridge, toolstack.create(guests.small("echo", "of these words")))
    typed.until(lambda written: written.endswith(b"\n"))
    assert typed.data == b"guest up: of these words\r\n"
    typed.answers(bytes(range(256)))
    typed.answers(random.Random(1).randbytes(BYTES))
    typed.stream.close()
    assert typed.ends == [], "closing is no end of the guest's"


@on_one_host
def test_a_console_ends_once_with_its_guest(bridge: Bridge, toolstack: guests.Toolstack) -> None:
    domid = toolstack.create(guests.small("ends"))
    typed = Typed(bridge, domid)
    typed.until(lambda written: written.endswith(b"\n"))
    typed.answers(b"still here")
    toolstack.destroy(domid)
    assert bridge.run(until=lambda: bool(typed.ends), timeout=PATIENCE)
    bridge.run(timeout=0.2)  # a few passes more, for what must not come
    assert typed.ends == [None]
    assert bridge.stats().handles == 0
