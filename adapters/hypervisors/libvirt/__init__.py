"""libvirt, through the callback model: it registers its fds and timeouts with whatever bridge is installed.

    from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt
    bridged_libvirt.install(bridge)     # before the first connection is opened; again, with another bridge, to re-host
    connection = libvirt.open("qemu:///system")

The module of that name without the dots is libvirt-python's own, and is used as it is.
"""

from eventbridge.core.bridge import BridgeCore

from .hooks import trampoline

__all__ = ["install", "installed"]


def install(bridge: BridgeCore) -> None:
    """Serve libvirt from ``bridge``, in this process, from now on.  Any thread.

    libvirt accepts one event implementation for a process's life, so the first call must come before any connection
    is opened and before anybody else registers one: `HypervisorError` says so where it was too late.  Called again it
    re-hosts: what libvirt has registered goes on living on the new bridge, also when the old one's loop has ended.

    The old loop's last callback is over before the new one's first begins, and so events keep their order.  Where
    another thread runs the old loop it is asked to let go, and this returns; in a callback of it, it lets go after
    that.  Until then, as `installed` says, the old bridge serves libvirt, and what is registered meanwhile comes along.
    Closing the old bridge has it let go at once.  Of several calls the last one counts; where its bridge is closed
    before it was reached, libvirt stays where it is.  Raises `BridgeClosed` for a bridge that is closed.
    """
    trampoline.install(bridge)


def installed() -> BridgeCore | None:
    """The bridge that serves libvirt now, or None."""
    return trampoline.bridge
