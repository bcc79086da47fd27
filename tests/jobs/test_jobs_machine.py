"""The machine of one domain against a naive model: at random with hypothesis, and every interleaving of a few owners.

The model is a list of who runs and a list of who waits, and one question, "could this one run now?", answered from
the table of libvirt's documents, written out again here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventbridge.jobs import Change, Job, Machine, State, Ticket, Verdict

pytestmark = pytest.mark.slow

LETS_IN = {
    Job.MIGRATION_OUT: {Job.QUERY, Job.DESTROY, Job.ABORT, Job.SUSPEND, Job.MIGRATION_OP},
    Job.MIGRATION_IN: {Job.DESTROY},
    Job.SAVE: {Job.QUERY, Job.DESTROY, Job.ABORT},
    Job.DUMP: {Job.QUERY, Job.DESTROY, Job.ABORT},
    Job.SNAPSHOT: {Job.DESTROY},
    Job.SNAPSHOT_WITH_MEMORY: {Job.QUERY, Job.DESTROY, Job.ABORT, Job.SUSPEND, Job.MIGRATION_OP},
    Job.START: {Job.DESTROY},
    Job.BACKUP: {Job.QUERY, Job.DESTROY, Job.ABORT, Job.SUSPEND, Job.MODIFY},
}
NORMAL = [job for job in Job if job not in LETS_IN]
NEVER = float("inf")
Rule = TypeVar("Rule", bound=Callable[..., Any])


@dataclass
class Entry:
    """One job, as the model knows it."""

    job: Job
    of: Entry | None = None
    deadline: float = NEVER
    state: Any = State.WAITING
    verdict: Verdict | None = None


@dataclass
class Model:
    """Obviously right, and slow."""

    limit: int
    runs: list[Entry] = field(default_factory=list)
    waits: list[Entry] = field(default_factory=list)

    def could_run(self, entry: Entry) -> bool:
        rescue = entry.job in (Job.DESTROY, Job.ABORT)
        in_the_way = [one for one in self.runs if not (rescue and one.state is State.ABANDONED)]
        if entry.job in LETS_IN:
            return not in_the_way
        return all(one.job in LETS_IN and (one is entry.of or entry.job in LETS_IN[one.job]) for one in in_the_way)

    def refuse(self, entry: Entry, verdict: Verdict) -> None:
        entry.state, entry.verdict = State.REFUSED, verdict
        self.waits = [one for one in self.waits if one is not entry]

    def grant_who_could_run(self) -> None:
        while eligible := [one for one in self.waits if self.could_run(one)]:
            eligible[0].state = State.HELD
            self.waits.remove(eligible[0])
            self.runs.append(eligible[0])

    def begin(self, entry: Entry, now: float, nowait: bool) -> None:
        unbounded = entry.job in LETS_IN or entry.job is Job.DESTROY or entry.of is not None
        if entry.of is not None and not any(one is entry.of for one in self.runs):
            self.refuse(entry, Verdict.ORPHANED)
        elif self.could_run(entry):
            entry.state = State.HELD
            self.runs.append(entry)
        elif nowait:
            self.refuse(entry, Verdict.BUSY)
        elif entry.deadline <= now:
            self.refuse(entry, Verdict.TIMEOUT)
        elif len(self.waits) >= self.limit and not unbounded:
            self.refuse(entry, Verdict.FULL)
        else:
            self.waits.append(entry)

    def end(self, entry: Entry) -> None:
        entry.state = State.ENDED
        self.let_go(entry)
        self.grant_who_could_run()

    def let_go(self, entry: Entry) -> None:
        self.runs = [one for one in self.runs if one is not entry]
        for waiter in [one for one in self.waits if one.of is entry]:
            self.refuse(waiter, Verdict.ORPHANED)

    def cancel(self, entry: Entry) -> None:
        entry.state = State.CANCELLED
        self.waits = [one for one in self.waits if one is not entry]

    def abandon(self, entry: Entry) -> None:
        entry.state = State.ABANDONED
        self.grant_who_could_run()

    def expire(self, now: float) -> None:
        for entry in [one for one in self.waits if one.deadline <= now]:
            self.refuse(entry, Verdict.TIMEOUT)

    def gone(self) -> None:
        for entry in [one for one in self.waits if one.job not in (Job.START, Job.MIGRATION_IN)]:
            self.refuse(entry, Verdict.GONE)
        for entry in [one for one in self.runs if one.state is State.ABANDONED]:
            self.let_go(entry)
        self.grant_who_could_run()


class Both:
    """The machine and the model, given the same inputs; after each, they must agree on everything."""

    def __init__(self, limit: int = 3) -> None:
        self.machine = Machine(limit)
        self.model = Model(limit)
        self.pairs: list[tuple[Ticket, Entry]] = []
        self.told: list[Ticket] = []
        self.now = 0.0

    def __call__(self, outputs: list[Any]) -> None:
        self.told += [one for one in outputs if not isinstance(one, Change)]

    def begin(self, job: Job, of: int | None = None, wait: float = NEVER, nowait: bool = False) -> None:
        parent = (None, None) if of is None else self.pairs[of]
        ticket = Ticket(None, "web1", job, len(self.pairs), self.now)  # type: ignore[arg-type]  # the machine has no table
        ticket.of, ticket.deadline, ticket.asked = parent[0], self.now + wait, self.now
        entry = Entry(job, parent[1], self.now + wait)
        self.pairs.append((ticket, entry))
        self(self.machine.begin(ticket, len(self.pairs), self.now, nowait=nowait))
        self.model.begin(entry, self.now, nowait)

    def end(self, which: int) -> None:
        ticket, entry = self.pairs[which]
        self(self.machine.end(ticket, self.now))
        self.model.end(entry)

    def cancel(self, which: int) -> None:
        ticket, entry = self.pairs[which]
        self.machine.cancel(ticket)
        self.model.cancel(entry)

    def abandon(self, which: int) -> None:
        ticket, entry = self.pairs[which]
        self(self.machine.abandon(ticket, self.now))
        self.model.abandon(entry)

    def expire(self, which: int) -> None:
        """This one's deadline is now."""
        ticket, entry = self.pairs[which]
        ticket.deadline = entry.deadline = self.now
        self.pass_time(0)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self(self.machine.expire(self.now))
        self.model.expire(self.now)

    def gone(self) -> None:
        self(self.machine.gone(self.now))
        self.model.gone()

    def in_state(self, *states: State) -> list[int]:
        return [which for which, (ticket, _) in enumerate(self.pairs) if ticket.state in states]

    def number(self, ticket: Ticket) -> int:
        return [one for one, _ in self.pairs].index(ticket)

    def agree(self) -> None:
        machine, model = self.machine, self.model
        for ticket, entry in self.pairs:
            assert ticket.state is entry.state, (ticket, entry)
            if ticket.state is State.REFUSED:
                assert ticket.refusal.verdict is entry.verdict
        ticket_of = {id(entry): ticket for ticket, entry in self.pairs}
        assert machine.waiters() == [ticket_of[id(entry)] for entry in model.waits], "first in, first out"
        assert set(machine.running()) == {ticket_of[id(entry)] for entry in model.runs}
        assert machine.waiting == len(model.waits)
        assert machine.idle == (not model.runs)
        settled = self.in_state(State.HELD, State.ABANDONED, State.REFUSED, State.ENDED)
        assert sorted(self.number(ticket) for ticket in self.told) == settled, "each is told once, and no other"
        self.hold_the_rules()

    def hold_the_rules(self) -> None:
        """What must not be, whatever the model says."""
        held = [ticket for ticket, _ in self.pairs if ticket.state is State.HELD]
        normal = [ticket for ticket in held if ticket.job in NORMAL]
        assert len(normal) <= 1
        runs = self.machine.async_
        assert len([ticket for ticket in held if ticket.job in LETS_IN]) <= 1
        for ticket in normal:
            if runs is not None and ticket.of is not runs and runs.state is State.HELD:
                assert ticket.job in LETS_IN[runs.job]
        assert not any(self.model.could_run(entry) for entry in self.model.waits), "nobody waits for nothing"

    def finish(self) -> None:
        """Whoever holds it ends, one after the other: then everybody has had a turn."""
        while held := self.in_state(State.HELD, State.ABANDONED):
            self.end(held[0])
            self.agree()
        assert self.machine.idle
        assert not self.in_state(State.WAITING)


def any_in(*states: State) -> Callable[[Rule], Rule]:
    """There is a job in one of these states."""
    return precondition(lambda self: self.both.in_state(*states))


class MachineAgainstAModel(RuleBasedStateMachine):
    @initialize(limit=st.integers(0, 4))
    def start(self, limit: int) -> None:
        self.both = Both(limit)

    def one_of(self, data: st.DataObject, *states: State) -> int:
        return data.draw(st.sampled_from(self.both.in_state(*states)))

    @rule(job=st.sampled_from(Job), wait=st.sampled_from([0, 1, 5, NEVER]), nowait=st.booleans())
    def begin(self, job: Job, wait: float, nowait: bool) -> None:
        self.both.begin(job, wait=wait, nowait=nowait)

    @rule(job=st.sampled_from(Job))
    def wait(self, job: Job) -> None:
        self.both.begin(job)

    @precondition(lambda self: any(ticket.job.is_async for ticket, _ in self.both.pairs))
    @rule(data=st.data(), job=st.sampled_from(NORMAL), wait=st.sampled_from([1, NEVER]))
    def begin_nested(self, data: st.DataObject, job: Job, wait: float) -> None:
        parents = [which for which, (ticket, _) in enumerate(self.both.pairs) if ticket.job.is_async]
        self.both.begin(job, of=data.draw(st.sampled_from(parents[-3:])), wait=wait)

    @any_in(State.HELD, State.ABANDONED)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.both.end(self.one_of(data, State.HELD, State.ABANDONED))

    @any_in(State.WAITING)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.both.cancel(self.one_of(data, State.WAITING))

    @any_in(State.HELD)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self.both.abandon(self.one_of(data, State.HELD))

    @rule(seconds=st.sampled_from([1, 3]))
    def pass_time(self, seconds: float) -> None:
        self.both.pass_time(seconds)

    @rule()
    def gone(self) -> None:
        self.both.gone()

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "both"):
            self.both.agree()

    def teardown(self) -> None:
        if hasattr(self, "both"):
            self.both.finish()


TestMachine = MachineAgainstAModel.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


# -- every interleaving of three owners with four inputs each

OWNERS, INPUTS = 3, 4
Step = tuple[int, str]


def replayed(jobs: tuple[Job, ...], steps: tuple[Step, ...]) -> tuple[Both, list[int | None]]:
    """A new pair of machine and model after these steps, and the job that each owner has."""
    both = Both()
    mine: list[int | None] = [None] * OWNERS
    for owner, step in steps:
        which = mine[owner]
        if step == "begin":
            mine[owner] = len(both.pairs)
            both.begin(jobs[owner])
        else:
            assert which is not None
            getattr(both, step)(which)
    return both, mine


def possible(both: Both, which: int | None) -> tuple[str, ...]:
    """What an owner can do next."""
    state = None if which is None else both.pairs[which][0].state
    return {State.WAITING: ("cancel", "expire"), State.HELD: ("end", "abandon"), State.ABANDONED: ("end",)}.get(
        state,  # type: ignore[arg-type]  # None is none of them
        ("begin",),
    )


def situation(both: Both, mine: list[int | None], steps: tuple[Step, ...]) -> object:
    """All that what follows depends on."""
    left = tuple(sum(1 for owner, _ in steps if owner == one) for one in range(OWNERS))
    states = tuple(None if which is None else both.pairs[which][0].state for which in mine)
    owner_of = {which: owner for owner, which in enumerate(mine)}
    order = tuple(owner_of[both.number(ticket)] for ticket in both.machine.waiters())
    return left, states, order


def interleavings(jobs: tuple[Job, ...]) -> Iterator[Both]:
    """Each step that is possible, from each situation that is; yields what each situation was first reached with."""
    seen: set[object] = set()
    todo: list[tuple[Step, ...]] = [()]
    while todo:
        steps = todo.pop()
        both, mine = replayed(jobs, steps)
        both.agree()
        here = situation(both, mine, steps)
        if here in seen:
            continue
        seen.add(here)
        for owner in range(OWNERS):
            if sum(1 for one, _ in steps if one == owner) < INPUTS:
                todo += [(*steps, (owner, step)) for step in possible(both, mine[owner])]
        yield both


KINDS = (Job.QUERY, Job.MODIFY, Job.DESTROY, Job.MIGRATION_OUT, Job.START)


@pytest.mark.parametrize(
    "jobs",
    list(combinations_with_replacement(KINDS, OWNERS)),
    ids=lambda jobs: "-".join(job.name for job in jobs),
)
def test_every_interleaving_of_three_owners_keeps_the_rules_and_leaves_nobody_waiting(jobs: tuple[Job, ...]) -> None:
    situations = 0
    for both in interleavings(jobs):
        situations += 1
        both.finish()
    assert situations > 1000
