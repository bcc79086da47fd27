"""Threads of which one runs at a time, and who is next is somebody else's to say (explore.py).

What a task does is cut at *points*: right before each access to something that another task may touch without the
registry's lock, before taking the lock, and where the loop falls asleep.  Between two points a task touches nothing
of the others', so wherever a real switch of threads falls between them (at any line, any bytecode), the outcome is
that of a switch at the point before: points are at least as fine as lines.  A locked operation is not one point: the
pass looks without the lock into the middle of it.

Tasks run on threads of a pool, each waiting for its baton; whoever is at a point passes it on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.model_checking.statements import Local

MOST_STEPS = 3000  # beyond it an execution does not come to rest

Resource = Any


class Op(NamedTuple):
    """What a task is about to do.  ``name`` is for reading."""

    name: str
    reads: tuple[Resource, ...] = ()
    writes: tuple[Resource, ...] = ()
    possible: Callable[[], bool] | None = None
    lock: ControlledLock | None = None


def dependent(one: Op, other: Op) -> bool:
    """Does it matter which of the two comes first?"""
    return any(it in other.writes or it in other.reads for it in one.writes) or any(
        it in other.writes for it in one.reads
    )


class Abandoned(KeyboardInterrupt):
    """Ends the tasks of an execution that will not end by itself; the dispatcher lets a KeyboardInterrupt through."""


class Task:
    """One thread of an execution."""

    def __init__(self, number: int, name: str, body: Callable[[], None]) -> None:
        self.number = number
        self.name = name
        self.body = body
        self.pending = Op("starts")
        self.finished = False
        self.local = Local()
        self.doing = 0  # a digest of its local state where it last stood before a step that matters
        self.made = 0  # objects
        self.baton = threading.Lock()
        self.baton.acquire()


class Step(NamedTuple):
    task: int
    op: Op


@dataclass
class Node:
    """A choice that was made.  All but ``chosen`` are sets of tasks, as bits."""

    enabled: int
    chosen: int
    sleep: int  # who need not be tried: what comes of it is covered by others
    backtrack: int  # who was or will be tried


class ControlledLock:
    """In the place of the registry's RLock: a task that wants it while another has it is not runnable."""

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.owner: Task | None = None
        self.depth = 0
        run.locks.append(self)
        self.taken = 0  # the step that took it
        self.op = Op(f"takes {name}", (), (name,), lambda: self.owner is None, self)

    def __enter__(self) -> ControlledLock:
        run = self.run
        if run.running is not None:
            if self.owner is not run.running:
                run.point(self.op)
                self.owner = run.running
                self.taken = run.last_of[run.running.number]
                run.saw(run.protected.get("locked"))
            self.depth += 1
        return self

    def __exit__(self, *exc: object) -> None:
        if self.run.running is not None:
            self.depth -= 1
            if not self.depth:
                self.owner = None
                if self.run.world is not None:
                    self.run.protected["locked"] = self.run.world.locked_state()
                self.run.let_go[self.taken] = self.run.last_of[self.run.running.number]


class Pool:
    """Threads to run tasks on, kept from one execution to the next."""

    def __init__(self) -> None:
        self.threads: list[_Worker] = []

    def worker(self, number: int) -> _Worker:
        while len(self.threads) <= number:
            self.threads.append(_Worker())
        return self.threads[number]

    def close(self) -> None:
        for worker in self.threads:
            worker.give(None)
            worker.thread.join()


class _Worker:
    def __init__(self) -> None:
        self.work = threading.Lock()
        self.work.acquire()
        self.task: tuple[Run, Task] | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True, name="interleaved")
        self.thread.start()

    def give(self, task: tuple[Run, Task] | None) -> None:
        self.task = task
        self.work.release()

    def _serve(self) -> None:
        while True:
            self.work.acquire()
            if self.task is None:
                return
            run, task = self.task
            run.perform(task)


class Run:
    """One execution.  ``pick(run, enabled)`` chooses who goes on, out of that set of tasks."""

    def __init__(self, pick: Callable[[Run, int], int], pool: Pool) -> None:
        self.pick = pick
        self.pool = pool
        self.tasks: list[Task] = []
        self.steps: list[Step] = []
        self.running: Task | None = None
        self.sleep = 0  # tasks that need not be tried next: what comes of it is covered
        self.choices = 0  # how many of the search's nodes are used
        self.preemptions = 0
        self.redundant = False  # all that comes from here on is covered by another execution
        self.violations: list[str] = []
        self.abandoned = False
        self.locks: list[ControlledLock] = []
        self.let_go: dict[int, int] = {}  # by the step that took a lock: the last step before it was let go
        self.last_of: list[int] = []
        self.values: dict[Resource, Any] = {}  # what is shared, as watched.py tells
        self.shared = 0  # a digest of it
        self.protected: dict[str, Any] = {}  # digests of what changes at certain moments only
        self.world: Any = None
        self.seen: list[Any] = []  # what could be observed, in order
        self.rest: Any = None  # the state in which it ended
        self.token: Callable[[Any], Any] = id  # a value, as it is remembered
        self._over = threading.Lock()
        self._over.acquire()

    def add(self, name: str, body: Callable[[], None]) -> Task:
        task = Task(len(self.tasks), name, body)
        self.tasks.append(task)
        self.last_of.append(-1)
        return task

    def go(self) -> None:
        """Run all tasks to their end."""
        for task in self.tasks:
            self.pool.worker(task.number).give((self, task))
        self._pass_on(self._choose())
        self._over.acquire()
        self.running = None

    # -- on the tasks' threads

    def perform(self, task: Task) -> None:
        task.baton.acquire()
        try:
            if not self.abandoned:
                task.body()
        except Abandoned:
            pass
        except BaseException as error:
            self.violate(f"{task.name} ended with {error!r}")
        task.finished = True
        task.local.stack.clear()
        self._pass_on(self._choose())

    def point(self, op: Op) -> None:
        """The running task is about to do this; returns when it may."""
        task = self.running
        if task is None:
            return
        if self.abandoned:
            raise Abandoned
        task.pending = op
        chosen = self._choose()
        if chosen is not task:
            self._pass_on(chosen)
            task.baton.acquire()
        if self.abandoned:
            raise Abandoned

    def _pass_on(self, chosen: Task | None) -> None:
        self.running = chosen
        if chosen is None:
            self._over.release()
        else:
            chosen.baton.release()

    def violate(self, what: str) -> None:
        """The execution breaks a rule."""
        self.violations.append(what)

    # -- choosing

    def _choose(self) -> Task | None:
        """Who takes the next step; None when all are at their end."""
        left = [task for task in self.tasks if not task.finished]
        if self.abandoned or not left:
            return left[0] if left else None
        enabled = 0
        for task in left:
            possible = task.pending.possible
            if possible is None or possible():
                enabled |= 1 << task.number
        if not enabled:
            return self._abandon(left, "deadlock: " + "; ".join(f"{t.name} {t.pending.name}" for t in left))
        if len(self.steps) >= MOST_STEPS:
            return self._abandon(left, "it does not come to rest")
        number = self.pick(self, enabled)
        task = self.tasks[number]
        self.last_of[number] = len(self.steps)
        self.steps.append(Step(number, task.pending))
        return task

    def _abandon(self, left: list[Task], why: str) -> Task:
        self.violations.append(why)
        self.abandoned = True
        return left[0]

    def goes_on(self, among: int) -> int:
        """Whoever ran before, if it is among these; else the first of them."""
        number = self.running.number if self.running is not None else 0
        return number if among >> number & 1 else lowest(among)

    def still_asleep(self, sleep: int, chosen: int) -> int:
        """Which of the sleeping go on to sleep after that step: those whose next does not depend on it."""
        op = self.tasks[chosen].pending
        asleep = 0
        for task in self.tasks if sleep else ():
            bit = 1 << task.number
            if sleep & bit and task.number != chosen and not dependent(task.pending, op):
                asleep |= bit
        return asleep

    # -- what a state is made of

    def saw(self, value: Any) -> None:
        """The running task has read this."""
        if self.running is not None:
            self.running.local.saw(value)

    def done(self) -> None:
        """What the running task has read until now has no bearing on what it does next."""
        if self.running is not None:
            self.running.local.stack.clear()

    def stands(self) -> None:
        """The running task is at a point that matters: note its local state.  On its thread, within `point`."""
        task = self.running
        if task is None or task.finished:
            return
        frames = []
        frame = sys._getframe(1)
        while frame.f_code is not _PERFORM:
            if frame.f_code.co_filename not in UNSEEN:
                frames.append(frame)
            frame = frame.f_back
        frames.reverse()
        task.doing = hash((task.local.at(frames, self.token), self.world.own_state(task.number), task.pending.name))

    def became(self, resource: Resource, value: Any) -> None:
        """Something shared has changed."""
        before = self.values.get(resource)
        self.values[resource] = value
        self.shared ^= hash((resource, before)) ^ hash((resource, value))

    def state(self) -> tuple[Any, ...]:
        """All that what follows depends on."""
        return (*(-1 if task.finished else task.doing for task in self.tasks), self.shared, *self.protected.values())


_PERFORM = Run.perform.__code__
UNSEEN = {__file__}  # whose frames decide nothing


def lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
