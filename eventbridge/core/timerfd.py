"""timerfd(2): a clock that can be polled.  In the standard library from Python 3.13; through ctypes before that.

Only what the poller needs: one timer on CLOCK_MONOTONIC, set to absolute nanoseconds.
"""

from __future__ import annotations

import os
import sys
import time

if sys.version_info >= (3, 13):

    def create() -> int:
        """A new timerfd, non-blocking and closed on exec, not armed."""
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def arm(fd: int, deadline: int) -> None:
        """Readable once CLOCK_MONOTONIC has reached ``deadline`` (ns, > 0).  Any thread."""
        os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=deadline)

else:
    import ctypes
    import struct

    # PyDLL keeps the interpreter lock: these calls never block, and giving the lock away costs more than they do.
    _libc = ctypes.PyDLL(None, use_errno=True)
    _ITIMERSPEC = struct.Struct("@qqqq")  # interval and value, each {time_t; long}
    _ABSOLUTE = 1  # TFD_TIMER_ABSTIME, include/uapi/linux/timerfd.h
    _create = _libc.timerfd_create
    _create.argtypes = (ctypes.c_int, ctypes.c_int)
    _settime = _libc.timerfd_settime
    _settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

    def create() -> int:
        """A new timerfd, non-blocking and closed on exec, not armed."""
        fd: int = _create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"timerfd_create: {os.strerror(error)}")
        return fd

    def arm(fd: int, deadline: int) -> None:
        """Readable once CLOCK_MONOTONIC has reached ``deadline`` (ns, > 0).  Any thread."""
        if _settime(fd, _ABSOLUTE, _ITIMERSPEC.pack(0, 0, deadline // 1_000_000_000, deadline % 1_000_000_000), None):
            error = ctypes.get_errno()
            raise OSError(error, f"timerfd_settime: {os.strerror(error)}")
