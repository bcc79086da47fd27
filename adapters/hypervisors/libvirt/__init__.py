"""libvirt, through the callback model: it registers its fds and timeouts with whatever bridge is installed.

    from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt
    bridged_libvirt.install(bridge)     # before the first connection is opened; again, with another bridge, to re-host
    connection = libvirt.open("qemu:///system")

The module of that name without the dots is libvirt-python's own, and is used as it is.
"""

from eventbridge.bridge import Bridge

from .hooks import trampoline

__all__ = ["install", "installed"]


def install(bridge: Bridge) -> None:
    """Serve libvirt from ``bridge``, in this process, from now on.  Any thread.

    libvirt accepts one event implementation for a process's life, so the first call must come before any connection
    is opened and before anybody else registers one: `HypervisorError` says so where it was too late.  Called again it
    re-hosts: what libvirt has registered goes on living on the new bridge, also when the old one's loop has ended.
    Where both loops are running, a callback that the old one is in the middle of is not waited for: two events may
    then arrive in either order, each once.  Raises `BridgeClosed` for a bridge that is closed.
    """
    trampoline.install(bridge)


def installed() -> Bridge | None:
    """The bridge that serves libvirt now, or None."""
    return trampoline.bridge
