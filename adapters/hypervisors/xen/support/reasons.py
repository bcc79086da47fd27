"""What Xen's words mean in eventbridge's: shutdown reasons and libxl's error codes, as tables.

The numbers are Xen's: ``SHUTDOWN_*`` of xen/include/public/sched.h, which libxl's ``libxl_shutdown_reason`` repeats,
and libxl's ``libxl_error`` (libxl_types.idl), of which 4.1 knew the first dozen.
"""

from __future__ import annotations

from typing import NamedTuple

from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State


class Meaning(NamedTuple):
    """A shutdown reason: its name, what is told when the guest stops with it, and of its end afterwards."""

    name: str
    kind: Kind
    reason: str | None
    end: str
    state: State = State.SHUTDOWN


SHUTDOWN: dict[int, Meaning] = {
    0: Meaning("poweroff", Kind.SHUTDOWN, "guest", "shutdown"),
    1: Meaning("reboot", Kind.REBOOTED, None, "shutdown"),
    2: Meaning("suspend", Kind.SUSPENDED, "guest", "saved", State.SUSPENDED),
    3: Meaning("crash", Kind.CRASHED, None, "crashed", State.CRASHED),
    4: Meaning("watchdog", Kind.CRASHED, "watchdog", "crashed", State.CRASHED),
    5: Meaning("soft_reset", Kind.REBOOTED, "soft_reset", "shutdown"),
}
UNKNOWN = Meaning("unknown", Kind.SHUTDOWN, None, "shutdown")
DESTROYED = "destroyed"
"""The end of a domain whose guest had not stopped."""
MIGRATED = "migrated"
"""The end of a domain whose guest goes on as another."""

# Without libxl's prefix ERROR_, and in words; 4.1 knew those down to -11.
LIBXL_ERRORS: dict[int, str] = {
    -1: "an error of no particular kind",
    -2: "wrong version",
    -3: "it failed",
    -4: "not implemented",
    -5: "out of memory",
    -6: "invalid argument",
    -7: "it failed badly",
    -8: "the guest did not answer in time",
    -9: "timed out",
    -10: "the guest has no paravirtual drivers",
    -11: "not ready",
    -12: "the event loop refused a registration",
    -13: "the buffer is full",
    -14: "unknown child process",
    -15: "a lock could not be taken",
    -16: "the JSON configuration is empty",
    -17: "the device exists already",
    -18: "the checkpoint devices do not match",
    -19: "the checkpoint device is not supported",
    -20: "the vNUMA configuration is invalid",
    -21: "no such domain",
    -22: "aborted",
    -23: "not found",
    -24: "the domain was destroyed meanwhile",
    -25: "the feature was removed",
    -26: "a protocol error in QMP",
    -27: "an unknown error of QMP's",
    -28: "QMP refused",
    -29: "QMP knows no such command",
    -30: "the device is not active",
    -31: "the device is not found",
    -32: "the device model's QMP is not as expected",
}
ABORTED = -22
NO_SUCH_DOMAIN = -21


def meaning(reason: int) -> Meaning:
    """Of a shutdown reason; any number."""
    return SHUTDOWN.get(reason, UNKNOWN)
