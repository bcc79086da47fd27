"""Which programs there are: two threads, so many operations in all, without those that another one covers.

The two threads are the loop's own, in a callback, and another; or two others beside a pass that does nothing of its
own.  Left out are operations that find nothing to do whatever the order: on what the same thread has removed, after
its own `close`, an `on` where nobody says `off`; and of two programs that differ in names only one is kept.  A
number is given another handle (`add A`) by the thread that removed the first, since no other can know that it is free.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.model_checking.programs import Operation, Program

HANDLES = ("one", "two")
VERBS: tuple[Operation, ...] = (
    *((verb, handle) for handle in HANDLES for verb in ("off", "on", "remove")),
    ("add", "A"),
    ("add", "C"),
    ("close", ""),
)
OF_ONE = tuple(it for it in VERBS if it[1] != "two")
TIMEOUT: tuple[Operation, ...] = (("later", "timer"), ("off", "timer"), ("remove", "timer"))
IN_A_CALLBACK: tuple[Operation, ...] = (("nest", ""), ("raise", ""))


def programs(size: int) -> Iterator[Program]:
    """All of that many operations."""
    for one, other in _split(size, (*VERBS, *IN_A_CALLBACK), VERBS):
        if other:
            yield from _sensible(Program(one, (other,)))
    for one, other in _split(size, VERBS, VERBS):
        if one and other and one <= other:
            yield from _sensible(Program((), (one, other)))


def alone(size: int) -> Iterator[Program]:
    """All of that many operations, but those on ``two``, around a round of one event."""
    for one, other in _split(size, (*OF_ONE, *IN_A_CALLBACK), OF_ONE):
        if other:
            yield from _sensible(Program(one, (other,), alone=True))
    for one, other in _split(size, OF_ONE, OF_ONE):
        if one and other and one <= other:
            yield from _sensible(Program((), (one, other), alone=True))


def with_timeout(size: int) -> Iterator[Program]:
    """All of that many operations of which one, at least, is on a timeout that is due."""
    verbs = (*TIMEOUT, ("off", "one"), ("on", "one"), ("remove", "one"), ("close", ""))
    for one, other in _split(size, (*verbs, *IN_A_CALLBACK), verbs):
        if other and any(what == "timer" for _, what in (*one, *other)):
            yield from _sensible(Program(one, (other,), timer=True))


def _split(
    size: int, verbs: tuple[Operation, ...], others: tuple[Operation, ...]
) -> Iterator[tuple[tuple[Operation, ...], tuple[Operation, ...]]]:
    for first in range(size + 1):
        for one in itertools.product(verbs, repeat=first):
            if _can_be(one):
                yield from ((one, two) for two in itertools.product(others, repeat=size - first) if _can_be(two))


def _can_be(operations: tuple[Operation, ...]) -> bool:
    """One thread's: does each have something to do?"""
    removed: set[str] = set()
    last: dict[str, str] = {}
    for at, (verb, what) in enumerate(operations):
        if what in removed or last.get(what) == verb or (verb in ("close", "raise") and at + 1 < len(operations)):
            return False
        if (verb, what) == ("add", "A") and ("one" not in removed or "add" in last.values()):
            return False
        last[what if verb != "nest" else verb] = verb
        if verb == "remove":
            removed.add(what)
    return operations.count(("nest", "")) < 2


def _sensible(program: Program) -> Iterator[Program]:
    everything = [*program.loop, *(op for ops in program.others for op in ops)]
    handles = [what for _, what in everything if what in HANDLES]
    if any(verb == "on" and ("off", what) not in everything for verb, what in everything):
        return
    if everything.count(("add", "A")) > 1 or everything.count(("add", "C")) > 1:
        return
    if not program.loop and not program.timer and handles and handles[0] != "one" and ("add", "A") not in everything:
        return  # as the one with the names exchanged
    yield program
