"""What takes long, while it takes: how far it is, and cutting it short.

libvirt's call for it blocks one worker from its beginning to its end, so another thread, over another connection, asks
for its progress and passes an abort on.  It asks every 100 ms, and is woken at once by an abort and by the end.  An
abort that comes before libvirt's own job has begun is refused there ("no job is active on the domain"); it is tried
again until it is taken.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import libvirt

from eventbridge.errors import ConnectionLost
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress

from .connection_pool import Connections
from .domains import find

POLL_SECONDS = 0.1

# Progress's fields by virDomainGetJobStats's (libvirt-domain.h, VIR_DOMAIN_JOB_*): bytes, bytes/s, ms.
STATS: dict[str, str] = {
    "total": "data_total",
    "processed": "data_processed",
    "remaining": "data_remaining",
    "rate": "memory_bps",
    "downtime": "downtime",
}
# By its place in what virDomainGetJobInfo answers, of drivers that have only that.
INFO: dict[str, int] = {"total": 3, "processed": 4, "remaining": 5}

_ABORT, _END = "abort", "end"


class Overseer:
    """Of one request, whose job in libvirt is on ``domain``.  `aborted`: has libvirt agreed to cut it short?"""

    def __init__(self, connections: Connections, uri: str, domain: DomainRef, request: Request) -> None:
        self.aborted = False
        self._connections = connections
        self._uri = uri
        self._wanted = domain
        self._request = request
        self._told: Progress | None = None
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ways: list[Callable[[Any], Progress | None]] = [_by_stats, _by_info]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Around libvirt's call.  Its thread has ended, or is inside its last RPC, when this is left."""
        threading.Thread(target=self._run, name=f"overseer of {self._uri}", daemon=True).start()
        self._request.abortable(lambda: self._inbox.put(_ABORT))
        try:
            yield
        finally:
            self._inbox.put(_END)

    # -- its thread

    def _run(self) -> None:
        with (
            contextlib.suppress(ConnectionLost, libvirt.libvirtError),
            self._connections.inside(self._uri) as connection,
        ):
            self._oversee(find(connection, self._wanted))

    def _oversee(self, domain: Any) -> None:
        aborting = False
        while (told := self._next()) != _END:
            aborting = aborting or told == _ABORT
            if aborting and not self.aborted:
                self._abort(domain)
            else:
                self._poll(domain)

    def _next(self) -> str | None:
        try:
            return self._inbox.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None

    def _abort(self, domain: Any) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            domain.abortJob()
            self.aborted = True

    def _poll(self, domain: Any) -> None:
        """A driver that has no such call is not asked again."""
        if not self._ways:
            return
        try:
            progress = self._ways[0](domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                del self._ways[0]
            return
        if progress is not None and progress != self._told:
            self._told = progress
            self._request.tell(progress)


def _by_stats(domain: Any) -> Progress | None:
    stats: Mapping[str, Any] = domain.jobStats()
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return _progress({field: stats.get(key) for field, key in STATS.items()})


def _by_info(domain: Any) -> Progress | None:
    info = domain.jobInfo()
    if info[0] == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return _progress({field: info[place] for field, place in INFO.items()})


def _progress(fields: Mapping[str, Any]) -> Progress | None:
    """None where nothing is known yet: libvirt says 0 of 0 then."""
    return Progress(**fields) if any(fields.values()) else None
