"""virEventAddHandle and virEventAddTimeout with a ``free`` function, which libvirt-python's own calls leave NULL.

Straight into libvirt's library through ctypes, as a C program would; libvirt-python's glue and our hooks are beneath
it all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator

from eventbridge.testing.conformance.harness import Rig

_libvirt = ctypes.CDLL("libvirt.so.0")  # the one that libvirt-python has loaded
# libvirt-event.h: virEventHandleCallback, virEventTimeoutCallback, virFreeCallback
_HANDLE_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_TIMEOUT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
_FREE_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_kept: list[Direct] = []  # C may call them for as long as the process lives


class Direct:
    """Notes, for the opaque number of each handle and timeout: ("called", opaque), ("returned", opaque) and
    ("freed", opaque, thread, clean), where clean says that no call of ours was under way on that thread.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.then: Callable[[], object] = lambda: None
        self._under_way = threading.local()
        self._on_ready = _HANDLE_CALLBACK(lambda watch, fd, events, opaque: self._called(opaque))
        self._on_expired = _TIMEOUT_CALLBACK(lambda timer, opaque: self._called(opaque))
        self._on_free = _FREE_CALLBACK(self._freed)
        _kept.append(self)

    def _called(self, opaque: int) -> None:
        self.rig.note(("called", opaque))
        with self._busy():
            self.then()
        self.rig.note(("returned", opaque))

    def _freed(self, opaque: int) -> None:
        clean = not getattr(self._under_way, "depth", 0)
        self.rig.note(("freed", opaque, threading.get_ident(), clean))

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self._under_way.depth = getattr(self._under_way, "depth", 0) + 1
        try:
            yield
        finally:
            self._under_way.depth -= 1

    def freed(self, opaque: int) -> list[tuple[str, int, int, bool]]:
        return [note for note in self.rig.notes if note[:2] == ("freed", opaque)]

    # -- each as in C: an id, or 0; -1 for failure

    def add_handle(self, fd: int, events: int, opaque: int) -> int:
        with self._busy():
            return int(_libvirt.virEventAddHandle(fd, events, self._on_ready, ctypes.c_void_p(opaque), self._on_free))

    def add_timeout(self, ms: int, opaque: int) -> int:
        with self._busy():
            return int(_libvirt.virEventAddTimeout(ms, self._on_expired, ctypes.c_void_p(opaque), self._on_free))

    def remove_handle(self, watch: int) -> int:
        with self._busy():
            return int(_libvirt.virEventRemoveHandle(watch))

    def remove_timeout(self, timer: int) -> int:
        with self._busy():
            return int(_libvirt.virEventRemoveTimeout(timer))
