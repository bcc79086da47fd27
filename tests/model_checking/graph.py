"""All states of the model of one program, visited breadth first, and what can be observed on the way.

What touches nothing of the other threads' is taken together with the step before it (`WITH_THE_LAST`): whatever came
between the two might as well have come after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter

from tests.model_checking.model import (
    LOCKING,
    LOOP,
    NOTHING,
    STEPS,
    THREADS,
    Broken,
    Draft,
    Observation,
    State,
    Step,
    number,
)
from tests.model_checking.model_pass import is_asleep
from tests.model_checking.programs import Program

_freeze = attrgetter(*(it.name for it in fields(Draft)))
WITH_THE_LAST = frozenset(("unlock", "ends", "returns", "_dispatch", "run_pass: ends"))


class Graph:
    """``Graph(program)`` visits every state; `broken` is then what breaks a guarantee, with the schedule to it."""

    def __init__(self, program: Program) -> None:
        self.start = _freeze(_first(program))
        self.before: dict[State, tuple[State, str] | None] = {self.start: None}
        self.after: dict[State, list[tuple[Observation, State]]] = {}
        self.broken = ""
        self._visit()

    def _visit(self) -> None:
        waiting = deque([self.start])
        while waiting:
            state = waiting.popleft()
            found = self.after[state] = []
            for t in range(len(state[0])):
                taken = self._take(state, t)
                if taken is None:
                    continue
                shown, after = taken
                found.append((shown, after))
                if after not in self.before:
                    self.before[after] = (state, f"{THREADS[t]}: {' '.join(map(str, state[0][t][0]))}")
                    waiting.append(after)
            if not found:
                self._check_rest(state)

    def _take(self, state: State, t: int) -> tuple[Observation, State] | None:
        """That thread's next step; None where it has none, or cannot take it."""
        rest = state[0][t]
        if not rest:
            return None
        draft = Draft(*state)
        if rest[0][0] == "loop" and is_asleep(draft):
            return None
        if rest[0][0] in LOCKING and draft.lock not in (-1, t):
            return None
        shown: Observation = ()
        try:
            while True:
                name, *about = rest[0]
                taken = STEPS[name](draft, t, *about) or NOTHING
                shown = taken.shown or shown
                rest = (*taken.then, *_after_raise(name, rest[1:]))
                if not rest or rest[0][0] not in WITH_THE_LAST:
                    break
        except Broken as error:
            if not self.broken:
                self._tell(state, f"{THREADS[t]}: {' '.join(map(str, rest[0]))}", str(error))
            return None
        draft.threads = (*draft.threads[:t], rest, *draft.threads[t + 1 :])
        return shown, _freeze(draft)

    def _check_rest(self, state: State) -> None:
        """Nobody can go on: is all done?"""
        d = Draft(*state)
        wrongs = {
            "deadlock": any(d.threads[1:]) or d.threads[LOOP] != (("loop",),),
            "D6: the loop sleeps with a handle's fd ready": any(
                it in d.masks and number(it) in d.unread for it in d.registered if it != "timer"
            ),
            "D6: the loop sleeps with a timeout due": d.due,
            "D6: the next wake will be swallowed": not d.refusal and (d.awake or d.dispatching),
            "H7: not all that were removed are freed": bool(d.frees) or d.freed != d.removing,
            "D4: an exception is not reported": d.errors != 0,
        }
        for wrong, is_so in wrongs.items():
            if is_so and not self.broken:
                self._tell(state, "", wrong)

    def _tell(self, state: State, step: str, wrong: str) -> None:
        schedule = [step] if step else []
        back = self.before[state]
        while back is not None:
            schedule.append(back[1])
            back = self.before[back[0]]
        self.broken = "\n  ".join([*reversed(schedule), f"breaks {wrong}"])

    # -- against the real code

    def can_show(self, seen: Iterable[Observation]) -> bool:
        """Is there an order of the model's steps that shows just this, and then rests?"""
        states = self._silently({self.start})
        for observation in seen:
            states = self._silently(
                {after for state in states for shown, after in self.after[state] if shown == observation}
            )
        return any(not self.after[state] for state in states)

    def _silently(self, states: set[State]) -> set[State]:
        reached, waiting = set(states), list(states)
        while waiting:
            for shown, after in self.after[waiting.pop()]:
                if not shown and after not in reached:
                    reached.add(after)
                    waiting.append(after)
        return reached


def _first(program: Program) -> Draft:
    threads = [(("loop",),), *(_steps(ops) for ops in program.others)]
    draft = Draft(tuple(threads), _steps(program.loop))
    if program.timer:
        draft.registered += ("timer",)
        draft.due = draft.look_at = draft.fired = True
    if program.alone:
        draft.careful = False
        draft.unread -= {"B"}
    return draft


def _steps(operations: Iterable[tuple[str, str]]) -> tuple[Step, ...]:
    return tuple((verb,) if verb in ("raise", "nest") else ("begins", verb, what) for verb, what in operations)


def _after_raise(name: str, rest: tuple[Step, ...]) -> tuple[Step, ...]:
    """What the callback would have done is not done; it returns, and then the exception is dealt with."""
    if name != "raise":
        return rest
    while rest[0][0] != "returns":
        rest = rest[1:]
    item = rest[0][1]
    # Whether a handle's file is still the same is asked under the lock.
    return (rest[0], ("_report" if item == "timer" else "_contain", item), *rest[1:])
