"""What a script acts on: numbered files, always on the same fd numbers, and numbered timeouts; each judges its calls.

The oracle's ground is that of the soak (`oracle`), and stricter: nothing races here, so every change counts at
once, whichever thread made it (H5), and the clock is the script's, so a timeout is due at an exact moment (T3, T4).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import TYPE_CHECKING

from eventbridge.core.masks import EFFECTIVE
from eventbridge.errors import UnknownHandle

from .oracle import Ledger, Registration, on_free
from .script import BOTH, Step
from .subjects import RECORD, R, W

if TYPE_CHECKING:
    from .scripted_round import World

FIRST_FD = 1000
"""Slot n's reader is this + 2n, its writer the next: numbers that nobody else is given, as long as a process has fewer
files open, and just below the usual soft limit (ulimit -n: 1024).
"""
MOST_ON_A_SLOT = 6
ENDS = {"r": R, "w": W}


class Watch(Registration):
    """A registration of a script's."""

    __slots__ = ("after", "calls", "end", "seen_since", "slot", "takes")

    def __init__(self, what: str, asked: int, ledger: Ledger, slot: FileSlot | TimeoutSlot) -> None:
        super().__init__(what, asked, ledger, slot.lock)
        self.slot = slot
        self.end = "r"
        self.takes = 0  # records at a call; 0: it only looks on
        self.after = "keep"  # what becomes of one that only looks on once it was called
        self.seen_since = -1  # the tag of the file that it was certainly told to the bridge for
        self.calls = 0


def free(watch: Watch) -> None:
    """The ``free`` of every registration."""
    on_free(watch)
    watch.slot.world.planned_here("free")


class FileSlot:
    """One pair of fd numbers, and the file on it, if one is open."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.lock = threading.Lock()
        self.reader, self.writer = FIRST_FD + 2 * number, FIRST_FD + 2 * number + 1
        self.open = self.hung_up = False
        self.tag = -1
        self.written = self.read = 0
        self.stirred = False  # was it read from since the loop was last at rest?
        self.watches: list[Watch] = []

    def __str__(self) -> str:
        return f"file {self.number}"

    # -- steps

    def make(self, step: Step) -> None:
        if self.open:
            return
        if step["kind"] == "socket":
            ours, theirs = socket.socketpair()
            ends = ours.detach(), theirs.detach()
        else:
            ends = os.pipe()
        for end, number in zip(ends, (self.reader, self.writer), strict=True):
            os.dup2(end, number, inheritable=False)
            os.close(end)
            os.set_blocking(number, False)
        self.open, self.hung_up, self.stirred = True, False, False
        self.tag = self.world.next_tag()
        self.written = self.read = 0

    def write(self, step: Step) -> None:
        if self.open and not self.hung_up and self.written - self.read < 64:
            more = range(self.written, self.written + int(step["records"]))
            os.write(self.writer, b"".join(RECORD.pack(self.tag, number) for number in more))
            self.written = more.stop

    def hang_up(self, step: Step) -> None:
        if self.open and not self.hung_up and not self.world.children:  # one of which would keep it open
            os.close(self.writer)
            self.hung_up = True

    def close(self, step: Step) -> None:
        """With whatever is still registered on it; a dup may keep the file, and what is in it, alive (H11)."""
        if not self.open:
            return
        if step.get("keep"):
            self.world.keep(self.reader)
            if not self.hung_up:
                self.world.keep(self.writer)
                os.write(self.writer, bytes(RECORD.size))  # nobody may hear of it
        os.close(self.reader)
        if not self.hung_up:
            os.close(self.writer)
        self.open = False

    def add(self, step: Step) -> None:
        if len(self.watches) >= MOST_ON_A_SLOT:
            return
        end = str(step["end"])
        mask = R | W if step["mask"] == BOTH else ENDS[end] if step["mask"] else 0
        watch = Watch("handle", EFFECTIVE[mask], self.world.ledger, self)
        watch.end, watch.takes, watch.after = end, int(step.get("takes", 0)), str(step.get("after", "keep"))
        fd = self.reader if end == "r" else self.writer
        is_open = self._is_open(end)
        try:
            with self.lock:
                watch.id = self.world.bridge.add_handle(fd, mask, self._on_event, watch, free)
        except OSError as error:
            self.world.ledger.added -= 1  # it is not registered, so nothing is owed
            if is_open or error.errno != errno.EBADF:
                raise
            return
        if not is_open:
            self.world.ledger.accuse(f"fd {fd} is closed, and could be watched with {mask} (add_handle)")
        if mask:
            watch.seen_since = self.tag
        self.watches.append(watch)

    def update(self, step: Step) -> None:
        watch = self._nth(step)
        if watch is None:
            return
        mask = ENDS[watch.end] if step["mask"] else 0
        is_open = self._is_open(watch.end)
        before = watch.asked
        try:
            with self.lock:
                self.world.bridge.update_handle(watch.id, mask)
                watch.changed(EFFECTIVE[mask], by_loop=True)
        except OSError as error:
            if is_open or error.errno != errno.EBADF:
                raise
            return
        if is_open and mask and not before:
            watch.seen_since = self.tag

    def remove(self, step: Step) -> None:
        watch = self._nth(step)
        if watch is not None:
            self._remove(watch)

    def _remove(self, watch: Watch) -> None:
        self.watches.remove(watch)
        with self.lock:
            self.world.bridge.remove_handle(watch.id)
            watch.removed(by_loop=True)
        try:
            self.world.bridge.remove_handle(watch.id)
        except UnknownHandle:
            return
        self.world.ledger.accuse(f"handle {watch.id} could be removed twice (H8)")

    def _nth(self, step: Step) -> Watch | None:
        return self.watches[int(step["nth"]) % len(self.watches)] if self.watches else None

    def _is_open(self, end: str) -> bool:
        return self.open and not (end == "w" and self.hung_up)

    # -- its calls

    def _on_event(self, id: int, fd: int, events: int, watch: Watch) -> None:
        self.world.note(self, watch.end, events)
        try:
            with self.lock:
                right = watch.called(events)
                watch.running += 1
                if right:
                    self._judge(watch, events)
            if right:
                (self._take if watch.takes and self._is_open(watch.end) else self._look_on)(watch)
            self.world.planned_here(str(self))
        finally:
            watch.running -= 1

    def _judge(self, watch: Watch, events: int) -> None:
        """Is it the file on this number that is told of?  Where the bridge was told nothing since that was opened,
        there is no sign of it yet (H11).
        """
        if not self._is_open(watch.end) or watch.seen_since != self.tag or watch.end == "w":
            return
        fits = events == W or self.hung_up or (events & R and (self.read < self.written or self.stirred))
        if not fits:
            watch.ledger.accuse(f"handle {watch.id} on {self} was told {events}: another file's event (H5, H11)")

    def _take(self, watch: Watch) -> None:
        if watch.end != "r":
            self._look_on(watch)
            return
        try:
            data = os.read(self.reader, RECORD.size * watch.takes)
        except BlockingIOError:
            return  # another read it, or `_judge` has said so
        self.stirred = True
        for record in RECORD.iter_unpack(data):
            if record != (self.tag, self.read):
                watch.ledger.accuse(f"{self} brought {record} instead of {(self.tag, self.read)}")
            self.read += 1
        if not data and watch in self.watches:
            self._remove(watch)

    def _look_on(self, watch: Watch) -> None:
        """Seen enough, or not."""
        watch.calls += 1
        if watch in self.watches and watch.after != "keep":
            if watch.after == "remove":
                self._remove(watch)
            else:
                self.update({"nth": self.watches.index(watch), "mask": 0})

    # -- what must have come

    def missing(self) -> str:
        """While the loop is at rest."""
        self.stirred = False
        unheard = self.open and (self.read < self.written or self.hung_up)
        for watch in self.watches:
            if unheard and watch.end == "r" and watch.asked and watch.seen_since == self.tag:
                return f"{self.written - self.read} of {self.written} records of {self} for handle {watch.id}"
        return ""

    def settle(self) -> None:
        for watch in self.watches:
            watch.after = "off"
        if self.open and not any(
            watch.takes and watch.asked and watch.seen_since == self.tag for watch in self.watches
        ):
            self.add({"end": "r", "mask": 1, "takes": 5})

    def finish(self) -> None:
        for watch in list(self.watches):
            self._remove(watch)
        self.close({})


class TimeoutSlot:
    """One timeout, when there is one."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.lock = threading.Lock()
        self.watch: Watch | None = None
        self.ms = -1
        self.due = 0  # ns of the script's clock
        self.last_pass = -1

    def __str__(self) -> str:
        return f"timeout {self.number}"

    def set(self, step: Step) -> None:
        self.ms, self.last_pass = int(step["ms"]), -1
        self.due = self.world.now() + self.ms * 1_000_000
        asked = int(self.ms >= 0)
        with self.lock:
            if self.watch is None:
                self.watch = Watch("timeout", asked, self.world.ledger, self)
                self.watch.id = self.world.bridge.add_timeout(self.ms, self._on_due, self.watch, free)
            else:
                self.world.bridge.update_timeout(self.watch.id, self.ms)
                self.watch.changed(asked, by_loop=True)

    def remove(self, step: Step) -> None:
        watch, self.watch = self.watch, None
        if watch is not None:
            with self.lock:
                self.world.bridge.remove_timeout(watch.id)
                watch.removed(by_loop=True)

    def _on_due(self, id: int, watch: Watch) -> None:
        self.world.note(self, "due", self.ms)
        try:
            with self.lock:
                right = watch.called(1)
                watch.running += 1
                if right:
                    self._judge(watch)
            self.world.planned_here(str(self))
        finally:
            watch.running -= 1

    def _judge(self, watch: Watch) -> None:
        now = self.world.now()
        if self.ms and now < self.due:
            watch.ledger.accuse(f"{self} of {self.ms} ms is {self.due - now} ns early, or fires again (T3, T4)")
        if not self.ms and not self.world.depth:
            if self.last_pass == self.world.passes():
                watch.ledger.accuse(f"{self} of 0 ms was called twice in one pass (T1)")
            self.last_pass = self.world.passes()
        self.due = now + self.ms * 1_000_000

    def missing(self) -> str:
        if self.watch is not None and self.ms > 0 and self.due <= self.world.now():
            return f"{self} of {self.ms} ms, due {self.world.now() - self.due} ns ago"
        return ""

    def settle(self) -> None:
        if self.ms == 0:
            self.remove({})

    def finish(self) -> None:
        self.remove({})


def lowest_free() -> int:
    """The number that the next file would be given."""
    fd = os.dup(0)
    os.close(fd)
    return fd
