"""The permanent trampoline: what libvirt calls, whatever bridge is beneath it.

libvirt takes one event implementation for a process's life and asks it for ids that stay good as long
(``virEventRegisterImpl``, libvirt-event.h).  Bridges come and go.  So libvirt is given six functions once, and
`Trampoline.install` carries what is registered from one bridge to the next, ids and all (D9); libvirt notices
nothing.

It is carried between two passes of the old bridge, so that the last callback there is over before the first on the new
one begins.  Until then, which is at once but where another thread runs the old loop, or a callback of it installs, all
that libvirt asks for is still the old bridge's, and is carried with the rest.

All of it is hook side: libvirt calls from any thread, with its own locks held.  The usual call takes no lock of ours
but the bridge's; one that meets a move under way waits for it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import libvirt
import libvirtmod

from eventbridge.core.affinity import hook_side
from eventbridge.core.bridge import BridgeCore
from eventbridge.core.transfer import NOBODYS
from eventbridge.errors import BridgeClosed, EventBridgeError, HypervisorError, UnknownHandle

Glue: TypeAlias = tuple[Any, Any, Any]
"""How libvirt-python hands a C callback over: (cb, opaque, ff)."""

# libvirt.py's public wrappers unpack the glue and call these three; called directly they take 568 ns instead of 889.
_invoke_handle: Callable[[int, int, int, Any, Any], int] = libvirtmod.virEventInvokeHandleCallback
_invoke_timeout: Callable[[int, Any, Any], int] = libvirtmod.virEventInvokeTimeoutCallback
_invoke_free: Callable[[Any, Any], int] = libvirtmod.virEventInvokeFreeCallback

log = logging.getLogger(__name__)


def _free(glue: Glue) -> None:
    _invoke_free(glue[2], glue[1])


class Trampoline:
    """libvirt's side of whatever bridge is installed.  A process has one: `trampoline`."""

    def __init__(self) -> None:
        self.bridge: BridgeCore | None = None
        self._wanted: BridgeCore | None = None  # where it is to be, if not there
        # libvirt's ids are the bridge's, but for those that a bridge had given out itself before libvirt came to it,
        # and for those that died with a bridge that was closed while libvirt held them: these are now `NOBODYS`.
        self._handles: dict[int, int] = {}
        self._timeouts: dict[int, int] = {}
        self._moving = threading.RLock()
        self._registered = False
        self._called = False
        self._here = threading.local()  # ``note``: see `noting_fds`

    # -- the six hooks

    @hook_side
    def add_handle(self, fd: int, events: int, cb: object, glue: Glue) -> int:
        try:
            note: Callable[[int], None] | None = getattr(self._here, "note", None)
            if note is not None:
                note(fd)
            with self._moving:  # an id given out while the rest moves could be given out twice
                bridge = self.bridge or self._installed()
                return bridge.add_handle(fd, events, _invoke_handle, glue, _free, unpack=True)
        except Exception as error:  # nothing may be raised into libvirt; -1 is its word for failure
            return self._failed(f"watch fd {fd}", error)

    @hook_side
    def update_handle(self, id: int, events: int) -> None:
        try:
            self.bridge.update_handle(self._handles.get(id, id), events)  # type: ignore[union-attr]  # see _once_more
        except Exception as error:
            self._once_more(
                f"update handle {id}", error, lambda bridge: bridge.update_handle(self._handles.get(id, id), events)
            )

    @hook_side
    def remove_handle(self, id: int) -> int:
        try:
            self.bridge.remove_handle(self._handles.get(id, id))  # type: ignore[union-attr]
        except Exception as error:
            return self._once_more(
                f"remove handle {id}",
                error,
                lambda bridge: bridge.remove_handle(self._handles.get(id, id)),
                raises=self._handles.get(id) != NOBODYS,
            )
        return 0

    @hook_side
    def add_timeout(self, ms: int, cb: object, glue: Glue) -> int:
        self._called = True
        try:
            with self._moving:  # an id given out while the rest moves could be given out twice
                return self._installed().add_timeout(ms if ms > -1 else -1, _invoke_timeout, glue, _free, unpack=True)
        except Exception as error:
            return self._failed(f"add a timeout of {ms} ms", error)

    @hook_side
    def update_timeout(self, id: int, ms: int) -> None:
        ms = ms if ms > -1 else -1
        try:
            self.bridge.update_timeout(self._timeouts.get(id, id), ms)  # type: ignore[union-attr]
        except Exception as error:
            self._once_more(
                f"update timeout {id}", error, lambda bridge: bridge.update_timeout(self._timeouts.get(id, id), ms)
            )

    @hook_side
    def remove_timeout(self, id: int) -> int:
        try:
            self.bridge.remove_timeout(self._timeouts.get(id, id))  # type: ignore[union-attr]
        except Exception as error:
            return self._once_more(
                f"remove timeout {id}",
                error,
                lambda bridge: bridge.remove_timeout(self._timeouts.get(id, id)),
                raises=self._timeouts.get(id) != NOBODYS,
            )
        return 0

    # -- installing

    def install(self, bridge: BridgeCore) -> None:
        """Have libvirt served by ``bridge``, with all that it has registered.  Any thread; it waits for nothing."""
        with self._moving:
            if bridge.closed:
                raise BridgeClosed("install() needs a bridge that is open: this one is closed, or a forked parent's")
            if not self._registered:
                self._register()
            old = self.bridge = self.bridge or bridge
            self._wanted = bridge
        if old is not bridge:  # with no lock held: it may call the old loop
            old.between_passes(functools.partial(self._follow, old))

    def _follow(self, old: BridgeCore) -> None:
        """Between two passes of ``old``.  Where the wanted bridge is closed by now, libvirt stays."""
        with self._moving:
            bridge = self._wanted
            if self.bridge is not old or bridge is None or bridge is old or bridge.closed:
                return
            handles, timeouts = old.transfer(bridge, _free)
            self._handles = _rename(self._handles, handles)
            self._timeouts = _rename(self._timeouts, timeouts)
            self.bridge = bridge

    def _register(self) -> None:
        """libvirt takes the first implementation, and of a second only logs that it ignores it: see whether it calls
        ours.
        """
        hooks = (
            self.add_handle,
            self.update_handle,
            self.remove_handle,
            self.add_timeout,
            self.update_timeout,
            self.remove_timeout,
        )
        with contextlib.suppress(RuntimeError):  # libvirt-python's own refusal of a second one
            libvirt.virEventRegisterImpl(*hooks)
            # No bridge is installed yet: the probe is refused, and nothing of it is left anywhere.
            with contextlib.suppress(libvirt.libvirtError):
                probe = libvirt.virEventAddTimeout(-1, lambda timer, opaque: None, None)
                libvirt.virEventRemoveTimeout(probe)  # somebody else's implementation took it
        if not self._called:
            raise HypervisorError(
                "libvirt has another event implementation already and cannot change it: call install(bridge) before "
                "anything registers one (virEventRegisterDefaultImpl, libvirt-python's libvirtaio) in this process",
                operation="install",
            )
        self._registered = True

    @contextlib.contextmanager
    def noting_fds(self, note: Callable[[int], None]) -> Iterator[None]:
        """Call ``note(fd)`` for each fd that libvirt has watched from within this thread's calls meanwhile."""
        self._here.note = note
        try:
            yield
        finally:
            self._here.note = None

    # -- when something is not as it should be

    def _installed(self) -> BridgeCore:
        if self.bridge is None:
            raise BridgeClosed("no bridge is installed for libvirt")
        return self.bridge

    def _once_more(self, what: str, error: Exception, call: Callable[[BridgeCore], None], raises: bool = False) -> int:
        """A hook failed.  It may have met a move under way: when that is over, what it is about has a new home."""
        if isinstance(error, UnknownHandle | AttributeError):
            with self._moving:
                try:
                    call(self._installed())
                    return 0
                except UnknownHandle:
                    if raises:
                        # libvirt-python tells libvirt success whatever a remove returns (libvirt-override.c): raising
                        # alone is failure.
                        raise UnknownHandle(f"libvirt asked to {what}, which it does not have") from None
                except Exception as still:
                    error = still
        return self._failed(what, error)

    @staticmethod
    def _failed(what: str, error: Exception) -> int:
        level = logging.DEBUG if isinstance(error, EventBridgeError | KeyError) else logging.WARNING
        log.log(level, "libvirt asked to %s: %s", what, error)
        return -1


def _rename(names: dict[int, int], newer: dict[int, int]) -> dict[int, int]:
    """libvirt's ids to the bridge's, after some of the bridge's have changed."""
    return {**newer, **{name: newer.get(id, id) for name, id in names.items()}}


trampoline = Trampoline()
