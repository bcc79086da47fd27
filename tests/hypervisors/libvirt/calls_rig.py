"""What is asked of a session under test, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from eventbridge.adapters.hypervisors.libvirt.session import LibvirtSession
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress
from tests.support.patience import PATIENCE


class Answer:
    """`eventbridge.hypervisor.request.Reply`: what one request got."""

    def __init__(self) -> None:
        self.request: Request
        self.ends: list[tuple[Any, BaseException | None]] = []
        self.progresses: list[Progress] = []
        self.progressing = threading.Event()
        self._ended = threading.Event()

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self.ends.append((value, error))
        self._ended.set()

    def progressed(self, request: Request, progress: Progress) -> None:
        assert not self.ends, "told after the end"
        self.progresses.append(progress)
        self.progressing.set()

    def wait(self, seconds: float) -> bool:
        """Has it ended by then?"""
        return self._ended.wait(seconds)

    def get(self) -> Any:
        """The value; raises the error."""
        assert self.wait(PATIENCE), f"{self.request!r} gets no answer"
        [(value, error)] = self.ends
        if error is not None:
            raise error
        return value

    @property
    def done(self) -> bool:
        return self._ended.is_set()


def ask(
    session: LibvirtSession, operation: str, domain: Any = None, deadline: float | None = None, **given: Any
) -> Answer:
    """Begin it; ``domain`` is a `DomainRef` or a name."""
    answer = Answer()
    wanted = DomainRef(domain) if isinstance(domain, str) else domain
    answer.request = Request(operation, wanted, given, answer, deadline)
    session.begin(answer.request)
    return answer


def do(session: LibvirtSession, operation: str, domain: Any = None, **given: Any) -> Any:
    """Have it done, and return the answer or raise the error."""
    return ask(session, operation, domain, **given).get()


def soon(condition: Callable[[], bool]) -> bool:
    """Wait for what other threads do."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        threading.Event().wait(0.001)
    return True


def threads_of(uri: str) -> list[str]:
    """The names of those that its sessions have."""
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(uri)]


class Refusal(libvirt.libvirtError):  # type: ignore[misc]  # libvirt-python has no types
    """A stand-in for what libvirt raises, with a code of the test's choice."""

    def __init__(self, code: int, message: str = "the stand-in's words") -> None:
        Exception.__init__(self, message)
        self.err = (code, 0, message, 0, None, None, None, 0, 0)
