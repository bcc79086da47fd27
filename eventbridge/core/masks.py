"""Event masks: the one small vocabulary for what an fd can be, and its translation from and to epoll(7) and poll(2).

The values of the first four are libvirt's (``virEventHandleType``), so that a mask crosses into libvirt unchanged;
PRIORITY is libxl's POLLPRI.  Inside eventbridge a mask is a plain int and a translation is one list look-up: this is
on the path of every event.
"""

from __future__ import annotations

import enum
import operator
import select


class Events(enum.IntFlag):
    """What a handle asks for and what its callback is told.  ERROR and HANGUP are always reported, asked for or not
    (rule H2).
    """

    READABLE = 1
    WRITABLE = 2
    ERROR = 4
    HANGUP = 8
    PRIORITY = 16


ALL = int(Events.READABLE | Events.WRITABLE | Events.ERROR | Events.HANGUP | Events.PRIORITY)
ALWAYS_REPORTED = int(Events.ERROR | Events.HANGUP)

# poll(2)'s bits; epoll's are the same numbers on every Linux (include/uapi/linux/eventpoll.h), checked by
# tests/core/test_masks.py.
_BITS = (
    (Events.READABLE, select.POLLIN),
    (Events.WRITABLE, select.POLLOUT),
    (Events.ERROR, select.POLLERR),
    (Events.HANGUP, select.POLLHUP),
    (Events.PRIORITY, select.POLLPRI),
)

# Indexed by a mask of ours (0..31): the kernel's.  ERROR and HANGUP need not be asked for; the kernel reports them
# always.
TO_KERNEL = [
    sum(int(bit) for event, bit in _BITS if mask & event and not event & ALWAYS_REPORTED) for mask in range(ALL + 1)
]
# Indexed by what the kernel reports (poll's five bits fit below 32): a mask of ours.
FROM_KERNEL = [sum(int(event) for event, bit in _BITS if bits & bit) for bits in range(32)]

# Indexed by a handle's mask, then by what the kernel reports: what the handle is told.
TOLD = [[mask & FROM_KERNEL[bits] for bits in range(32)] for mask in range(ALL + 1)]

# Indexed by what a caller asked for: what its handle is to be told.  0 stays 0: a handle turned off hears nothing,
# not even HANGUP.
EFFECTIVE = [mask | ALWAYS_REPORTED if mask else 0 for mask in range(ALL + 1)]


def effective(events: int) -> int:
    """The mask a handle is served with, ERROR and HANGUP included; ValueError or TypeError for what is no mask."""
    if type(events) is int and 0 <= events <= ALL:  # as nearly always
        return EFFECTIVE[events]
    try:
        mask = operator.index(events)
    except TypeError:
        raise TypeError(f"events must be a combination of eventbridge.Events, not {events!r}") from None
    if not 0 <= mask <= ALL:
        raise ValueError(f"events must be between 0 and {ALL}, a combination of eventbridge.Events; found {mask}")
    return EFFECTIVE[mask]
