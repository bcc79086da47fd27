"""What one watch on an fd is, and what several on one number are.

An fd that has one handle, as nearly all have, costs no container: `FdTable.fds` maps the number straight to the
`Handle`.  Where several share a number (H4) it maps to a `SharedFd` that unites their masks, and each member is found
under the number ``-id`` as well, so that the dispatcher can deal with them one by one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeAlias

HandleCallback: TypeAlias = Callable[..., object]
"""``callback(id, fd, events, opaque)``: libvirt's order; see ``unpack`` of `Bridge.add_handle` for the variant."""
TimeoutCallback: TypeAlias = Callable[..., object]
"""``callback(id, opaque)``."""
FreeCallback: TypeAlias = Callable[[Any], object]

ABSENT = -1
"""`Handle.armed` of a number that the poller does not know."""
ALWAYS_READY = -2
"""`Handle.armed` of a number that epoll refuses because it is always ready (H9)."""


class Handle:
    """One watch on one fd number.  ``mask`` is what it is told (0: nothing); a removed handle's is 0."""

    __slots__ = ("armed", "callback", "fd", "free", "id", "mask", "opaque", "unpack")

    def __init__(
        self, fd: int, mask: int, callback: HandleCallback, opaque: Any, free: FreeCallback | None, unpack: bool = False
    ) -> None:
        self.id = 0  # given by the registry
        self.fd = fd
        self.mask = mask
        self.armed = ABSENT  # the mask that the poller was told for this number, or ABSENT, or ALWAYS_READY
        self.callback = callback
        self.opaque = opaque
        self.free = free
        self.unpack = unpack  # call it with the first two of opaque, not with opaque


def nobody(id: int, fd: int, events: int, opaque: object) -> None:
    """The callback of what is never called: the poller's own fds, a shared fd as a whole."""


class SharedFd(Handle):
    """Several handles on one number; id 0, and a mask that unites theirs."""

    __slots__ = ("members",)

    def __init__(self, members: tuple[Handle, ...]) -> None:
        super().__init__(members[0].fd, 0, nobody, None, None)
        self.members = members
        self.unite()

    def unite(self) -> None:
        self.mask = 0
        for member in self.members:
            self.mask |= member.mask


def check_fd(fd: object) -> int:
    """An fd number out of an int or of anything with ``fileno()``; TypeError or ValueError for what cannot be one."""
    if not isinstance(fd, int):
        fileno = getattr(fd, "fileno", None)
        if fileno is None:
            raise TypeError(f"fd must be a file descriptor's number or have fileno(), not {fd!r}")
        fd = fileno()
    if not isinstance(fd, int):
        raise TypeError(f"fileno() must give an int, not {fd!r}")
    if fd < 0:
        raise ValueError(f"fd must be 0 or more; found {fd} (a closed file's fileno(), perhaps)")
    return fd


def cannot_watch(fd: int, error: OSError) -> OSError:
    """The same error, saying which fd and what to do."""
    if error.errno == errno.EBADF:
        return OSError(errno.EBADF, f"fd {fd} is not open: register it before it is closed")
    return OSError(error.errno, f"fd {fd} cannot be watched: {os.strerror(error.errno or 0)}")
