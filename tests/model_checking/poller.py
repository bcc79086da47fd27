"""A stand-in for the kernel: files behind fd numbers, an epoll that watches files, an eventfd and a timer in it.

It keeps what epoll(7) says and `PollerProtocol` asks: level-triggered; an interest is in the *file* under a number,
so closing the number's last reference drops it, and with a dup alive it goes on being reported and cannot be told
otherwise (H11).  Each call is one step, as a system call is.  And a host loop beside it that turns when the scheduler
lets it.
"""

from __future__ import annotations

import collections
import errno
import functools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tests.model_checking.scheduler import UNSEEN, Op, Run
from tests.model_checking.watched import Now, point

UNSEEN.add(__file__)

if TYPE_CHECKING:
    from tests.model_checking.invariants import Ledger

IN = 1
EVENT, TIMER = 1001, 1002
A, B, C = 10, 11, 12
LOOKED_AT = ("event", "timer", ("number", A), ("number", B), ("number", C))
SLEEPS = ("soon", *LOOKED_AT, "clock", ("Registry", "refusal"))


class File:
    """Something that can be read: so many units are left in it."""

    def __init__(self, name: str, unread: int, dup: bool = False) -> None:
        self.name = name
        self.unread = unread
        self.written = unread  # ever
        self.dup = dup  # does somebody else keep it open?


def call(function: Any) -> Any:
    """A system call: what it tells is seen, and what it changes is noted."""

    @functools.wraps(function)
    def called(self: Kernel, *args: Any) -> Any:
        try:
            found = function(self, *args)
        except OSError as error:
            Now.run.saw(error.errno)
            raise
        Now.run.saw(tuple(found) if isinstance(found, list) else found)
        Now.run.protected["kernel"] = self.state()
        return found

    return called


class Kernel:
    """`PollerProtocol`, and what owners do to their fds."""

    inner = (EVENT, TIMER)

    def __init__(self) -> None:
        self.numbers: dict[int, File] = {}
        self.interests: dict[tuple[int, File], int] = {}
        self.event = False
        self.deadline: int | None = None
        self.closed = False

    # -- the owners' side

    @call
    def open(self, fd: int, file: File) -> None:
        point(f"opens {file.name} as fd {fd}", (), (("number", fd),))
        self.numbers[fd] = file

    @call
    def close_number(self, fd: int) -> None:
        point(f"closes fd {fd}", (), (("number", fd),))
        file = self.numbers.pop(fd)
        if not file.dup:
            self.interests.pop((fd, file), None)

    @call
    def write(self, fd: int) -> None:
        point(f"writes to fd {fd}", (), (("number", fd),))
        self.numbers[fd].unread += 1
        self.numbers[fd].written += 1

    @call
    def drain(self, fd: int) -> int:
        """Read one unit; how many there were."""
        point(f"drains fd {fd}", (), (("number", fd),))
        file = self.numbers.get(fd)
        if file is None or not file.unread:
            return 0
        file.unread -= 1
        return file.unread + 1

    @call
    def fcntl(self, fd: int, what: int) -> int:
        point(f"fcntl of fd {fd}", (("number", fd),))
        self._file(fd)
        return 0

    # -- PollerProtocol

    def fileno(self) -> int:
        return 1000

    @call
    def add(self, fd: int, bits: int) -> None:
        point(f"epoll ADD {fd}", (), (("number", fd),))
        key = (fd, self._file(fd))
        if key in self.interests:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.interests[key] = bits

    @call
    def modify(self, fd: int, bits: int) -> None:
        point(f"epoll MOD {fd}", (), (("number", fd),))
        self.interests[self._known(fd)] = bits

    @call
    def remove(self, fd: int) -> None:
        point(f"epoll DEL {fd}", (), (("number", fd),))
        del self.interests[self._known(fd)]

    @call
    def poll(self, limit: int) -> list[tuple[int, int]]:
        point("epoll_wait", (*LOOKED_AT[2:], "clock"), ("event", "timer"))
        events = self.ready()[:limit]
        self.event = False
        if self.is_due():
            self.deadline = None
        return events

    @call
    def wake(self) -> None:
        point("writes the eventfd", (), ("event",))
        self.event = True

    @call
    def arm(self, deadline: int) -> None:
        point("arms the timerfd", (), ("timer",))
        self.deadline = deadline

    @call
    def rebuild(self, armed: Iterable[tuple[int, int]]) -> list[int]:
        point("rebuilds the epoll", (), LOOKED_AT)
        wanted = list(armed)
        self.interests = {(fd, self.numbers[fd]): bits for fd, bits in wanted if fd in self.numbers}
        return [fd for fd, _ in wanted if fd not in self.numbers]

    @call
    def close(self) -> None:
        point("closes the epoll", (), LOOKED_AT)
        self.closed = True

    def state(self) -> Any:
        """All of it, but for what was closed."""
        numbers = tuple((fd, file.name, file.unread, bool(file.written), file.dup) for fd, file in self.numbers.items())
        interests = tuple(
            (fd, file.name, bool(file.unread), self.numbers.get(fd) is file, bits)
            for (fd, file), bits in self.interests.items()
        )
        return numbers, interests, self.event, self.deadline, self.closed, Now.clock

    # -- what is so

    def _file(self, fd: int) -> File:
        if fd not in self.numbers:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.numbers[fd]

    def _known(self, fd: int) -> tuple[int, File]:
        key = (fd, self._file(fd))
        if key not in self.interests:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return key

    def is_due(self) -> bool:
        return self.deadline is not None and self.deadline <= Now.clock

    def ready(self) -> list[tuple[int, int]]:
        events = [(EVENT, IN)] if self.event else []
        if self.is_due():
            events.append((TIMER, IN))
        return events + [(fd, IN) for (fd, file), bits in self.interests.items() if bits & IN and file.unread]

    def readable(self) -> bool:
        return not self.closed and bool(self.ready())


class TurningHost:
    """A `HostLoop` that turns on the task ``loop``."""

    name = "interleaved"

    def __init__(self, run: Run, kernel: Kernel, ledger: Ledger) -> None:
        self.run = run
        self.kernel = kernel
        self.ledger = ledger
        self.callback: Callable[[], None] | None = None
        self.soon: collections.deque[Callable[[], None]] = collections.deque()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self.callback = callback

    def unwatch(self, fd: int) -> None:
        self.callback = None

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.ledger.foreign("the host")
        point("leaves the host a call", (), ("soon",))
        self.soon.append(callback)
        Now.run.protected["soon"] = len(self.soon)

    def is_loop_thread(self) -> bool:
        return self.run.running is None or self.run.running.number == 0

    def report(self, exception: BaseException, context: str) -> None:
        self.ledger.reports(exception)

    def next(self) -> str:
        """What it would do now.  Of a closed bridge that has not looked away yet nothing: its pass returns at once, so
        that the host spins until the call that is on its way has come.
        """
        if self.soon:
            return "a call"
        if self.callback is not None and self.kernel.readable() and self.ledger.registry.__dict__["refusal"] is None:
            return "a pass"
        return ""

    def turn(self) -> bool:
        """Call what is to be called; False if that is nothing."""
        what = self.next()
        Now.run.saw(what)
        if what == "a call":
            callback = self.soon.popleft()
            Now.run.protected["soon"] = len(self.soon)
            callback()
        elif what:
            self.ledger.turned(+1)
            try:
                self.callback()
            finally:
                self.ledger.turned(-1)
        return bool(what)

    def loop(self, others: list[Any]) -> None:
        """Turn until nobody is left to give it work; asleep meanwhile."""
        sleep = Op("sleeps", SLEEPS, (), lambda: bool(self.next()) or all(task.finished for task in others))
        while True:
            Now.run.point(sleep)
            if not self.turn():
                return
