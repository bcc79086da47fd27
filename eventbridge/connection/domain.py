"""A domain to be asked things: what `Connection.domains` gives.

It is a name and no more: it holds nothing of the hypervisor's, and goes on working when the hypervisor was lost and is
back, or the domain has stopped and runs again.  Every method begins a `Call` and returns at once; ``timeout`` is in
seconds, for the domain's job and the hypervisor's answer together, and 30 unless said otherwise;
``of`` is the token of an asynchronous job that is held (`Domain.hold`), of which the call is a part.  Any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventbridge.hypervisor.model import ConsoleInfo, ConsoleKind, DomainInfo, DomainRef, State
from eventbridge.jobs import AsyncHold, Job, JobInfo, Ticket

from .call import Call, LongCall
from .console import ConsoleSession
from .console_session import ConsoleStream, OnData, OnEnd, open_console
from .inventory import KnownDomain

if TYPE_CHECKING:
    from .connection import Connection


class Domain:
    """One domain of ``connection``.  Two of one domain are equal."""

    __slots__ = ("_ref", "connection")

    def __init__(self, connection: Connection, ref: DomainRef) -> None:
        self.connection = connection
        self._ref = ref

    # -- what is known of it, without asking

    @property
    def ref(self) -> DomainRef:
        """Its names as they are now; its id while it runs."""
        known = self._known
        return self._ref if known is None else known.ref

    @property
    def name(self) -> str | None:
        return self.ref.name

    @property
    def uuid(self) -> str | None:
        return self.ref.uuid

    @property
    def id(self) -> int | None:
        return self.ref.id

    @property
    def state(self) -> State | None:
        """As its events say; None where it does not exist."""
        known = self._known
        return None if known is None else known.state

    @property
    def job(self) -> JobInfo | None:
        """Who holds it, for what, since when; None where nobody does."""
        return self.connection.jobs.running(self._key)

    # -- asking

    def info(self, *, nowait: bool = False, timeout: float | None = None, of: Ticket | None = None) -> Call[DomainInfo]:
        """How it is.  ``nowait``: `JobBusy` at once, where it would have to wait for somebody."""
        return self._ask("info", timeout, nowait=nowait, of=of)

    def console_info(
        self, kind: ConsoleKind | None = None, number: int = 0, *, timeout: float | None = None
    ) -> Call[ConsoleInfo]:
        """Where its console ``number`` (from 0) of that kind is; the first there is, where nothing is said."""
        return self._ask("console_info", timeout, kind=kind, number=number)

    def start(self, *, paused: bool = False, timeout: float | None = None) -> Call[None]:
        """Run it."""
        return self._ask("start", timeout, paused=paused)

    def suspend(self, *, timeout: float | None = None, of: Ticket | None = None) -> Call[None]:
        """Stop its processors."""
        return self._ask("suspend", timeout, of=of)

    def resume(self, *, timeout: float | None = None, of: Ticket | None = None) -> Call[None]:
        """Let its processors go on."""
        return self._ask("resume", timeout, of=of)

    def shutdown(self, *, timeout: float | None = None, of: Ticket | None = None) -> Call[None]:
        """Ask its guest to; that it has is an event."""
        return self._ask("shutdown", timeout, of=of)

    def reboot(self, *, timeout: float | None = None, of: Ticket | None = None) -> Call[None]:
        """Ask its guest to; that it has is an event."""
        return self._ask("reboot", timeout, of=of)

    def destroy(self, *, timeout: float | None = None, of: Ticket | None = None) -> Call[None]:
        """End it, whatever its guest does and whoever holds it for long."""
        return self._ask("destroy", timeout, of=of)

    def undefine(self, *, timeout: float | None = None, of: Ticket | None = None) -> Call[None]:
        """Forget its definition."""
        return self._ask("undefine", timeout, of=of)

    # -- what takes long

    def save(self, path: str) -> LongCall[None]:
        """Put it into a file on the hypervisor's host, and end it; `Connection.restore` brings it back."""
        return self._ask_long("save", path=path)

    def managed_save(self) -> LongCall[None]:
        """Put it into a file that the hypervisor keeps, and end it; `start` brings it back."""
        return self._ask_long("managed_save")

    def migrate(
        self,
        destination: str | Domain | Connection,
        *,
        live: bool = True,
        bandwidth: int | None = None,
        downtime: int | None = None,
        **options: Any,
    ) -> LongCall[Any]:
        """Move it, while it runs where ``live``, to ``destination``: a URI that the hypervisor itself knows how to
        reach (libvirt), another connection of ours, or there a domain that waits to become it (QEMU started with
        ``-incoming defer``).

        ``bandwidth`` in bytes/s and ``downtime`` in ms are limits.  Whatever fails, on either side, the domain goes on
        running where it was, and the error says what failed, and where.  Only where nobody can know whether it runs at
        its destination by now, which hangs or was lost in that moment, it stands still here, as the error then says: it
        never runs twice.
        """
        from .migration import migrate

        return migrate(self, destination, {"live": live, "bandwidth": bandwidth, "downtime": downtime, **options})

    def set_bandwidth(self, bandwidth: int, *, timeout: float | None = None) -> Call[None]:
        """Of the migration that is under way, in bytes/s."""
        return self._ask("set_bandwidth", timeout, bandwidth=bandwidth)

    def set_downtime(self, downtime: int, *, timeout: float | None = None) -> Call[None]:
        """Of the migration that is under way, in ms."""
        return self._ask("set_downtime", timeout, downtime=downtime)

    def abort_job(self) -> bool:
        """Have the long job that runs on it cut short, whoever's it is; False where none runs.  It fails with
        `JobAborted` when it has been.
        """
        return self.connection.jobs.abort(self._key)

    def hold(self, job: Job, **options: Any) -> AsyncHold:
        """``async with domain.hold(Job.MODIFY) as token:`` keeps others out for several steps, each of them called with
        ``of=token`` where the job is an asynchronous one.  Options: those of `Jobs.hold_async`.
        """
        return self.connection.jobs.hold_async(self._key, job, **options)

    # -- consoles

    def open_console(self, kind: ConsoleKind | None = None, number: int = 0) -> ConsoleSession:
        """``async with domain.open_console() as stream:`` its bytes, both ways."""
        return ConsoleSession(self, kind, number)

    def stream_console(self, info: ConsoleInfo, on_data: OnData, on_end: OnEnd = lambda error: None) -> ConsoleStream:
        """The same with callbacks, of what `console_info` has answered."""
        return open_console(self.connection.bridge, info, on_data, on_end)

    # --

    @property
    def _key(self) -> Any:
        return self.connection.known.key(self._ref)

    @property
    def _known(self) -> KnownDomain | None:
        return self.connection.known.get(self._key)

    def _ask(
        self, operation: str, timeout: float | None, *, nowait: bool = False, of: Ticket | None = None, **arguments: Any
    ) -> Call[Any]:
        return self.connection.ask(operation, self.ref, arguments=arguments, seconds=timeout, nowait=nowait, of=of)

    def _ask_long(self, operation: str, **arguments: Any) -> LongCall[Any]:
        return self.connection.ask_long(operation, self.ref, arguments=arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and other.connection is self.connection and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<Domain {self.name or self.uuid or self.id} of {self.connection.uri}: {self.state or 'not there'}>"
