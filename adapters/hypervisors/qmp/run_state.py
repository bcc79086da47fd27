"""One domain's story, from one QEMU's events: what STOP, RESUME, RESET and the end mean by what came before them.

Sans-IO: events in, `tell(kind, reason, raw)` out.  The end is exactly one `stopped`.  One thread at a time, the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State

from . import events
from .codec import Event

Tell = Callable[[Kind, str | None, Mapping[str, Any]], object]


class Life:
    """``state`` is QEMU's run state when the story begins."""

    def __init__(self, tell: Tell, state: str) -> None:
        self._tell = tell
        self._new = {"prelaunch": "booted", "inmigrate": "migrated"}.get(state)  # why its first RESUME comes, a start
        self._end = {"shutdown": "shutdown", "guest-panicked": "crashed"}.get(state)  # the reason that is known by now
        self._down = self._end is not None  # its guest has ended, and has not been begun anew since
        self._stops_for: str | None = None
        self._left: str | None = None  # why it was stopped, where that was to leave
        self._over = False
        self._asleep = state == "suspended"
        self.running = events.STATES.get(state) is State.RUNNING
        self.incoming = state == "inmigrate"
        """Does it wait for a migration to come in?"""
        self.migration = "none"
        """What MIGRATION said last."""
        self.leaving: str | None = None
        """What a script is at that has the domain leave: "migrated" or "saved"."""
        self.suspending = False
        """Is a STOP to come that was asked for by itself?"""

    @property
    def can_run(self) -> bool:
        """Is nothing known that would keep it from running when it is told to?"""
        return not (self.incoming or self._down or self._asleep)

    def expect_end(self, reason: str) -> None:
        """The end that comes next is ours, and this is why: QEMU calls every ``quit`` the same."""
        self._end = reason

    def take(self, event: Event) -> None:
        """Tell what it means."""
        special = _SPECIAL.get(event.name)
        if special is not None:
            special(self, event)
        else:
            self._plain(event)
        self._stops_for = events.STOPS_FOR.get((event.name, str(event.data.get("action")))) or self._stops_for

    def ended(self, raw: Mapping[str, Any]) -> None:
        """QEMU has ended."""
        if not self._over:
            self._over = True
            # QEMU ends by itself when what comes in fails (migration/migration.c: process_incoming_migration_co).
            unannounced = "failed" if self.incoming and self.migration == "failed" else "crashed"
            self._tell(Kind.STOPPED, self._end or unannounced, raw)

    def _plain(self, event: Event) -> None:
        self._tell(*events.meaning(event.name, event.data), event.raw)

    # -- those that mean what they do by what came before

    def _stop(self, event: Event) -> None:
        self.running = False
        reason, self._stops_for = self._stops_for, None
        if self._down:  # it is off, or has crashed: that its processors stand still makes it no other
            self._tell(Kind.OTHER, "stop", event.raw)
            return
        if not self.suspending and self._is_leaving:
            reason = self._left = self.leaving or "migrated"
        self._tell(Kind.SUSPENDED, reason, event.raw)

    @property
    def _is_leaving(self) -> bool:
        return self.leaving is not None or (self.migration in events.MIGRATION_UNDER_WAY and not self.incoming)

    def _resume(self, event: Event) -> None:
        new, self._new = self._new, None
        left, self._left = self._left, None
        self._begin_anew()
        self.running = True
        if new is not None:
            self._tell(Kind.STARTED, new, event.raw)
        else:
            self._tell(Kind.RESUMED, left, event.raw)

    def _reset(self, event: Event) -> None:
        self._begin_anew()
        self._plain(event)
        if not self.running:  # nor is it now (softmmu/runstate.c: RUN_STATE_PRELAUNCH), and no event says so
            self._tell(Kind.SUSPENDED, "reset", event.raw)

    def _begin_anew(self) -> None:
        """A QEMU with -no-shutdown outlives its guest's end."""
        self._down = self._asleep = False
        self._end = None

    def _shutdown(self, event: Event) -> None:
        end = events.end(event.data)
        self._end = self._end or end.stopped  # of a guest that had ended before, a quit is not why
        self._down = True
        self._tell(Kind.SHUTDOWN, end.whose, event.raw)

    def _slept(self, event: Event) -> None:
        self.running, self._asleep = False, True
        self._plain(event)

    def _woke(self, event: Event) -> None:
        self.running, self._asleep = True, False
        self._plain(event)

    def _panicked(self, event: Event) -> None:
        if event.data.get("action") != "run":
            self._end = self._end or "crashed"
            self._down = True
        self._plain(event)

    def _migration(self, event: Event) -> None:
        self.migration = str(event.data.get("status"))
        self._plain(event)
        if self.incoming and self.migration == "completed":
            self._arrived(event)

    def _arrived(self, event: Event) -> None:
        """Where it did not run at once (autostart is off, or it was paused where it came from) nothing says so."""
        self.incoming = False
        if self._new is not None:
            self._tell(Kind.STARTED, self._new, event.raw)
            self._tell(Kind.SUSPENDED, self._new, event.raw)
            self._left, self._new = self._new, None


_SPECIAL: dict[str, Callable[[Life, Event], None]] = {
    "STOP": Life._stop,
    "RESUME": Life._resume,
    "RESET": Life._reset,
    "SHUTDOWN": Life._shutdown,
    "SUSPEND": Life._slept,
    "WAKEUP": Life._woke,
    "GUEST_PANICKED": Life._panicked,
    "MIGRATION": Life._migration,
}
