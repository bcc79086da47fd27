"""What the threads do: small programs of the real code's six functions, and one execution of each.

A program is what the loop's thread does in the first callback that runs, and what each other thread does; an
operation is a verb and what it is on.  At the start handle ``one`` is on fd A and ``two`` on fd B, both ready; with a
timeout, ``timer`` is due.  With ``alone`` a pass was made before, and only A is ready: its event is a round of its own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from eventbridge.bridge import Bridge
from eventbridge.core.timers import Timer
from eventbridge.errors import EventBridgeError
from tests.model_checking.explore import Search
from tests.model_checking.invariants import LOOP, Item, Ledger
from tests.model_checking.poller import SLEEPS, A, B, C, File, Kernel, TurningHost
from tests.model_checking.scheduler import Pool, Run, Task
from tests.model_checking.watched import Now, digest, point, token

NUMBERS = {"A": A, "B": B, "C": C}
MILLISECOND = 1_000_000
START = 1000 * MILLISECOND

Operation = tuple[str, str]


class Program(NamedTuple):
    """``loop``: in a callback; ``others``: one thread each."""

    loop: tuple[Operation, ...]
    others: tuple[tuple[Operation, ...], ...]
    timer: bool = False
    alone: bool = False

    def __str__(self) -> str:
        threads = [self.loop, *self.others]
        text = " | ".join(", ".join(" ".join(op).strip() for op in ops) or "-" for ops in threads)
        return f"{text}; alone" if self.alone else text

    @property
    def size(self) -> int:
        return len(self.loop) + sum(map(len, self.others))


def program(text: str, timer: bool = False) -> Program:
    """As it is printed: the loop's operations, then each other thread's."""
    threads = []
    text, _, alone = text.partition(";")
    for part in text.split("|"):
        words = [operation.split() for operation in part.replace("-", "").split(",")]
        threads.append(tuple((it[0], " ".join(it[1:])) for it in words if it))
    return Program(threads[0], tuple(threads[1:]), timer, bool(alone))


class Planned(Exception):
    """Raised by a callback on purpose."""


_INTERVAL, _QUEUED = (Timer.__dict__[name].__get__ for name in ("interval", "queued"))


class World:
    """A program's bridge, host, kernel and ledger, for one execution."""

    def __init__(self, program: Program, run: Run) -> None:
        self.script = program.loop
        self.kernel = Kernel()
        self.kernel.numbers = {A: File("file a", 1), B: File("file b", int(not program.alone)), C: File("file c", 1)}
        self.ledger = Ledger(run, self.kernel)
        self.host = TurningHost(run, self.kernel, self.ledger)
        self.bridge = Bridge(self.host, poller=self.kernel)
        self.ledger.registry = self.bridge._registry
        if program.alone:
            self.bridge._registry.wake()
            self.host.turn()
        self.add("one", "A")
        self.add("two", "B")
        if program.timer:
            self.add("timer", "")
            Now.clock += MILLISECOND

    # -- what a state is made of

    def locked_state(self) -> Any:
        """What is touched under the locks only."""
        registry, timers = self.bridge._registry, [it for it in Now.made if isinstance(it, Timer)]
        parts = (registry, registry.table, registry.timers, self.bridge._berth)
        return hash((*map(digest, parts), *((_INTERVAL(it), _QUEUED(it)) for it in timers)))

    def own_state(self, task: int) -> Any:
        """What a task has beside its locals."""
        if task != LOOP:
            return None
        return digest(self.bridge._dispatcher), self.script, self.host.callback is not None

    # -- operations

    def perform(self, task: int, operation: Operation) -> None:
        verb, what = operation
        if verb in SCENERY:
            SCENERY[verb](self, what)
            return
        ledger = self.ledger
        on = [ledger.items[what]] if what in ledger.items else []
        at_start = ledger.begins(task, on, verb)
        result = "done"
        try:
            OPERATIONS[verb](self, f"{what} of {ledger.run.tasks[task].name}" if verb == "add" else what)
        except (EventBridgeError, OSError) as error:
            result = type(error).__name__
        ledger.ends(task, on, verb, at_start, result, what)

    def perform_all(self, task: int, operations: tuple[Operation, ...]) -> None:
        for operation in operations:
            self.perform(task, operation)
            self.ledger.run.done()

    def add(self, role: str, where: str) -> None:
        file = self.kernel.numbers[NUMBERS[where]] if where else None
        item = self.ledger.adds(role, NUMBERS[where] if where else None, file)
        if file is None:
            item.id = self.bridge.add_timeout(1, self.timeout_called, item, self.ledger.frees)
        else:
            item.id = self.bridge.add_handle(item.fd, 1, self.handle_called, item, self.ledger.frees)

    def update(self, role: str, events: int, milliseconds: int) -> None:
        item = self.ledger.items[role]
        if item.fd is None:
            self.bridge.update_timeout(item.id, milliseconds)
        else:
            self.bridge.update_handle(item.id, events)

    def remove(self, role: str) -> None:
        item = self.ledger.items[role]
        (self.bridge.remove_timeout if item.fd is None else self.bridge.remove_handle)(item.id)

    def reopen(self, where: str, dup: bool) -> None:
        """The owner closes the fd, and its number is another file's, which is not ready."""
        fd = NUMBERS[where]
        self.kernel.numbers[fd].dup = dup
        self.kernel.close_number(fd)
        self.kernel.open(fd, File(f"the new file of {self.ledger.run.running.name}", 0))

    def nest(self, _: str) -> None:
        """The callback runs the host loop again, for one turn."""
        point("turns the loop again", SLEEPS)
        self.host.turn()

    def fail(self, _: str) -> None:
        error = Planned()
        self.ledger.raised.append(error)
        raise error

    def tick(self, _: str) -> None:
        point("a millisecond passes", (), ("clock",))
        Now.clock += MILLISECOND
        Now.run.protected["kernel"] = self.kernel.state()

    # -- what the core calls

    def handle_called(self, id: int, fd: int, events: int, item: Item) -> None:
        self.ledger.calls(item, self.kernel.numbers.get(fd))
        self.kernel.drain(fd)
        self._in_callback(item)

    def timeout_called(self, id: int, item: Item) -> None:
        self.ledger.calls(item, None)
        self._in_callback(item)

    def _in_callback(self, item: Item) -> None:
        script, self.script = self.script, ()
        try:
            for operation in script:
                self.perform(LOOP, operation)
        finally:
            self.ledger.returns(item)

    # -- once the threads are done

    def conclude(self) -> None:
        """Nothing may be lost: neither what happened, nor what happens from here on."""
        ledger, kernel = self.ledger, self.kernel
        ledger.at_rest("")
        Now.clock += 5 * MILLISECOND
        for fd in kernel.numbers:
            kernel.write(fd)
        self._turn_until_idle()
        ledger.at_rest(" later on")
        ledger.begins(LOOP, [], "close")
        self.bridge.close()
        ledger.ends(LOOP, [], "close", 0, "done", "")
        self._turn_until_idle()
        ledger.at_rest(" once closed")

    def _turn_until_idle(self) -> None:
        if not any(not self.host.turn() for _ in range(50)):
            self.ledger.broken("H2", "the loop spins")


OPERATIONS: dict[str, Callable[[World, str], None]] = {
    "add": lambda world, role: world.add(role, role.split()[0].strip("T")),
    "on": lambda world, role: world.update(role, 1, 1),
    "off": lambda world, role: world.update(role, 0, -1),
    "later": lambda world, role: world.update(role, 1, 3),
    "remove": World.remove,
    "close": lambda world, _: world.bridge.close(),
}
SCENERY: dict[str, Callable[[World, str], None]] = {
    "reopen": lambda world, where: world.reopen(where, dup=False),
    "haunt": lambda world, where: world.reopen(where, dup=True),
    "write": lambda world, where: world.kernel.write(NUMBERS[where]),
    "tick": World.tick,
    "nest": World.nest,
    "raise": World.fail,
}
"""What happens around the operations: it is no call of the bridge's."""


def execute(program: Program, pick: Callable[[Run, int], int], pool: Pool) -> Run:
    """One execution.  Within `watched.instrumented` only."""
    run = Run(pick, pool)
    Now.run, Now.clock, Now.made = run, START, []
    Now.ticks = any(op == "tick" for ops in (program.loop, *program.others) for op, _ in ops)
    world = World(program, run)
    run.world, run.token = world, token
    run.protected["locked"] = world.locked_state()
    others: list[Task] = []
    run.add("loop", functools.partial(world.host.loop, others))
    for name, ops in zip(("other", "third"), program.others, strict=False):
        others.append(run.add(name, functools.partial(world.perform_all, len(run.tasks), ops)))
    run.go()
    run.seen = list(world.ledger.seen)
    run.rest = (world.ledger.state(), world.kernel.state())
    if not run.abandoned:
        world.conclude()
    return run


def explore(program: Program, search: Search, pool: Pool) -> Iterator[Run]:
    """Every execution of a program, but for what the search leaves out."""
    return search.executions(lambda pick: execute(program, pick, pool))


def told(run: Run) -> str:
    """The schedule, a line for each stretch of one task, and what it breaks."""
    lines = []
    for number, steps in itertools.groupby(run.steps, lambda step: step.task):
        lines.append(f"  {run.tasks[number].name:6}" + "; ".join(step.op.name for step in steps))
    return "\n".join([*lines, "  breaks " + "; ".join(run.violations)])
