"""The six guarantees, held to at each call and once all is at rest: H5, H6, H7, D1, D4, D6 of contract.md.

A `Ledger` is told what the program does and what the core does to it, in the order in which it happens, and writes
down whatever breaks a rule.  It knows nothing of how the core works, but for the last look at rest, which compares what
is registered with what the kernel would report.

"At most one call that was decided on already" (H6) is held to as: one while the pass goes on in which the operation
ended, none later.  When an operation ends is no step, so of two executions that are one trace the search may run the
one in which that allows the call; the model, where it is part of the state, is exact in this.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from tests.model_checking.poller import File, Kernel
from tests.model_checking.scheduler import Run
from tests.model_checking.watched import Now

LOOP = 0  # the number of the loop's task


@dataclass
class Item:
    """One handle or timeout, as the program knows it."""

    role: str
    fd: int | None = None  # None: a timeout
    id: int = 0
    calls: int = 0
    frees: int = 0
    removing: bool = False  # an operation that removes it has begun
    changes: int = 0  # beginnings and ends of operations that turn it on
    turning_on: int = 0  # such operations under way
    allowed: list[int] | None = None  # how many calls may still begin; None: any
    shared: bool = False  # has its number had several handles?
    file: File | None = None  # which its number had when it was added
    gone: bool = False  # an operation that removes it has returned

    @property
    def serial(self) -> str:
        return self.role


def noted(method: Any) -> Any:
    """It changes what is remembered."""

    @functools.wraps(method)
    def noting(self: Ledger, *args: Any) -> Any:
        found = method(self, *args)
        self.run.protected["ledger"] = hash(self.state())
        return found

    return noting


@dataclass
class Ledger:
    run: Run
    kernel: Kernel
    items: dict[str, Item] = field(default_factory=dict)
    running: list[Item] = field(default_factory=list)  # whose callbacks are, outermost first
    operating: list[int] = field(default_factory=lambda: [0, 0, 0])  # adds, updates and removes under way, by task
    passing: int = 0  # host turns under way
    raised: list[BaseException] = field(default_factory=list)
    reported: list[BaseException] = field(default_factory=list)
    seen: list[tuple[str, ...]] = field(default_factory=list)  # what can be observed, in order
    closing: bool = False
    registry: Any = None

    def broken(self, rule: str, what: str) -> None:
        self.run.violate(f"{rule}: {what}")

    def state(self) -> Any:
        """What it remembers, but for what was seen."""
        claims: dict[int, int] = {}
        items = tuple(
            (
                *(it.role, it.id, it.frees, it.removing, it.changes, it.turning_on, it.shared, it.gone),
                # Whose an allowance is matters as long as there is something in it.
                it.allowed and it.allowed[0] and (it.allowed[0], claims.setdefault(id(it.allowed), len(claims))),
            )
            for it in self.items.values()
        )
        running = tuple(it.role for it in self.running)
        return items, running, *self.operating, self.passing, len(self.raised), len(self.reported), self.closing

    # -- operations

    @noted
    def adds(self, role: str, fd: int | None, file: File | None) -> Item:
        """One is about to be registered."""
        while role in self.items:
            role += "'"
        item = self.items[role] = Item(role, fd, file=file)
        beside = [it for it in self.items.values() if it.fd == fd and fd is not None]
        for it in beside if len(beside) > 1 else []:
            it.shared = True
        return item

    @noted
    def begins(self, task: int, on: list[Item], verb: str) -> int:
        """An operation on these items begins; returns what its end is to be given."""
        self.operating[task] += verb != "close"  # which may call frees itself (D8)
        self.closing |= verb == "close"
        for item in on:
            if verb in ("on", "later"):
                item.allowed = item.allowed if item.gone else None
                item.turning_on += 1
                item.changes += 1
            elif verb == "remove":
                item.removing = True
        return sum(item.changes for item in on)

    @noted
    def ends(self, task: int, on: list[Item], verb: str, at_start: int, result: str, what: str) -> None:
        self.operating[task] -= verb != "close"
        self.seen.append((self.run.tasks[task].name, verb, what, result))
        if verb in ("on", "later"):
            for item in on:
                item.turning_on -= 1
                item.changes += 1
        if verb == "close":
            on = list(self.items.values())
        for item in on:
            item.gone |= verb in ("remove", "close")
        overtaken = any(item.turning_on for item in on) or sum(item.changes for item in on) != at_start
        if verb in ("remove", "close") or (verb == "off" and result == "done" and not overtaken):
            # H5: none on the loop's thread; H6: elsewhere one, if a pass is under way that may have decided on it.
            allowed = [0 if task == LOOP or not self.passing else 1]
            for item in on:
                if item.allowed is None or item.allowed[0] > allowed[0]:
                    item.allowed = allowed

    @noted
    def turned(self, passes: int) -> None:
        """A pass begins or ends; with the last one ends what had been decided on."""
        self.passing += passes
        if not self.passing:
            for item in self.items.values():
                if item.allowed is not None:
                    item.allowed = [0]

    # -- what the core calls

    def foreign(self, what: str) -> None:
        """Something of somebody else's is called."""
        running = self.run.running
        if running is not None and self.registry is not None and self.registry.lock.owner is running:
            self.broken("D6", f"{what} is called with the registry's lock held")

    def on_loop(self, what: str) -> None:
        self.foreign(what)
        running = self.run.running
        if running is not None and running.number != LOOP:
            self.broken("D1", f"{what} is called by {running.name}")

    @noted
    def calls(self, item: Item, file: File | None) -> None:
        self.seen.append(("calls", item.role))
        self.on_loop(f"the callback of {item.role}")
        item.calls += 1
        if item.allowed is not None:
            if item.allowed[0] < 1:
                self.broken("H5/H6", f"{item.role} is called after it was turned off or removed")
            item.allowed[0] -= 1
        if item.frees:
            self.broken("H7", f"{item.role} is called after its free")
        if item in self.running:
            self.broken("D5", f"{item.role} is called within its own callback")
        if file is not None and file is item.file and not file.written:
            self.broken("H5", f"{item.role} gets an event of the file that had its number before")
        if file is not None and file is item.file and not item.shared and not file.unread:
            self.broken("twice", f"{item.role} is called for an event that it has had")
        self.running.append(item)

    @noted
    def returns(self, item: Item) -> None:
        self.running.remove(item)

    @noted
    def frees(self, item: Item) -> None:
        self.seen.append(("frees", item.role))
        self.on_loop(f"the free of {item.role}")
        item.frees += 1
        if item.frees > 1:
            self.broken("H7", f"{item.role} is freed twice")
        if not (item.removing or self.closing):
            self.broken("H7", f"{item.role} is freed, and nobody removed it")
        if item in self.running:
            self.broken("H7", f"{item.role} is freed within its own callback")
        if self.operating[LOOP]:
            self.broken("H7", f"{item.role} is freed within an operation")

    @noted
    def reports(self, error: BaseException) -> None:
        self.seen.append(("reports",))
        self.on_loop("the error handler")
        self.reported.append(error)
        if self.reported.count(error) > 1:
            self.broken("D4", "an exception is reported twice")

    # -- at rest

    def at_rest(self, where: str) -> None:
        """Every thread is done and the loop sleeps: nothing may be left to do, and nothing may keep it from waking."""
        registry, kernel = self.registry, self.kernel
        if registry.lock.owner is not None:
            self.broken("D6", "the registry's lock is held by nobody who runs")
        if self.raised != self.reported:
            self.broken("D4", f"{len(self.raised)} exceptions raised, {len(self.reported)} reported")
        for item in self.items.values():
            self._item_at_rest(item)
        for handle in registry.handles.values():
            file = kernel.numbers.get(handle.fd)
            if handle.mask & 1 and file is not None and file.unread and self._known(handle, file):
                self.broken("D6", f"the loop sleeps{where} with fd {handle.fd} ready")
        self._timers_at_rest()
        if registry.refusal is None and (registry.awake or registry.dispatching):
            self.broken("D6", f"the loop sleeps{where}, and the next wake will be swallowed")

    def _item_at_rest(self, item: Item) -> None:
        if not item.id:
            return  # it was refused
        removed = item.removing or self.closing
        if (item.id in (self.registry.timeouts if item.fd is None else self.registry.handles)) == removed:
            self.broken("D4", f"{item.role} is {'still' if removed else 'no longer'} registered")
        if item.frees != removed:
            self.broken("H7", f"{item.role} is freed {item.frees} times, and was {'' if removed else 'not '}removed")

    def _known(self, handle: Any, file: File) -> bool:
        """Was it added for this file?  What its owner put on the number meanwhile is seen once there is a sign of it
        (H11).
        """
        return any(item.file is file for item in self.items.values() if item.id == handle.id and item.fd is not None)

    def _timers_at_rest(self) -> None:
        deadlines = [timer.deadline for timer in self.registry.timeouts.values() if timer.deadline < 1 << 63]
        if not deadlines:
            return
        if min(deadlines) <= Now.clock:
            self.broken("D6", "the loop sleeps with a timeout due")
        elif self.kernel.deadline is None or self.kernel.deadline > min(deadlines):
            self.broken("D6", "the loop sleeps, and nothing will wake it for a timeout")
