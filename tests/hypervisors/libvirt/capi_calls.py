"""What the tests through libvirt's C API have in common: callbacks that note what they were told, and a proof that the
loop still serves libvirt.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import libvirt

from eventbridge.testing.conformance.harness import PATIENCE, Rig

READABLE = libvirt.VIR_EVENT_HANDLE_READABLE
WRITABLE = libvirt.VIR_EVENT_HANDLE_WRITABLE
ERROR = libvirt.VIR_EVENT_HANDLE_ERROR
HANGUP = libvirt.VIR_EVENT_HANDLE_HANGUP


def stream(rig: Rig) -> tuple[int, int]:
    """The fds of the two ends of a socket pair."""
    ours, theirs = (end.detach() for end in socket.socketpair())
    rig.own(ours, theirs)
    return ours, theirs


def noting_once(rig: Rig, name: str) -> Callable[[int, int, int, object], None]:
    """A handle's callback that notes (name, events) and then asks for nothing more."""

    def callback(watch: int, fd: int, events: int, opaque: object) -> None:
        libvirt.virEventUpdateHandle(watch, 0)
        rig.note((name, events))

    return callback


def noting_and_removing(rig: Rig, name: str) -> Callable[[int, object], None]:
    """A timeout's callback that removes it and notes the name."""

    def callback(timer: int, opaque: object) -> None:
        libvirt.virEventRemoveTimeout(timer)
        rig.note(name)

    return callback


def still_works(rig: Rig) -> None:
    """A new handle and a new timeout are called, once each."""
    before = rig.noted(("works", READABLE)), rig.noted("fires")
    after = before[0] + 1, before[1] + 1
    reader, _ = rig.pipe(b"!")
    watch = libvirt.virEventAddHandle(reader, READABLE, noting_once(rig, "works"), None)
    libvirt.virEventAddTimeout(1, noting_and_removing(rig, "fires"), None)
    rig.until(lambda: (rig.noted(("works", READABLE)), rig.noted("fires")) == after)
    libvirt.virEventRemoveHandle(watch)
    rig.settle()
    assert (rig.noted(("works", READABLE)), rig.noted("fires")) == after


def in_threads(rig: Rig, *acts: Callable[[], None]) -> None:
    """Each of these on a thread of its own, while the loop turns."""

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        finally:
            rig.note("thread done")

    threads = [threading.Thread(target=run, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    if rig.own_thread:
        rig.until(lambda: rig.noted("thread done") == len(acts))
    else:  # the thread's note wakes no loop: look again by and by
        while not rig.bridge.run(lambda: rig.noted("thread done") == len(acts), timeout=0.01):
            assert any(thread.is_alive() for thread in threads) or rig.noted("thread done") == len(acts)
    for thread in threads:
        thread.join(PATIENCE)
