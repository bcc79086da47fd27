"""A model of registry and pass, small enough that every state of it is visited: H5, H6, H7, D1, D4, D6.

A state is a tuple; a thread is the tuple of the steps that it has yet to take, so that where it stands is part of the
state.  A step is one access to something shared, and bears the name of the function of the core that makes it; its
rule, in `STEPS`, changes a draft of the state and may put further steps before the rest.  `explore` goes breadth
first through all orders of steps, remembers every state, and checks the guarantees in each; what breaks one comes
with the shortest schedule that leads there.

What it leaves out: several handles on one number, files that are always ready, the budget, ghosts of a dup, moves.
Those, and whatever the model might have got wrong, are the real code's to show (programs.py): each observation of an
execution of the real code must be one that the model can make (`Graph.can_show`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Step: TypeAlias = tuple[Any, ...]  # the function's name, then what it is about
State: TypeAlias = tuple[Any, ...]
Observation: TypeAlias = tuple[str, ...]
LOOP = 0
THREADS = ("loop", "other", "third")


@dataclass(slots=True)
class Draft:
    """A state, to be changed.  Numbers are called A, B, C; handle `one` is on A, `two` on B, others on
    what their name begins with.
    """

    threads: tuple[tuple[Step, ...], ...]
    script: tuple[Step, ...]  # what the next callback does
    lock: int = -1  # whose it is
    # Registry
    registered: tuple[str, ...] = ("one", "two")
    masks: frozenset[str] = frozenset(("one", "two"))  # handles that are on
    awake: bool = False
    dispatching: bool = False
    refusal: bool = False
    frees: tuple[str, ...] = ()
    look_at: bool = False  # would the pass look at the timeouts?
    due: bool = False  # is the timeout's deadline past?
    # FdTable
    fds: tuple[str, ...] = ("one", "two")  # handles, by their numbers
    touched: frozenset[str] = frozenset()
    ghosts: bool = False
    # the poller, and the files
    known: tuple[str, ...] = ("A", "B")
    armed: frozenset[str] = frozenset("AB")  # known numbers with a mask that is not 0
    event: bool = False
    fired: bool = False
    unread: frozenset[str] = frozenset("ABC")
    # Dispatcher, and the host
    events: tuple[str, ...] = ()
    timeouts: tuple[str, ...] = ()
    left: bool = False
    chores: bool = False
    careful: bool = True  # is every callback timed by itself?  In the first pass they are
    muted: tuple[str, ...] = ()
    ending: bool = False  # is `finish` to be called after the pass?
    outer: int = 0  # passes under way
    running: tuple[str, ...] = ()  # whose callbacks are, the outermost first
    soon: int = 0
    watching: bool = True
    # what the guarantees are about
    passing: bool = False
    allowed: tuple[tuple[str, int], ...] = ()  # how many calls may still begin, where that is not any number
    turning: tuple[str, ...] = ()  # being turned on
    stirred: frozenset[tuple[int, str]] = frozenset()  # turned on while that thread turned it off
    freed: frozenset[str] = frozenset()
    removing: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    operating: bool = False  # is the loop's thread within add, update or remove?
    errors: int = 0  # raised, and not reported yet

    def allow(self, item: str, calls: int | None) -> None:
        allowed = dict(self.allowed)
        if calls is None:
            allowed.pop(item, None)
        else:
            allowed[item] = min(calls, allowed.get(item, calls))
        self.allowed = tuple(sorted(allowed.items()))


def number(item: str) -> str:
    """Where a handle is."""
    return {"one": "A", "two": "B"}.get(item, item[0])


def holder(d: Draft, fd: str) -> str:
    """Who is on that number; nobody: ''."""
    return next((item for item in d.fds if number(item) == fd), "")


class Broken(Exception):
    """A guarantee is."""


@dataclass
class Taken:
    """What became of a step."""

    then: tuple[Step, ...] = ()  # before the thread's other steps
    shown: Observation = ()


Rule: TypeAlias = Callable[..., Taken | None]
STEPS: dict[str, Rule] = {}
LOCKING: set[str] = set()  # the steps that begin by taking the lock
NOTHING = Taken()


def rule(name: str, locking: bool = False) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        STEPS[name] = function
        if locking:
            LOCKING.add(name)
        return function

    return add


# -- operations


@rule("begins", locking=True)
def begins(d: Draft, t: int, verb: str, what: str) -> Taken:
    d.operating |= t == LOOP and verb != "close"
    if verb in ("on", "later"):
        _stir(d, what, +1)
        if what not in d.gone:
            d.allow(what, None)
    elif verb == "off":
        d.stirred -= {(t, what)}
    elif verb == "remove":
        d.removing |= {what}
    name = f"{what} of {THREADS[t]}" if verb == "add" else what
    return STEPS[OPERATIONS[verb, what == "timer"]](d, t, verb, what, name) or NOTHING


def _stir(d: Draft, what: str, turning: int) -> None:
    d.stirred |= {(t, what) for t in range(3)}
    turned = list(d.turning)
    turned.append(what) if turning > 0 else turned.remove(what)
    d.turning = tuple(sorted(turned))


@rule("ends")
def ends(d: Draft, t: int, verb: str, what: str, result: str) -> Taken:
    d.operating &= t != LOOP
    on = [*d.masks, *d.removing] if verb == "close" else [what]
    if verb in ("on", "later"):
        _stir(d, what, -1)
    overtaken = (t, what) in d.stirred or what in d.turning
    if verb == "remove":
        d.gone |= {what}
    if verb == "close":
        on = ["one", "two", "timer", *(f"{it} of {by}" for it in "AC" for by in THREADS)]
        d.gone |= set(on)
    if verb in ("remove", "close") or (verb == "off" and result == "done" and not overtaken):
        for item in on:
            d.allow(item, 1 if t != LOOP and d.passing else 0)
    return Taken((), (THREADS[t], verb, what, result))


def _end(t: int, verb: str, what: str, result: str) -> Taken:
    return Taken((("ends", verb, what, result),))


def _unknown(d: Draft, t: int, verb: str, what: str) -> Taken:
    return _end(t, verb, what, "BridgeClosed" if d.refusal else "UnknownHandle")


@rule("Registry.remove_handle", locking=True)
def remove_handle(d: Draft, t: int, verb: str, what: str, item: str) -> Taken:
    if item not in d.registered:
        return _unknown(d, t, verb, what)
    d.lock = t
    d.registered = tuple(it for it in d.registered if it != item)
    leave = tuple((name, item) for name in ("leave: mask", "leave: touched", "leave: fds", "_disarm", "_removed"))
    return Taken((*leave, ("_removed: frees?",), ("unlock",), ("ends", verb, what, "done")))


@rule("leave: mask")
def leave_mask(d: Draft, t: int, item: str) -> None:
    d.masks -= {item}


@rule("leave: touched")
def leave_touched(d: Draft, t: int, item: str) -> None:
    d.touched |= {number(item)}


@rule("leave: fds")
def leave_fds(d: Draft, t: int, item: str) -> None:
    d.fds = tuple(it for it in d.fds if it != item)


@rule("_disarm")
def disarm(d: Draft, t: int, item: str) -> None:
    fd = number(item)
    d.known = tuple(it for it in d.known if it != fd)
    d.armed -= {fd}


@rule("_removed")
def removed(d: Draft, t: int, item: str) -> None:
    d.frees += (item,)


@rule("_removed: frees?")
def removed_frees(d: Draft, t: int) -> Taken | None:
    return Taken((("Registry.wake",),)) if d.frees else None


@rule("Registry.wake")
def wake(d: Draft, t: int) -> Taken | None:
    return None if d.awake else Taken((("wake: awake",), ("wake: dispatching?",)))


@rule("wake: awake")
def wake_awake(d: Draft, t: int) -> None:
    d.awake = True


@rule("wake: dispatching?")
def wake_dispatching(d: Draft, t: int) -> Taken | None:
    return None if d.dispatching else Taken((("Poller.wake",),))


@rule("Poller.wake")
def poller_wake(d: Draft, t: int) -> None:
    d.event = True


@rule("Registry.remove_timeout", locking=True)
def remove_timeout(d: Draft, t: int, verb: str, what: str, item: str) -> Taken:
    if item not in d.registered:
        return _unknown(d, t, verb, what)
    d.lock = t
    d.registered = tuple(it for it in d.registered if it != item)
    return Taken(
        (("set: deadline",), ("_removed", item), ("_removed: frees?",), ("unlock",), ("ends", verb, what, "done"))
    )


@rule("Registry.update_timeout", locking=True)
def update_timeout(d: Draft, t: int, verb: str, what: str, item: str) -> Taken:
    if item not in d.registered:
        return _unknown(d, t, verb, what)
    d.lock = t
    return Taken((("set: deadline",), ("arm_for",), ("unlock",), ("ends", verb, what, "done")))


@rule("arm_for")
def arm_for(d: Draft, t: int) -> None:
    """For a time that does not come while the clock stands still; but it takes its time."""


@rule("set: deadline")
def set_deadline(d: Draft, t: int) -> None:
    d.due = False  # none, or one to come


@rule("Registry.update_handle", locking=True)
def update_handle(d: Draft, t: int, verb: str, what: str, item: str) -> Taken:
    if item not in d.registered:
        return _unknown(d, t, verb, what)
    end = ("ends", verb, what, "done")
    if (item in d.masks) == (verb == "on"):
        return Taken((end,))
    d.lock = t
    turn = (("turn: poller", item, verb), ("turn: mask", item, verb))
    if number(item) not in d.known:  # taken out: it is armed anew
        turn = turn[::-1]
    return Taken((*turn, ("turn: armed",), ("unlock",), end))


@rule("turn: armed")
def turn_armed(d: Draft, t: int) -> None:
    """What the poller was told is noted; nobody without the lock can tell, but it takes its time."""


@rule("turn: poller")
def turn_poller(d: Draft, t: int, item: str, verb: str) -> None:
    fd = number(item)
    if verb == "off":
        d.armed -= {fd}
    else:
        d.armed |= {fd}
        d.known += () if fd in d.known else (fd,)


@rule("turn: mask")
def turn_mask(d: Draft, t: int, item: str, verb: str) -> None:
    d.masks = d.masks | {item} if verb == "on" else d.masks - {item}


@rule("Registry.add_handle", locking=True)
def add_handle(d: Draft, t: int, verb: str, what: str, item: str) -> Taken:
    if d.refusal:
        return _end(t, verb, what, "BridgeClosed")
    assert not holder(d, what), "the model has no number with several handles"
    d.lock = t
    join = (("turn: poller", item, "on"), ("leave: touched", item), ("join: fds", item))
    return Taken((*join, ("unlock",), ("ends", verb, what, "done")))


@rule("join: fds")
def join_fds(d: Draft, t: int, item: str) -> None:
    d.fds += (item,)
    d.masks |= {item}
    d.registered += (item,)


@rule("Registry.close", locking=True)
def close(d: Draft, t: int, verb: str, what: str, item: str) -> Taken:
    end = ("ends", verb, what, "done")
    if d.refusal:
        return Taken((end,))
    d.lock = t
    d.refusal = True
    d.removing |= set(d.registered)
    handles = [it for it in d.registered if it != "timer"]
    owed = tuple(("_removed", it) for it in [*handles, *(it for it in d.registered if it == "timer")])
    d.registered = ()
    clear = (("set: deadline",), ("clear: touched",), ("clear: masks",), ("clear: fds",), ("unlock",))
    return Taken((*owed, *clear, ("Berth.close",), end))


@rule("clear: touched")
def clear_touched(d: Draft, t: int) -> None:
    d.touched |= {number(it) for it in d.fds}


@rule("clear: masks")
def clear_masks(d: Draft, t: int) -> None:
    d.masks = frozenset()


@rule("clear: fds")
def clear_fds(d: Draft, t: int) -> None:
    d.fds = ()


@rule("Berth.close")
def berth_close(d: Draft, t: int) -> None:
    if t == LOOP:
        d.ending = d.chores = True
    else:
        d.soon += 1


@rule("unlock")
def unlock(d: Draft, t: int) -> None:
    d.lock = -1


OPERATIONS = {
    ("add", False): "Registry.add_handle",
    ("on", False): "Registry.update_handle",
    ("off", False): "Registry.update_handle",
    ("remove", False): "Registry.remove_handle",
    ("close", False): "Registry.close",
    ("off", True): "Registry.update_timeout",
    ("later", True): "Registry.update_timeout",
    ("remove", True): "Registry.remove_timeout",
}
