"""What is done with one QEMU, as scripts: generators that yield commands and are sent the replies.

``reply = yield Command("query-status")`` reads as if it waited, and no thread does.  A `Player` plays any number of
them at once, sans-IO: commands go out by a function, replies and time come in by methods.  All of it on one thread at a
time, the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeAlias

from eventbridge.errors import ConnectionLost, EventBridgeError

from .codec import Failure, Return, WireError


@dataclass(frozen=True, slots=True)
class Command:
    """Is sent its return value; `CommandFailed` is raised where it yields.  ``oob``: past those that wait.  ``fd`` is
    passed along (SCM_RIGHTS), for ``getfd``; it stays the script's, and open until the reply.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    oob: bool = False
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Until something has happened (`Player.wake`), or ``seconds`` have passed (None: never)."""

    seconds: float | None = None


Step: TypeAlias = Command | Wait
Script: TypeAlias = Generator[Step, Any, Any]
Done: TypeAlias = Callable[[Any, BaseException | None], object]


class CommandFailed(Exception):
    """QEMU refused a command.  For scripts; whoever asked is told by another."""

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(description)
        self.command = command
        self.error_class = error_class
        self.description = description


class QemuEnded(ConnectionLost):
    """Its end of the connection was closed: QEMU has ended."""


class GivenUp(EventBridgeError):
    """Whoever asked waits no more, and the rest of it was left undone."""


class Running:
    """One script that is played."""

    __slots__ = ("awaits", "done", "given_up", "inside", "name", "script", "until", "waits", "woken")

    def __init__(self, script: Script, done: Done) -> None:
        self.script = script
        self.done = done
        self.awaits: int | None = None
        """The command under way, by its id."""
        self.name = ""
        self.waits = False
        self.until: float | None = None
        self.woken = False
        self.given_up = False
        self.inside = False


class Player:
    """``send(id, command)`` has a command sent; ``unsend(id)`` takes it back, False where it is on its way already.

    Ids are counted from ``after`` on, which no two connections should share: a QEMU that was slow answers the client
    before us on our connection.
    """

    def __init__(
        self,
        send: Callable[[int, Command], object],
        unsend: Callable[[int], bool],
        now: Callable[[], float] = monotonic,
        after: int = 0,
    ) -> None:
        self._send = send
        self._unsend = unsend
        self._now = now
        self._after = self._last = after
        self._awaited: dict[int, Running] = {}
        self._waiting: dict[Running, None] = {}
        self._playing: dict[Running, None] = {}
        self._ended: ConnectionLost | None = None

    def __len__(self) -> int:
        """How many are played."""
        return len(self._playing)

    def play(self, script: Script, done: Done) -> Running:
        """``done(value, error)`` is called once, in the end, with what the script returned or raised."""
        running = Running(script, done)
        self._playing[running] = None
        self._advance(running, None)
        return running

    def reply(self, message: Return | Failure) -> None:
        """Go on with the script that asked; a reply to another client's command is skipped.

        Raises:
            WireError: it has no id, or one that has been answered.
        """
        try:
            running = self._awaited.pop(message.id)
        except (KeyError, TypeError):
            if not self._is_ours(message.id):
                return
            said = f": {message.description}" if isinstance(message, Failure) else ""
            raise WireError(f"a reply to command {message.id!r}, which nobody waits for{said}") from None
        running.awaits = None
        if isinstance(message, Return):
            self._advance(running, message.value)
        else:
            self._advance(running, None, CommandFailed(running.name, message.error_class, message.description))

    def _is_ours(self, id: Any) -> bool:
        """Whether a reply with that id answers this client; one without any does, as to a line that was no JSON."""
        return id is None or (isinstance(id, int) and self._after < id <= self._last)

    def wake(self) -> None:
        """Something has happened: whoever waits goes on, and who is about to wait does not."""
        for running in self._playing:
            running.woken = running not in self._waiting
        self._resume(list(self._waiting))

    def deadline(self) -> float | None:
        """When `tick` is due, in seconds of the clock."""
        return min((running.until for running in self._waiting if running.until is not None), default=None)

    def tick(self) -> None:
        """Whose time has come goes on."""
        now = self._now()
        self._resume([running for running in self._waiting if running.until is not None and running.until <= now])

    def give_up(self, running: Running) -> None:
        """Send no further command for it.  It is done when the one under way is: at once, where that is not sent."""
        running.given_up = True
        if running.awaits is not None and self._unsend(running.awaits):
            del self._awaited[running.awaits]
            self._advance(running, None, GivenUp("it was given up before QEMU was told"))

    def end(self, error: ConnectionLost) -> None:
        """There will be no more replies.  The first error counts."""
        if self._ended is None:
            self._ended = error
        self._awaited.clear()
        for running in list(self._playing):
            running.awaits = None
            self._advance(running, None, self._ended)

    def _resume(self, some: Iterable[Running]) -> None:
        for running in some:
            if running in self._waiting:  # those before may have ended it
                self._advance(running, None)

    def _advance(self, running: Running, value: Any, error: BaseException | None = None) -> None:
        if running.inside:
            return None  # from within it: whoever it tells of its progress runs the loop, and it goes on after that
        self._waiting.pop(running, None)
        while True:
            running.inside = True
            try:
                step = running.script.send(value) if error is None else running.script.throw(error)
            except StopIteration as stop:
                return self._finish(running, stop.value, None)
            except Exception as failure:
                return self._finish(running, None, failure)
            finally:
                running.inside = False
            value, error = None, self._begin(running, step)
            if error is None and (running.awaits is not None or running in self._waiting):
                return None

    def _begin(self, running: Running, step: Step) -> BaseException | None:
        """None where it is under way, or over already."""
        if self._ended is not None:
            return self._ended
        if isinstance(step, Command):
            if running.given_up:
                return GivenUp(f"it was given up before {step.name}")
            self._last += 1
            running.awaits, running.name = self._last, step.name
            self._awaited[self._last] = running
            self._send(self._last, step)
        elif running.woken:
            running.woken = False
        else:
            self._waiting[running] = None
            running.until = None if step.seconds is None else self._now() + step.seconds
        return None

    def _finish(self, running: Running, value: Any, error: BaseException | None) -> None:
        del self._playing[running]
        running.done(value, error)
