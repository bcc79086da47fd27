"""The one domain of one QEMU, as its scripts know it, and the words in which they refuse.  The loop's thread."""

from __future__ import annotations

from collections.abc import Callable

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress

from .run_state import Life
from .scripts import Command, CommandFailed, GivenUp, Script
from .transport import Address

NO_UUID = "00000000-0000-0000-0000-000000000000"
"""What QEMU answers where it was given none."""


class Vm:
    """``wake()`` has the scripts that wait look again: any thread.  ``tell(request, progress)`` never raises."""

    def __init__(
        self,
        uri: str,
        address: Address,
        ref: DomainRef,
        life: Life,
        wake: Callable[[], object],
        tell: Callable[[Request, Progress], object],
    ) -> None:
        self.uri = uri
        self.address = address
        self.ref = ref
        self.life = life
        self.wake = wake
        self.tell = tell
        self.should_run = life.running
        """Is it wanted running, whatever a migration has made of it for now?"""
        self.unconfirmed = False
        """Has it gone over, and does it wait to be told whether it runs there?"""
        self.limits: dict[str, int] = {}
        """Of migrations, as they were before one that had its own."""
        self.listening: str | None = None
        """Where it waits for a migration to come in."""

    def check(self, request: Request) -> None:
        """`NoSuchDomain` where it is about somebody else."""
        asked, ref = request.domain, self.ref
        if asked is None:
            return
        uuid = None if asked.uuid is None else asked.uuid.lower()
        known = ((ref.uuid, uuid), (ref.name, asked.name), (ref.id, asked.id))
        decides = next((pair for pair in known if None not in pair), (True, False))
        if decides[0] == decides[1]:
            return
        raise NoSuchDomain(
            f"{request.operation}: there is no domain {asked.name or asked.uuid or asked.id!r} at {self.uri}, "
            f"only {self.ref.name}",
            operation=request.operation,
            domain=asked.name,
        )

    def refusal(self, operation: str, what: str) -> HypervisorError:
        return HypervisorError(
            f"cannot {operation.replace('_', ' ')} {self.ref.name}: {what}", operation=operation, domain=self.ref.name
        )

    def told(self, operation: str, error: BaseException) -> BaseException:
        """What whoever asked is told, of what a script raised."""
        if isinstance(error, CommandFailed):
            hint = _HINTS.get(error.error_class, "")
            return self.refusal(operation, f"QEMU refused {error.command}: {error.description}{hint}")
        if isinstance(error, GivenUp):
            return self.refusal(operation, str(error))
        if isinstance(error, ConnectionLost):
            return type(error)(f"cannot {operation.replace('_', ' ')} {self.ref.name}: {error}")
        if not isinstance(error, EventBridgeError):  # an argument, or an answer of QEMU's, of another kind than it has
            return self.refusal(operation, f"{type(error).__name__}: {error}")
        return error

    def status(self) -> Script:
        """QEMU's run state."""
        found = yield Command("query-status")
        return str(found.get("status"))


_HINTS = {"CommandNotFound": ": this QEMU is too old, or was built without it"}
