"""Run by test_libvirt_embed.py in a process of its own: ``embed_script.py HOST ROOT``, the guest's XML on stdin.

Starts a guest paused and ends it, with libvirt's QEMU driver in this very process, and prints a JSON line an event."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import libvirt

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt import install
from eventbridge.adapters.hypervisors.libvirt.driver import driver
from eventbridge.adapters.hypervisors.libvirt.hooks import trampoline
from eventbridge.hypervisor.events import DomainEvent
from tests.support.patience import PATIENCE

foreign: set[int] = set()
"""Threads, not Python's, that libvirt called a hook from."""


def note_thread(hook: Any) -> Any:
    def noted(*arguments: Any) -> Any:
        if isinstance(threading.current_thread(), threading._DummyThread):
            foreign.add(threading.get_ident())
        return hook(*arguments)

    return noted


def bridge_on(host: str) -> Bridge:
    """libuv and libvirt disagree about fork(2).  libuv's handler for it (uv__signal_global_reinit) closes in the child
    the numbers of a pipe of libuv's own, which libvirt has closed by then and has a pipe of its own at: libvirt's child
    fails with "unexpected exit status 1".  A pipe of libuv's with higher numbers is out of the way."""
    low = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
    try:
        return Bridge(host)
    finally:
        for fd in low:
            os.close(fd)


def main(host: str, root: str) -> None:
    # libvirt keeps what it is given when it is first installed: note who calls it.
    trampoline.update_timeout = note_thread(trampoline.update_timeout)  # type: ignore[method-assign]
    bridge = bridge_on(host)
    install(bridge)
    uri = f"qemu:///embed?root={root}"

    def emit(event: DomainEvent) -> None:
        assert threading.current_thread() is threading.main_thread()
        print(event.to_json(), flush=True)
        if str(event.kind) == "stopped":
            bridge.stop()

    subscription = driver.subscribe(uri, bridge, emit)
    connection = libvirt.open(uri)

    def act() -> None:
        try:
            domain = connection.createXML(sys.stdin.read(), libvirt.VIR_DOMAIN_START_PAUSED)
            domain.reset(0)  # QEMU says so on its monitor, whose thread is libvirt's own
            domain.destroy()
        except libvirt.libvirtError:
            bridge.stop()
            raise

    actor = threading.Thread(target=act)
    actor.start()
    ended = bridge.run(timeout=PATIENCE)
    actor.join()
    subscription.close()
    connection.close()
    empty = bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    bridge.close()
    sys.exit(0 if ended and empty and foreign else f"ended: {ended}, empty: {empty}, foreign threads: {len(foreign)}")


main(*sys.argv[1:])
