"""Two searches through all orders of steps: by traces, and by states.  What each reduces, and why that is sound.

Two steps are *independent* if they have no resource in common, or both only read it; then their order does not matter
to either task.  That everything shared is a resource is held by unlisted.py.

`Traces`: of the executions that differ only in the order of independent steps at least one is run.  It is the
source-set DPOR of Abdulla, Aronis, Jonsson and Sagonas (POPL 2014, algorithm 1) with sleep sets, and so every thread's
view of every execution is seen.  Two things of ours: letting go of a lock is no step (it is never refused, and nobody
can come between it and the step before), so the race of two critical sections is that of their two acquisitions; and
where a later step was not possible before an earlier one, all that is possible there is tried.

`States`: what was reached before is not gone on from again.  A state is what is shared, what the invariants remember,
and each task's local state (statements.py).  There are choices only before steps on resources over which tasks *race*
(touched by two, written by one); a step on another is independent of whatever the others ever do, so to take it first
loses nothing.  Which resources those are is learnt on the way: a new one begins the search anew, so that at its end
none is missing.  Sleep sets beside it, remembered with each state (Godefroid, LNCS 1032, 5.3).  Nothing ever runs in
circles here, which both reductions need.  Every state is reached, so whatever any execution breaks is seen; but not
every history of how it came to be.

`Bounded` is not exhaustive: states, with so many preemptions at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.model_checking.scheduler import UNSEEN, Node, Op, Resource, Run, lowest

Clock = list[int]  # by task: the last of its steps that precedes
Start = Callable[[Callable[[Run, int], int]], Run]
"""``start(pick)`` runs the program once."""


UNSEEN.add(__file__)


class Search:
    """Depth first, by running from the start again with other choices."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def executions(self, start: Start) -> Iterator[Run]:
        while True:
            run = start(self.pick)
            yield run
            if run.abandoned or not self.another(run):
                return

    def another(self, run: Run) -> bool:
        """Go back to the last choice that has something left to try; False where none has."""
        while self.nodes:
            node = self.nodes[-1]
            node.sleep |= 1 << node.chosen
            left = node.backtrack & ~node.sleep
            if left:
                node.chosen = lowest(left)
                return True
            self.nodes.pop()
        return False

    def pick(self, run: Run, enabled: int) -> int:
        raise NotImplementedError

    def _take(self, run: Run, node: Node) -> int:
        run.choices += 1
        run.sleep = run.still_asleep(node.sleep, node.chosen)
        return node.chosen


class States(Search):
    """By states."""

    def __init__(self) -> None:
        super().__init__()
        self.racing: set[Resource] = set()
        self.readers: dict[Resource, int] = {}
        self.writers: dict[Resource, int] = {}
        self.visited: dict[Any, int] = {}  # the tasks that were not gone on with from there
        self._learnt = False

    def another(self, run: Run) -> bool:
        if not self._learnt:
            return super().another(run)
        self._learnt = False
        self.nodes.clear()
        self.visited.clear()
        return True

    def pick(self, run: Run, enabled: int) -> int:
        number = self._pick(run, enabled)
        self._learn(number, run.tasks[number].pending)
        return number

    def _pick(self, run: Run, enabled: int) -> int:
        if run.redundant or self._learnt:
            return run.goes_on(enabled)
        if run.running is not None and self._races(run.running.pending):
            run.stands()
        among = enabled
        while among:
            number = run.goes_on(among)
            if not self._races(run.tasks[number].pending):
                return number
            among &= ~(1 << number)
        if run.choices < len(self.nodes):
            return self._take(run, self.nodes[run.choices])
        awake = self._awake(run, enabled)
        if not awake:
            run.redundant = True
            return run.goes_on(enabled)
        node = Node(enabled, run.goes_on(awake), run.sleep | enabled & ~awake, awake)
        self.nodes.append(node)
        return self._take(run, node)

    def _awake(self, run: Run, enabled: int) -> int:
        """Who is to be gone on with from this state."""
        state = run.state()
        before = self.visited.get(state)
        if before is None:
            self.visited[state] = run.sleep
            return enabled & ~run.sleep
        self.visited[state] = before & run.sleep
        return enabled & before & ~run.sleep

    def _races(self, op: Op) -> bool:
        racing = self.racing
        return any(it in racing for it in op.reads) or any(it in racing for it in op.writes)

    def _learn(self, task: int, op: Op) -> None:
        bit = 1 << task
        for touched, it in [*((self.readers, it) for it in op.reads), *((self.writers, it) for it in op.writes)]:
            if not touched.get(it, 0) & bit:
                touched[it] = touched.get(it, 0) | bit
                readers, writers = self.readers.get(it, 0), self.writers.get(it, 0)
                if writers and (readers | writers).bit_count() > 1 and it not in self.racing:
                    self.racing.add(it)
                    self._learnt = True


class Bounded(States):
    """By states, with at most so many preemptions: switches away from a task that could go on (Musuvathi and Qadeer,
    PLDI 2007: most mistakes need one or two).  Not exhaustive, but for what a program of many operations can be given.
    Only where there is a choice does a switch count: what another does meanwhile that races with nothing does not.
    """

    def __init__(self, preemptions: int) -> None:
        super().__init__()
        self.preemptions = preemptions
        self.last: int | None = None  # who was chosen last

    def _take(self, run: Run, node: Node) -> int:
        last = self._last(run)
        number = self.last = super()._take(run, node)
        run.sleep = 0  # who sleeps is covered by a schedule that may have one preemption more
        run.preemptions += last is not None and number != last and bool(node.enabled >> last & 1)
        return number

    def _last(self, run: Run) -> int | None:
        return self.last if run.choices else None

    def _awake(self, run: Run, enabled: int) -> int:
        last = self._last(run)
        state = (run.preemptions, last, run.state())
        if state in self.visited:
            return 0
        self.visited[state] = 0
        if run.preemptions < self.preemptions or last is None or not enabled >> last & 1:
            return enabled
        return 1 << last


class Traces(Search):
    """By traces."""

    def pick(self, run: Run, enabled: int) -> int:
        if run.redundant:
            return run.goes_on(enabled)
        if run.choices == len(self.nodes):
            awake = enabled & ~run.sleep
            if not awake:
                run.redundant = True
                return run.goes_on(enabled)
            chosen = run.goes_on(awake)
            self.nodes.append(Node(enabled, chosen, run.sleep, 1 << chosen))
        node = self.nodes[run.choices]
        assert node.enabled == enabled, "the same choices lead elsewhere: something here is not deterministic"
        return self._take(run, node)

    fresh = 0  # races between the steps before it are seen to

    def another(self, run: Run) -> bool:
        self._turn_round_races(run)
        more = super().another(run)
        self.fresh = len(self.nodes) - 1
        return more

    def _turn_round_races(self, run: Run) -> None:
        """Find the races of the fresh steps, and see to it that the other order is tried.

        A race: two dependent steps of different tasks, of which neither something in between nor the program made
        the one precede the other.
        """
        clocks = [[-1] * len(run.tasks) for _ in run.tasks]
        past: list[tuple[int, ...]] = []  # of each step: what precedes it
        last_write: dict[Resource, int] = {}
        reads: dict[Resource, list[int]] = {}  # since the last write
        for at in range(len(self.nodes)):
            task, op = run.steps[at]
            clock = clocks[task]
            for earlier in sorted(_conflicting(op, last_write, reads), reverse=True):
                by = run.steps[earlier].task
                if by != task and earlier > clock[by]:
                    if at >= self.fresh:
                        self._turn_round(run, earlier, at, past, clock)
                    # Two critical sections: the later waits for all of the earlier.
                    _join(clock, past[run.let_go[earlier] if op.lock is not None else earlier])
            clock[task] = at
            past.append(tuple(clock))
            for it in op.reads:
                reads.setdefault(it, []).append(at)
            for it in op.writes:
                last_write[it] = at
                reads.pop(it, None)

    def _turn_round(self, run: Run, earlier: int, later: int, past: list[tuple[int, ...]], clock: Clock) -> None:
        """Have the execution tried in which ``later`` comes before ``earlier``, and what it needs before both."""
        node = self.nodes[earlier]
        first = _initials(run, earlier, later, past, clock)
        if first & (node.backtrack | node.sleep):
            return
        possible = first & node.enabled
        node.backtrack |= possible & -possible if possible else node.enabled


def _conflicting(op: Op, last_write: dict[Resource, int], reads: dict[Resource, list[int]]) -> list[int]:
    """The steps that it depends on, but for those that another of them depends on."""
    found = [last_write[it] for it in (*op.reads, *op.writes) if it in last_write]
    for it in op.writes:
        found.extend(reads.get(it, ()))
    return found


def _join(clock: Clock, other: tuple[int, ...]) -> None:
    for task, at in enumerate(other):
        if at > clock[task]:
            clock[task] = at


def _initials(run: Run, earlier: int, later: int, past: list[tuple[int, ...]], clock: Clock) -> int:
    """Which tasks could begin the steps after ``earlier`` that do not follow from it, up to ``later``."""
    by = run.steps[earlier].task
    first = seen = 0
    heads: list[int] = []
    for at in [at for at in range(earlier + 1, later) if past[at][by] < earlier] + [later]:
        task = run.steps[at].task
        if seen >> task & 1:
            continue
        seen |= 1 << task
        before = clock if at == later else past[at]
        # Of each task its first step is enough: what follows from a later one follows from that.
        if all(before[run.steps[head].task] < head for head in heads):
            first |= 1 << task
        heads.append(at)
    return first
