"""The model's other half: the host loop, and the pass (model.py says what a step is).

As in `Dispatcher.run_pass`: a round is begun unless one is left; if it is one event, that is called and it is over;
else its timeouts and its events are called; and what is owed is settled.  Where a rule of the contract is about a
call, it is held to here.
"""

from __future__ import annotations

from tests.model_checking.model import (
    LOOP,
    NOTHING,
    Broken,
    Draft,
    Step,
    Taken,
    disarm,
    holder,
    number,
    rule,
    turn_poller,
)

# -- the host


def is_readable(d: Draft) -> bool:
    return d.event or d.fired or any(fd in d.armed and fd in d.unread for fd in d.known)


def is_asleep(d: Draft) -> bool:
    """Nothing wakes the loop."""
    return not d.soon and not (d.watching and not d.refusal and is_readable(d))


@rule("loop")
def loop(d: Draft, t: int) -> Taken | None:
    """It wakes up; asleep for good when all the others are done."""
    if is_asleep(d):
        return None
    if d.soon:
        d.soon -= 1
        return Taken((("finish",), ("loop",)))
    d.passing = True
    return Taken((("run_pass",), ("passed",), ("loop",)))


@rule("passed")
def passed(d: Draft, t: int) -> None:
    d.passing = False
    d.allowed = tuple((item, 0) for item, _ in d.allowed)


@rule("finish")
def finish(d: Draft, t: int) -> Taken:
    d.watching = False
    return Taken((("run_frees", ()),))


# -- the pass

_BEGIN_ROUND: tuple[Step, ...] = tuple((f"_begin_round: {it}",) for it in ("awake", "touched", "ghosts?", "poll"))
_GO_ON: tuple[Step, ...] = (("_fire",), ("_dispatch",))
_ROUND: tuple[Step, ...] = (("_begin_round: look_at",), *_GO_ON)


@rule("run_pass")
def run_pass(d: Draft, t: int) -> Taken | None:
    if d.refusal:
        return None
    d.outer += 1
    return Taken((("run_pass: dispatching",), *(_GO_ON if d.left else _BEGIN_ROUND), ("run_pass: ends",)))


@rule("run_pass: dispatching")
def pass_dispatching(d: Draft, t: int) -> None:
    d.dispatching = True


@rule("_begin_round: awake")
def round_awake(d: Draft, t: int) -> None:
    d.chores |= d.awake
    d.awake = False


@rule("_begin_round: touched")
def round_touched(d: Draft, t: int) -> None:
    d.touched = frozenset()


@rule("_begin_round: ghosts?")
def round_ghosts(d: Draft, t: int) -> Taken | None:
    return Taken((("FdTable.rebuild",),)) if d.ghosts else None


@rule("FdTable.rebuild", locking=True)
def rebuild(d: Draft, t: int) -> None:
    d.known = tuple(number(it) for it in d.fds if number(it) in d.known)
    d.armed &= set(d.known)
    d.ghosts = False


@rule("_begin_round: poll")
def round_poll(d: Draft, t: int) -> Taken:
    d.events = tuple(fd for fd in d.known if fd in d.armed and fd in d.unread)
    is_lone = len(d.events) == 1 and not (d.event or d.fired)
    d.event = d.fired = False
    return Taken((("_begin_round: ghosts", is_lone),))


@rule("_begin_round: ghosts")
def round_ghosts_met(d: Draft, t: int, is_lone: bool) -> Taken:
    if d.ghosts:
        d.events = ()
    elif is_lone and not d.careful and d.outer == 1:
        return Taken((("_call_lone: fds",),))
    return Taken(_ROUND)


@rule("_call_lone: fds")
def lone_fds(d: Draft, t: int) -> Taken:
    handle = holder(d, d.events[0])
    return Taken((("_call_lone: mask", handle),) if handle else _ROUND)


@rule("_call_lone: mask")
def lone_mask(d: Draft, t: int, handle: str) -> Taken:
    return Taken((("_call_lone: touched?", handle),) if handle in d.masks else _ROUND)


@rule("_call_lone: touched?")
def lone_touched(d: Draft, t: int, handle: str) -> Taken:
    """Here it is decided."""
    if d.touched:
        return Taken(_ROUND)
    d.events = ()
    return Taken((("call", handle),))


@rule("_begin_round: look_at")
def round_look_at(d: Draft, t: int) -> Taken | None:
    d.left = True
    return Taken((("take_due",),)) if d.look_at else None


@rule("take_due", locking=True)
def take_due(d: Draft, t: int) -> None:
    d.timeouts = ("timer",) if d.due else ()
    d.look_at = False


@rule("_fire")
def fire(d: Draft, t: int) -> Taken | None:
    if not d.timeouts:
        return None
    d.timeouts = ()
    return Taken((("next_period",), ("call", "timer"))) if d.due and "timer" not in d.running else None


@rule("next_period", locking=True)
def next_period(d: Draft, t: int) -> None:
    d.due = False


@rule("_dispatch")
def dispatch(d: Draft, t: int) -> Taken | None:
    d.careful = False
    if not d.events:
        d.left = False
        return None
    fd, d.events = d.events[0], d.events[1:]
    return Taken((("_dispatch: fds", fd), ("_dispatch",)))


@rule("_dispatch: fds")
def dispatch_fds(d: Draft, t: int, fd: str) -> Taken:
    handle = holder(d, fd)
    return Taken((("_dispatch: mask", handle) if handle else ("_dispatch: left?", fd),))


@rule("_dispatch: left?")
def dispatch_left(d: Draft, t: int, fd: str) -> Taken | None:
    return None if fd in d.touched else Taken((("_nobody", fd),))


@rule("_nobody")
def nobody(d: Draft, t: int, fd: str) -> Taken | None:
    return None if d.refusal else Taken((("haunt", fd),))


@rule("haunt", locking=True)
def haunt(d: Draft, t: int, fd: str) -> Taken:
    d.lock = t
    return Taken((("leave: touched", fd), ("haunt: ghosts",), ("Registry.wake",), ("unlock",)))


@rule("haunt: ghosts")
def haunt_ghosts(d: Draft, t: int) -> None:
    d.ghosts = True


@rule("_dispatch: mask")
def dispatch_mask(d: Draft, t: int, handle: str) -> Taken:
    if handle not in d.masks:
        return Taken((("take_out_deaf", number(handle)),))
    return Taken((("_dispatch: touched?", handle),))


@rule("_dispatch: touched?")
def dispatch_touched(d: Draft, t: int, handle: str) -> Taken | None:
    """Here it is decided."""
    if number(handle) in d.touched:
        return None
    return Taken((("mute" if handle in d.running else "call", handle),))


@rule("take_out_deaf", locking=True)
def take_out_deaf(d: Draft, t: int, fd: str) -> None:
    handle = holder(d, fd)
    if handle and handle not in d.masks:
        disarm(d, t, handle)


@rule("mute", locking=True)
def mute(d: Draft, t: int, handle: str) -> None:
    if handle in d.fds and number(handle) in d.armed:
        disarm(d, t, handle)
        d.muted += (handle,)
        d.chores = True


@rule("call")
def call(d: Draft, t: int, item: str) -> Taken:
    allowed = dict(d.allowed).get(item)
    if t != LOOP:
        raise Broken(f"D1: {item} is called on another thread")
    if d.lock == t:
        raise Broken(f"D6: {item} is called with the lock held")
    if allowed == 0:
        raise Broken(f"H5/H6: {item} is called after it was turned off or removed")
    if item in d.freed:
        raise Broken(f"H7: {item} is called after its free")
    if item in d.running:
        raise Broken(f"D5: {item} is called within its own callback")
    if item != "timer" and number(item) not in d.unread:
        raise Broken(f"twice: {item} is called for an event that it has had")
    if allowed is not None:
        d.allow(item, allowed - 1)
    d.unread -= {number(item)} if item != "timer" else set()
    d.running += (item,)
    script, d.script = d.script, ()
    return Taken((*script, ("returns", item)), ("calls", item))


@rule("returns")
def returns(d: Draft, t: int, item: str) -> None:
    d.running = d.running[:-1]


@rule("raise")
def fail(d: Draft, t: int) -> Taken:
    d.errors += 1
    return NOTHING


@rule("_contain", locking=True)
def contain(d: Draft, t: int, item: str) -> Taken:
    return Taken((("_report", item),))


@rule("_report")
def report(d: Draft, t: int, item: str) -> Taken:
    d.errors -= 1
    if d.errors < 0:
        raise Broken("D4: an exception is reported twice")
    return Taken((), ("reports",))


@rule("nest")
def nest(d: Draft, t: int) -> Taken | None:
    """The callback turns the host loop once."""
    if is_asleep(d):
        return None
    if d.soon:
        d.soon -= 1
        return Taken((("finish in a pass",),))
    return Taken((("run_pass",),))


@rule("finish in a pass")
def finish_in_a_pass(d: Draft, t: int) -> None:
    d.ending = d.chores = True


# -- after a pass


@rule("run_pass: ends")
def pass_ends(d: Draft, t: int) -> Taken:
    d.outer -= 1
    if d.outer:
        return Taken(_SETTLE)
    d.dispatching = False
    return Taken((("run_pass: looks",),))


_SETTLE: tuple[Step, ...] = (("_settle: awake",), ("_settle: frees",), ("_settle: more?",), ("_do_chores",))


@rule("run_pass: looks")
def pass_looks(d: Draft, t: int) -> Taken | None:
    return Taken(_SETTLE) if d.awake or d.left or d.chores else None


@rule("_settle: awake")
def settle_awake(d: Draft, t: int) -> None:
    d.chores |= d.outer > 0
    d.awake = False


@rule("_settle: frees")
def settle_frees(d: Draft, t: int) -> Taken | None:
    return Taken((("run_frees", ()),)) if d.frees else None


@rule("run_frees")
def run_frees(d: Draft, t: int, kept: tuple[str, ...]) -> Taken | None:
    if not d.frees:
        return Taken((("run_frees: kept", kept),)) if kept else None
    item, d.frees = d.frees[0], d.frees[1:]
    if item in d.running:
        return Taken((("run_frees", (*kept, item)),))
    return Taken((("free", item), ("run_frees", kept)))


@rule("run_frees: kept")
def keep_frees(d: Draft, t: int, kept: tuple[str, ...]) -> None:
    d.frees += kept


@rule("free")
def free(d: Draft, t: int, item: str) -> Taken:
    if t != LOOP:
        raise Broken(f"H7: {item} is freed on another thread")
    if d.lock == t:
        raise Broken(f"D6: {item} is freed with the lock held")
    if item in d.freed:
        raise Broken(f"H7: {item} is freed twice")
    if item not in d.removing:
        raise Broken(f"H7: {item} is freed, and nobody removed it")
    if item in d.running:
        raise Broken(f"H7: {item} is freed within its own callback")
    if d.operating:
        raise Broken(f"H7: {item} is freed within an operation")
    d.freed |= {item}
    return Taken((), ("frees", item))


@rule("_settle: more?")
def settle_more(d: Draft, t: int) -> Taken | None:
    return None if d.refusal else Taken((("_more_to_do: at once?",),))


_WAKE = (("wake: awake",), ("Poller.wake",))


@rule("_more_to_do: at once?")
def more_at_once(d: Draft, t: int) -> Taken:
    return Taken(_WAKE if d.left or d.ghosts or d.awake else (("_more_to_do: frees?",),))


@rule("_more_to_do: frees?")
def more_frees(d: Draft, t: int) -> Taken | None:
    return Taken((("_more_to_do: whose",),)) if d.frees else None


@rule("_more_to_do: whose", locking=True)
def more_whose(d: Draft, t: int) -> Taken | None:
    return Taken(_WAKE) if any(it not in d.running for it in d.frees) else None


@rule("_do_chores")
def do_chores(d: Draft, t: int) -> Taken | None:
    if d.outer or not d.chores:
        return None
    d.chores = False
    muted, d.muted = d.muted, ()
    ending, d.ending = d.ending, False
    return Taken((*(("unmute", it) for it in muted), *([("finish",)] if ending else [])))


@rule("unmute", locking=True)
def unmute(d: Draft, t: int, handle: str) -> None:
    if handle in d.fds and handle in d.masks and number(handle) not in d.known:
        turn_poller(d, t, handle, "on")
