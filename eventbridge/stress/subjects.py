"""What the soak does things to: files with known bytes in them, and timeouts.

Each record in a file names the file and counts, so that bytes that are lost, doubled or another file's show.  A
subject that something is *expected* of is left alone by everybody until it has come: a later change could hide that
an event was lost.

Operations run on any thread, under the subject's lock; ``by_loop`` says that it is the loop's, inside a callback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from time import monotonic, monotonic_ns, sleep
from typing import Any, TypeAlias, TypeVar

from eventbridge.bridge import Bridge
from eventbridge.core.masks import EFFECTIVE, Events
from eventbridge.errors import UnknownHandle
from eventbridge.testing.patience import PATIENCE

from .oracle import Ledger, Registration, on_free

R, W = int(Events.READABLE), int(Events.WRITABLE)
RECORD = struct.Struct("!QQ")  # the file's tag; the record's number in it
MOST_UNREAD = 64
"""Records: far less than any pipe or socket holds."""
MOST_GHOSTS = 24
Made = TypeVar("Made")

Meanwhile: TypeAlias = Callable[[], None]
"""Something else to do on the loop's thread, inside a callback."""


class Subject:
    """A lock, and what is expected."""

    def __init__(self, bridge: Bridge, ledger: Ledger, meanwhile: Meanwhile) -> None:
        self.lock = threading.Lock()
        self.bridge = bridge
        self.ledger = ledger
        self.meanwhile = meanwhile
        self.expected_at: float | None = None  # until when what is expected may come; s of time.monotonic

    def _meanwhile(self, registration: Registration) -> None:
        """The rest of its callback: whatever happens then, it may not be called again, nor freed (D5, H7)."""
        registration.running += 1
        try:
            self.meanwhile()
        finally:
            registration.running -= 1

    def expect(self, seconds: float = 0.0) -> None:
        self.expected_at = monotonic() + seconds + self.ledger.patience

    def overdue(self) -> bool:
        """Is something expected?  Where it has not come in time, it is lost, and nothing is expected any more."""
        if self.expected_at is not None and monotonic() > self.expected_at:
            self.ledger.lose(str(self))
            self.expected_at = None
        return self.expected_at is not None

    def operate(self, random: Random, by_loop: bool) -> None:
        """Do something to it."""
        raise NotImplementedError

    def settle(self) -> None:
        """Have everything that is left come.  The loop is not running."""

    def finish(self) -> None:
        """Remove and close everything.  The loop is not running."""
        raise NotImplementedError


class Ghosts:
    """Dups that keep closed files alive for a while; and whether files may (still) be closed before removing."""

    def __init__(self) -> None:
        self.allowed = True
        self._fds: deque[int] = deque()

    def keep(self, fd: int) -> None:
        self._fds.append(fd)
        if len(self._fds) > MOST_GHOSTS:
            self.exorcise(1)

    def exorcise(self, count: int = MOST_GHOSTS * 2) -> None:
        for _ in range(count):
            with contextlib.suppress(IndexError):
                os.close(self._fds.popleft())


def _socketpair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _patiently(make: Callable[[], Made]) -> Made:
    """What ``make`` makes; where no fd is left for it, which is a fault that passes, as soon as there is one."""
    give_up = monotonic() + PATIENCE
    while True:
        try:
            return make()
        except OSError as error:
            if error.errno != errno.EMFILE or monotonic() > give_up:
                raise
        sleep(0.001)


class File(Subject):
    """A pipe or a socketpair, replaced by another again and again.  Its reader is watched by at most one registration
    that reads, and by others that look on; its writer by some that wait for room.
    """

    _tags = count(1)

    def __init__(self, bridge: Bridge, ledger: Ledger, meanwhile: Meanwhile, ghosts: Ghosts, random: Random) -> None:
        super().__init__(bridge, ledger, meanwhile)
        self._ghosts = ghosts
        self.open(random)

    def open(self, random: Random) -> None:
        self.reader, self.writer = _patiently(_socketpair if random.random() < 0.5 else os.pipe)
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        self.tag = next(self._tags)
        self.written = self.read = 0
        self.hung_up = self.ended = False
        self.watch: Registration | None = None
        self.beside: dict[int, list[Registration]] = {self.reader: [], self.writer: []}

    def __str__(self) -> str:
        ending = ", then its end" if self.hung_up else ""
        return f"{self.written - self.read} of {self.written} records of file {self.tag} on fd {self.reader}{ending}"

    @property
    def watched(self) -> bool:
        return self.watch is not None and self.watch.asked != 0

    # -- operations

    def operate(self, random: Random, by_loop: bool) -> None:
        if self.ended:
            self.replace(random, by_loop)
        else:
            random.choices(OPERATIONS, WEIGHTS)[0](self, random, by_loop)

    def write(self, random: Random, by_loop: bool) -> None:
        if self.hung_up or self.written - self.read > MOST_UNREAD:
            return
        self._write(random.randint(1, 4))
        self._expect_sometimes(random)

    def start_watching(self, random: Random, by_loop: bool) -> None:
        if self.watch is None:
            self.watch = self._add(self.reader, R if random.random() < 0.8 else 0, self._on_readable)
            self._expect_sometimes(random)

    def toggle(self, random: Random, by_loop: bool) -> None:
        if self.watch is not None:
            mask = 0 if self.watch.asked else R
            self.bridge.update_handle(self.watch.id, mask)
            self.watch.changed(EFFECTIVE[mask], by_loop=by_loop)
            self._expect_sometimes(random)

    def stop_watching(self, random: Random, by_loop: bool) -> None:
        if self.watch is None:
            return
        watch, self.watch = self.watch, None
        self._remove(watch, by_loop)
        try:
            self.bridge.remove_handle(watch.id)
        except UnknownHandle:
            return
        self.ledger.accuse(f"handle {watch.id} could be removed twice (H8)")

    def look_on(self, random: Random, by_loop: bool) -> None:
        """Another handle on the same number (H4), or the end of one."""
        self._add_or_remove(self.reader, R, random, by_loop)

    def wait_for_room(self, random: Random, by_loop: bool) -> None:
        if not self.hung_up:
            self._add_or_remove(self.writer, W, random, by_loop)

    def hang_up(self, random: Random, by_loop: bool) -> None:
        """The writer closes, perhaps before its handles are removed."""
        if not self.hung_up:
            self.hung_up = True
            self._drop(self._close(self.writer, early=random.random() < 0.5, by_loop=by_loop), by_loop)
            self._expect_sometimes(random)

    def replace(self, random: Random, by_loop: bool) -> None:
        """Removed, then closed."""
        for fd in self._open_ends():
            self._close(fd, early=False, by_loop=by_loop)
        self.open(random)

    def close_early(self, random: Random, by_loop: bool) -> None:
        """Closed before its handles are removed, perhaps kept alive by a dup, with its number perhaps taken by the
        next file while they are still on it (H11).
        """
        if not self._ghosts.allowed:
            self.replace(random, by_loop)
            return
        if random.random() < 0.5:
            self._ghosts.keep(_patiently(lambda: os.dup(self.reader)))
            if not self.hung_up:
                os.write(self.writer, bytes(RECORD.size))  # no event of it may reach anybody once its number is reused
        orphans = [orphan for fd in self._open_ends() for orphan in self._close(fd, early=True, by_loop=by_loop)]
        if random.random() < 0.5:
            self._drop(orphans, by_loop)
            orphans = []
        self.open(random)
        self.watch = self._add(self.reader, R, self._on_readable)
        self.write(random, by_loop)
        self._drop(orphans, by_loop)

    # -- their parts

    def _expect_sometimes(self, random: Random) -> None:
        """Of a file that is watched, so that it is left alone until it has been heard of."""
        if self.watched and random.random() < 0.5:
            if self.written == self.read and not self.hung_up:
                self._write(1)
            self.expect()

    def _write(self, records: int) -> None:
        more = range(self.written, self.written + records)
        os.write(self.writer, b"".join(RECORD.pack(self.tag, number) for number in more))
        self.written = more.stop

    def _open_ends(self) -> list[int]:
        return [self.reader] if self.hung_up else [self.reader, self.writer]

    def _add(self, fd: int, mask: int, callback: Callable[..., None]) -> Registration:
        registration = Registration("handle", EFFECTIVE[mask], self.ledger, self.lock)
        registration.id = self.bridge.add_handle(fd, mask, callback, registration, on_free)
        return registration

    def _remove(self, registration: Registration, by_loop: bool) -> None:
        self.bridge.remove_handle(registration.id)
        registration.removed(by_loop=by_loop)

    def _drop(self, registrations: list[Registration], by_loop: bool) -> None:
        for registration in registrations:
            self._remove(registration, by_loop)

    def _add_or_remove(self, fd: int, mask: int, random: Random, by_loop: bool) -> None:
        beside = self.beside[fd]
        if beside and random.random() < 0.5:
            self._remove(beside.pop(), by_loop)
        else:
            beside.append(self._add(fd, mask, self._on_beside))

    def _close(self, fd: int, *, early: bool, by_loop: bool) -> list[Registration]:
        """Close an end; returns what is still registered on it."""
        registrations = self.beside.pop(fd)
        if fd == self.reader and self.watch is not None:
            registrations.append(self.watch)
            self.watch = None
        if not (early and self._ghosts.allowed):
            self._drop(registrations, by_loop)
            registrations = []
        os.close(fd)
        for registration in registrations:
            registration.orphan = True
        return registrations

    # -- callbacks

    def _on_beside(self, id: int, fd: int, events: int, registration: Registration) -> None:
        """One that looks on has seen enough; it may not be called again."""
        with self.lock:
            if registration.called(events) and not registration.orphan:
                if registration.id % 2:
                    self.bridge.update_handle(id, 0)
                    registration.changed(0, by_loop=True)
                else:
                    self.beside[fd].remove(registration)
                    self._remove(registration, by_loop=True)

    def _on_readable(self, id: int, fd: int, events: int, registration: Registration) -> None:
        with self.lock:
            if registration.called(events) and not registration.orphan:
                self._read(fd, events)
        self._meanwhile(registration)

    def _read(self, fd: int, events: int) -> None:
        try:
            data = os.read(fd, RECORD.size * (1 + self.read % 5))
        except BlockingIOError:
            self.ledger.accuse(
                f"fd {fd} was reported with {events}, and has nothing to read: another file's event (H11)"
            )
            return
        for record in RECORD.iter_unpack(data):
            if record != (self.tag, self.read):
                self.ledger.accuse(f"file {self.tag} on fd {fd} brought record {record} instead of its {self.read}th")
            self.read += 1
        if not data:
            self._end()
        if self.read == self.written and self.ended == self.hung_up:
            self.expected_at = None

    def _end(self) -> None:
        """All is read and the writer is gone: the handle would be called for ever."""
        self.ended = True
        if not self.hung_up or self.read != self.written:
            self.ledger.accuse(f"an end came too early: {self}")
        assert self.watch is not None
        watch, self.watch = self.watch, None
        self._remove(watch, by_loop=True)

    # -- the end of the soak

    def settle(self) -> None:
        if self.ended:
            return
        if self.watch is None:
            self.watch = self._add(self.reader, R, self._on_readable)
        elif not self.watched:
            self.bridge.update_handle(self.watch.id, R)
            self.watch.changed(EFFECTIVE[R], by_loop=True)
        if self.hung_up or self.written > self.read:
            self.expect()

    def finish(self) -> None:
        for fd in self._open_ends():
            self._close(fd, early=False, by_loop=True)


# How often each is done, beside the others.
OPERATIONS, WEIGHTS = zip(
    (File.write, 30),
    (File.toggle, 20),
    (File.start_watching, 20),
    (File.stop_watching, 8),
    (File.look_on, 4),
    (File.wait_for_room, 4),
    (File.hang_up, 2),
    (File.replace, 4),
    (File.close_early, 8),
    strict=True,
)


class Tick(Subject):
    """One timeout, updated, removed and added again."""

    def __init__(self, bridge: Bridge, ledger: Ledger, meanwhile: Meanwhile, random: Random) -> None:
        super().__init__(bridge, ledger, meanwhile)
        self.registration: Registration | None = None
        self._loops_random = Random(random.random())
        self._again = True
        self.operate(random, by_loop=True)

    def __str__(self) -> str:
        return f"a timeout of {self.ms} ms has not come"

    def operate(self, random: Random, by_loop: bool) -> None:
        self.ms = random.choice((-1, 0, 1, 2, 5, 10, 20, 50, 100))
        self._set_at = monotonic_ns()  # before the call: it may count from then at the earliest
        self._times = 0
        asked = int(self.ms >= 0)
        if self.registration is None:
            registration = self.registration = Registration("timeout", asked, self.ledger, self.lock)
            registration.id = self.bridge.add_timeout(self.ms, self._on_due, registration, on_free)
        elif random.random() < 0.2:
            self._remove(by_loop=by_loop)
            return
        else:
            self.bridge.update_timeout(self.registration.id, self.ms)
            self.registration.changed(asked, by_loop=by_loop)
        if asked and random.random() < 0.5:
            self.expect(self.ms / 1000)

    def _on_due(self, id: int, registration: Registration) -> None:
        with self.lock:
            if registration.called(1):
                self._due(registration)
        self._meanwhile(registration)

    def _due(self, registration: Registration) -> None:
        if monotonic_ns() - self._set_at < (self._times + 1) * self.ms * 1_000_000:
            registration.overtaken(f"of {self.ms} ms came too early (T3, T4)")
            return
        self._times += 1
        self.expected_at = None
        if self.ms == 0:
            self.operate(self._loops_random, by_loop=True)
        elif self._again and self._loops_random.random() < 0.3:
            self.expect(self.ms / 1000)  # once more, without being set again (T1)

    def settle(self) -> None:
        self._again = False

    def finish(self) -> None:
        self._remove(by_loop=True)

    def _remove(self, *, by_loop: bool) -> None:
        registration, self.registration = self.registration, None
        if registration is not None:
            self.bridge.remove_timeout(registration.id)
            registration.removed(by_loop=by_loop)


Operation: TypeAlias = Callable[[Any, Random, bool], None]
