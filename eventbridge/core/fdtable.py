"""Numbers and files: who is on which fd number, and what the poller has been told about it.  Rules H2, H4, H9-H11.

A handle is on a *number*, as with poll(2); epoll watches *files*.  They part company when an owner closes an fd
before removing its handle, and worse when a dup or a forked child keeps the closed file alive: epoll then goes on
reporting it under the old number (a *ghost*) and cannot be told to stop.  The signs of it are all noticed here: ADD
succeeding, or MOD meeting ENOENT, for a number that was armed; DEL meeting ENOENT or EBADF (the number is then a
*suspect*, and the next file on it a sign).  The cure, `rebuild`, is the dispatcher's to call, before it looks at the
poller again.

Every method is called under the registry's lock.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from fcntl import F_GETFD, fcntl

from .handles import ABSENT, ALWAYS_READY, Handle, SharedFd, nobody
from .masks import TO_KERNEL
from .poller import PollerProtocol


class FdTable:
    """``fds``: the handle, or `SharedFd`, of each number; the poller's own fds are in it with a mask of 0."""

    def __init__(self, poller: PollerProtocol, wake: Callable[[], None]) -> None:
        self._poller = poller
        self._modify = poller.modify
        self._wake = wake
        self.fds: dict[int, Handle] = {fd: Handle(fd, 0, nobody, None, None) for fd in poller.inner}
        self.always_ready: dict[int, Handle] = {}
        self.shared = 0  # how many numbers have several handles
        self.touched: set[int] = (
            set()
        )  # numbers joined or left since the dispatcher last polled: what it holds on them is old
        self.suspects: set[int] = set()
        self.ghosts = False

    # -- who is on a number

    def join(self, handle: Handle, though_closed: bool = False) -> None:
        """OSError where the number cannot be watched; then nothing has changed.  ``though_closed``: taken all the
        same, for its next file.
        """
        fd = handle.fd
        held = self.fds.get(fd)
        if held is None:
            try:
                self._arm(handle)
            except OSError:
                if not though_closed:
                    raise
            self.touched.add(fd)
            self.fds[fd] = handle
        else:
            self._share(held, handle, (OSError,) if though_closed else ())

    def _share(self, held: Handle, handle: Handle, refusals: tuple[type[OSError], ...]) -> None:
        """One more on a number that is held already."""
        fd = handle.fd
        shared = SharedFd((*(held.members if isinstance(held, SharedFd) else (held,)), handle))
        shared.armed = held.armed
        if not (handle.mask or refusals):
            fcntl(fd, F_GETFD)  # nothing to arm, but a closed fd is refused all the same
        if handle.mask or held.armed == ABSENT:
            with contextlib.suppress(*refusals):
                if self._arm(shared) and held.armed >= 0:
                    self.haunt(fd)  # another file than it was
            if held.armed == ALWAYS_READY != shared.armed:
                del self.always_ready[fd]
        elif held.armed == ALWAYS_READY:
            self.always_ready[fd] = shared
        if not isinstance(held, SharedFd):
            self.fds[-held.id] = held
            self.shared += 1  # before the number is: a pass would take that for one handle's
        self.fds[-handle.id] = handle
        self.touched.add(fd)
        self.fds[fd] = shared

    def leave(self, handle: Handle) -> None:
        """Its mask is 0 from here on."""
        fd = handle.fd
        handle.mask = 0
        self.touched.add(fd)
        entry = self.fds[fd]
        if entry is handle:
            del self.fds[fd]
            self._disarm(handle)
        else:
            assert isinstance(entry, SharedFd)
            self._part(entry, handle)

    def _part(self, entry: SharedFd, handle: Handle) -> None:
        """One of several leaves; where one is left it has the number to itself again."""
        del self.fds[-handle.id]
        entry.members = tuple(member for member in entry.members if member is not handle)
        entry.unite()
        rest: Handle = entry
        if len(entry.members) == 1:
            rest = entry.members[0]
            rest.armed = entry.armed
            del self.fds[-rest.id]
            self.fds[rest.fd] = rest
            self.shared -= 1
            if rest.armed == ALWAYS_READY:
                self.always_ready[rest.fd] = rest
        if rest.mask != rest.armed:
            with contextlib.suppress(OSError):  # the number is closed: those left on it see its next file
                self._rearm(rest)

    def turn(self, handle: Handle, mask: int) -> None:
        """The handle asks for something else.  OSError where the number is closed; then nothing has changed."""
        entry = self.fds[handle.fd]
        if entry is handle and handle.armed >= 0:  # as nearly always
            try:
                self._modify(handle.fd, TO_KERNEL[mask])
            except OSError:
                pass  # another file, or none: below
            else:
                handle.mask = handle.armed = mask
                return
        before, handle.mask = handle.mask, mask
        if isinstance(entry, SharedFd):
            entry.unite()
        if entry.mask == entry.armed and not (mask and isinstance(entry, SharedFd)):
            return  # where others ask for the same already, it is told again: the number may be another file (H11)
        try:
            self._rearm(entry)
        except OSError:
            handle.mask = before
            if isinstance(entry, SharedFd):
                entry.unite()
            raise

    # -- what the poller is told

    def _arm(self, entry: Handle) -> bool:
        """Tell the poller of a file that it may not know; was it new to it?"""
        fd, mask = entry.fd, entry.mask
        if not mask:
            fcntl(fd, F_GETFD)  # nothing to arm, but a closed fd is refused all the same
            return False
        try:
            self._poller.add(fd, TO_KERNEL[mask])
        except FileExistsError:
            self._poller.modify(fd, TO_KERNEL[mask])
            entry.armed = mask
            return False
        except PermissionError:
            entry.armed = ALWAYS_READY
            self.always_ready[fd] = entry
            self._wake()
            return True
        entry.armed = mask
        if fd in self.suspects:
            self.haunt(fd)
        return True

    def _rearm(self, entry: Handle) -> None:
        """The number's mask has changed.

        Turned off (0), it is left in the poller asking for nothing: the next turn-on is then one cheap MOD.  A
        hang-up is reported even so, once: `take_out_deaf` sees to it.
        """
        if entry.armed == ABSENT:
            if entry.mask:
                self._arm(entry)
            return
        if entry.armed == ALWAYS_READY:
            self._wake()
            return
        try:
            self._poller.modify(entry.fd, TO_KERNEL[entry.mask])
            entry.armed = entry.mask
        except OSError as error:
            entry.armed = ABSENT
            if error.errno not in (errno.ENOENT, errno.EBADF, errno.EPERM):
                raise
            self.haunt(entry.fd)
            self._rearm(entry)

    def _disarm(self, entry: Handle) -> None:
        if entry.armed == ALWAYS_READY:
            del self.always_ready[entry.fd]
        elif entry.armed != ABSENT:
            try:
                self._poller.remove(entry.fd)
            except OSError:  # closed, or another file already: the owner closed before removing
                self.suspects.add(entry.fd)
        entry.armed = ABSENT

    def take_out_deaf(self, fd: int) -> None:
        """The poller reports a number whose mask is 0, a hang-up surely: it would be reported for ever (H2)."""
        entry = self.fds.get(fd)
        if entry is not None and not entry.mask and entry.armed >= 0:
            self._disarm(entry)

    def mute(self, fd: int) -> bool:
        """Have the poller say nothing of a number until `unmute`; True if it was not so before."""
        entry = self.fds.get(fd)
        if entry is None or entry.armed <= 0:
            return False
        self._disarm(entry)
        return True

    def unmute(self, fd: int) -> None:
        entry = self.fds.get(fd)
        if entry is not None and entry.armed == ABSENT and entry.mask:
            with contextlib.suppress(OSError):  # closed meanwhile
                self._arm(entry)

    # -- ghosts

    def haunt(self, fd: int) -> None:
        """The poller reports, or may report, under this number a file that it is not any more."""
        self.touched.add(fd)
        self.ghosts = True
        self._wake()

    def check(self, fd: int) -> None:
        """Is the number's file still the one that is armed?  A MOD tells: it must not fail."""
        entry = self.fds.get(fd)
        if entry is None or entry.armed < 0:
            return
        try:
            self._modify(fd, TO_KERNEL[entry.mask])
        except OSError:
            entry.armed = ABSENT
            self.haunt(fd)
            with contextlib.suppress(OSError):  # closed
                self._arm(entry)

    def rebuild(self) -> None:
        """Leave the ghosts behind.  The host loop must not be watching the poller's fd meanwhile.

        Where that cannot be done now they are still there, and the dispatcher tries again in each round; until then it
        delivers nothing from the poller, so nothing of theirs, and loses nothing.  So it is where a signal's handler
        came in, on this very thread, and had the poller told of what the fresh one does not know.
        """
        entries = self._armed()
        self.ghosts = False  # now, as the suspects: that handler may meet others
        self.suspects.clear()
        try:
            closed = self._poller.rebuild((fd, TO_KERNEL[armed]) for fd, (_, armed) in entries.items())
        except OSError:  # no fd left for it (EMFILE), twice in a row
            self.ghosts = True
            return
        if self._armed() != entries:
            self.ghosts = True
            return
        for fd in closed:
            entries[fd][0].armed = ABSENT

    def _armed(self) -> dict[int, tuple[Handle, int]]:
        return {fd: (entry, entry.armed) for fd, entry in list(self.fds.items()) if fd >= 0 and entry.armed >= 0}

    def clear(self) -> None:
        self.touched.update(fd for fd in list(self.fds) if fd >= 0)
        for entry in list(self.fds.values()):
            entry.mask = 0
        self.always_ready.clear()
        self.fds.clear()
