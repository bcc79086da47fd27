"""What may be asked of a guest in which state, and what comes of it: the second table of the state machine.

`guests.TRANSITIONS` says what happens by itself; this says what a call makes happen.  What is not in it is refused
with one error that names operation, guest and state.
"""

from __future__ import annotations

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.events import Kind

from .guests import RUNS, Guest, State, Step


def _step(kind: Kind, reason: str | None, to: State) -> Step:
    return Step(1, kind, reason, to)


PAUSE = _step(Kind.SUSPENDED, "paused", State.PAUSED)
"""What follows where somebody starts it paused."""
MIGRATED_IN = _step(Kind.STARTED, "migrated", State.RUNNING)
SENT = _step(Kind.SUSPENDED, "migrated", State.SENT)
"""What becomes of one that runs, at its source, where its migration is yet to be confirmed."""
TAKEN_BACK = _step(Kind.RESUMED, "migrated", State.RUNNING)
ADDED = _step(Kind.DEFINED, "added", State.OFF)
REMOVED = _step(Kind.UNDEFINED, "removed", State.ABSENT)

_BOOTED = _step(Kind.STARTED, "booted", State.RUNNING)
_RESTORED = _step(Kind.STARTED, "restored", State.RUNNING)

ASKED: dict[str, dict[State, Step]] = {
    "start": {State.OFF: _BOOTED, State.SAVED: _RESTORED},
    "create": {State.ABSENT: _BOOTED, State.OFF: _BOOTED},
    "restore": {State.ABSENT: _RESTORED, State.OFF: _RESTORED},
    "suspend": {State.RUNNING: PAUSE},
    # also of one that was sent, where nobody confirms what became of it: libvirt and QEMU let it go on, too
    "resume": {State.PAUSED: _step(Kind.RESUMED, "unpaused", State.RUNNING), State.SENT: TAKEN_BACK},
    "shutdown": {State.RUNNING: _step(Kind.SHUTDOWN, "guest", State.SHUTTING_DOWN)},
    "reboot": {State.RUNNING: _step(Kind.REBOOTED, None, State.RUNNING)},
    "destroy": {state: _step(Kind.STOPPED, "destroyed", State.OFF) for state in RUNS},
    # of one that runs only the definition goes, and what runs is transient from then on: libvirt's
    # virDomainUndefine, which refuses one with a managed save image, too
    "define": {
        State.ABSENT: ADDED,
        **{state: _step(Kind.DEFINED, "updated", state) for state in (State.OFF, State.SAVED, *RUNS)},
    },
    "undefine": {State.OFF: REMOVED, **{state: _step(Kind.UNDEFINED, "removed", state) for state in RUNS}},
    "save": {state: _step(Kind.STOPPED, "saved", State.OFF) for state in (State.RUNNING, State.PAUSED)},
    "managed_save": {state: _step(Kind.STOPPED, "saved", State.SAVED) for state in (State.RUNNING, State.PAUSED)},
    "migrate": {state: _step(Kind.STOPPED, "migrated", State.OFF) for state in (State.RUNNING, State.PAUSED)},
    "migrate_confirm": {State.SENT: _step(Kind.STOPPED, "migrated", State.OFF)},
}

# Of a transient domain there is no definition that could stay, or go.
NEEDS_A_DEFINITION = frozenset({"managed_save", "undefine"})


def asked(source: str, operation: str, guest: Guest) -> Step:
    """The step that ``operation`` takes ``guest``; `HypervisorError` where it may not be asked now."""
    row = ASKED[operation]
    step = row.get(guest.state)
    if step is None:
        allowed = " or ".join(state.value for state in row)
        raise refused(source, operation, guest.name, f"it is {guest.state.value}, and must be {allowed}")
    if operation in NEEDS_A_DEFINITION and not guest.persistent:
        raise refused(source, operation, guest.name, f"it is {guest.state.value} and transient: define it first")
    return step


def refused(source: str, operation: str, domain: str | None, why: str) -> HypervisorError:
    """``source`` is the URI, ``why`` what the hypervisor answers."""
    whom = "" if domain is None else f" {domain}"
    return HypervisorError(f"{source}: cannot {operation}{whom}: {why}", operation=operation, domain=domain)
