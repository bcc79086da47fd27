"""A drop-in for libvirt-python's module of this name: the same public names, over a `Bridge` on asyncio.

    from eventbridge.adapters.hypervisors import libvirtaio     # instead of:  import libvirtaio

    async def main():
        libvirtaio.virEventRegisterAsyncIOImpl()
        connection = libvirt.open("qemu:///system")

It may be registered again, as a second ``asyncio.run`` in the process must (D9), several tasks may `drain` at once
(D8), and no task of its own is there to be cancelled.  Registering and asking may be done from any thread; draining in
a task of the loop.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.core.host_lookup import factory

from .libvirt import install

__all__ = ["getCurrentImpl", "virEventAsyncIOImpl", "virEventRegisterAsyncIOImpl"]


class virEventAsyncIOImpl:
    """libvirt's event implementation on one asyncio loop; without ``loop`` on the one that
    `asyncio.get_event_loop` gives.

    Nothing is opened and libvirt is told nothing before `register`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = asyncio.get_event_loop() if loop is None else loop
        self._bridge: Bridge | None = None

    def register(self) -> virEventAsyncIOImpl:
        """Serve libvirt from here on; returns itself.

        What libvirt has registered with another of these, or with a bridge, comes along and goes on living.  Raises
        `HostUnavailable` where the loop is closed, and `HypervisorError` where libvirt has somebody else's
        implementation already: it takes one for a process's life.
        """
        global _current
        with _registering:
            bridge = self._bridge
            if bridge is None or bridge.closed:
                asyncio_host: Any = factory("asyncio")  # that it takes a loop is its own affair, not every factory's
                bridge = Bridge(asyncio_host(self.loop))
            try:
                install(bridge)
            except BaseException:
                if bridge is not self._bridge:
                    bridge.close()
                raise
            self._bridge = bridge
            before, _current = _current, self
        if before is not None and before is not self:
            before._retire()
        return self

    async def drain(self) -> None:
        """Wait until libvirt has nothing registered here and all that it lent is freed.  In a task of the loop;
        several at once may.
        """
        if self._bridge is not None:
            await self._bridge.drain()

    def is_idle(self) -> bool:
        """Has libvirt nothing registered here, and is all that it lent freed?  After a connection is closed and
        `drain` awaited, False means that something of it was left registered.
        """
        return self._bridge is None or self._bridge.is_empty()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.loop!r}: {self._bridge or 'not registered'}>"

    def _retire(self) -> None:
        """Another one serves libvirt now: give back this one's file descriptors."""
        if self._bridge is not None:
            self._bridge.close()


_registering = threading.Lock()
_current: virEventAsyncIOImpl | None = None


def getCurrentImpl() -> virEventAsyncIOImpl | None:
    """The one that was registered last, or None."""
    return _current


def virEventRegisterAsyncIOImpl(loop: asyncio.AbstractEventLoop | None = None) -> virEventAsyncIOImpl:
    """Have libvirt's events dispatched by ``loop``; without it, by the loop that `asyncio.get_event_loop` gives.

    The usual way in.  Before the first connection is opened, and again for each further ``asyncio.run``; what is
    returned may be dropped.  Raises as `virEventAsyncIOImpl.register`.
    """
    return virEventAsyncIOImpl(loop).register()
