"""What can be asked of xenstored: the operations of ``xenstore:///``, as a table.

xenstored keeps what a toolstack has written, and knows of a domain that it is there.  So a domain's state is "running"
for as long as it is, its memory is what it was told to use, and the rest is None; and of all that can be done to one it
can pass on what a guest does by itself, which is to shut down and to reboot (docs/misc/xenstore-paths.pandoc of Xen).
A worker's thread, all of it, which may block.
"""

from __future__ import annotations

import errno
from typing import Any

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import ConsoleInfo, DomainInfo, DomainRef, State
from eventbridge.hypervisor.request import Request

from ..console import console_info, wanted
from ..errors import no_such
from ..resolve import Resolver
from ..session import Table, XenSession
from ..xenstore.store import NO_TRANSACTION, Store, atomically

_HOME = "/local/domain"
_NOT_THERE = (errno.ENOENT, errno.EACCES)


class Domains:
    """The domains as the store has them, domain 0 included."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def refs(self) -> list[DomainRef]:
        """Those that live, with all that they are called."""
        domids = sorted(int(name) for name in self._store.list(_HOME) if name.isdecimal())
        return [ref for domid in domids if (ref := self.look(domid)) is not None]

    def look(self, domid: int) -> DomainRef | None:
        """None where there is none; one that is about to end has lost its nodes already, and is none any more."""
        return self._named(domid) if domid == 0 or self._store.is_introduced(domid) else None

    def info(self, ref: DomainRef) -> DomainInfo:
        home = f"{_HOME}/{ref.id}"
        return DomainInfo(
            ref,
            State.RUNNING,
            vcpus=self._vcpus(home),
            memory=_number(self._read(f"{home}/memory/target")),
            max_memory=_number(self._read(f"{home}/memory/static-max")),
            persistent=False,
        )

    def ask(self, ref: DomainRef, word: str) -> bool:
        """Put a word into its control/shutdown, where it is still the same domain: otherwise False."""

        def work(transaction: int) -> bool:
            if self._named(ref.id or 0, transaction) != ref:
                return False
            self._store.write(f"{_HOME}/{ref.id}/control/shutdown", word.encode(), transaction)
            return True

        return atomically(self._store, work)

    def _named(self, domid: int, transaction: int = NO_TRANSACTION) -> DomainRef | None:
        vm = self._read(f"{_HOME}/{domid}/vm", transaction)
        name = self._read(f"{_HOME}/{domid}/name", transaction)
        if vm is name is None:
            return None
        return DomainRef(name, vm.rpartition("/")[2].lower() if vm else None, domid)

    def _vcpus(self, home: str) -> int | None:
        """Those that are online."""
        try:
            names = self._store.list(f"{home}/cpu")
        except HypervisorError as error:
            if error.code in _NOT_THERE:
                return None
            raise
        return sum(self._read(f"{home}/cpu/{name}/availability") == "online" for name in names)

    def _read(self, path: str, transaction: int = NO_TRANSACTION) -> str | None:
        try:
            return self._store.read(path, transaction).decode(errors="replace")
        except HypervisorError as error:
            if error.code in _NOT_THERE:
                return None
            raise


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


class XenstoreCalls:
    """See above; ``table`` has them by name."""

    def __init__(self, session: XenSession, domains: Domains) -> None:
        self._session = session
        self._domains = domains
        self.table: Table = {
            "list": lambda request: [domains.info(ref) for ref in domains.refs()],
            "info": lambda request: domains.info(self._found(request)),
            "console_info": self._console_info,
            "shutdown": lambda request: self._ask(request, "poweroff"),
            "reboot": lambda request: self._ask(request, "reboot"),
        }

    def _found(self, request: Request) -> DomainRef:
        assert request.domain is not None
        return self._session.find(request.domain)

    def _console_info(self, request: Request) -> ConsoleInfo:
        return console_info(self._session.store, self._found(request).id or 0, *wanted(request))

    def _ask(self, request: Request, word: str) -> None:
        self._session.domid_of(request)  # refuses for domain 0
        ref = self._found(request)
        if not self._domains.ask(ref, word):
            raise no_such(self._session.uri, ref)


def calls(session: XenSession, toolstack: Any) -> tuple[Resolver, Table]:
    """For `XenSession.open`; its domains are looked at beside the lookout's toolstack, which is its worker's alone."""
    domains = Domains(session.store)
    return Resolver(session.uri, domains.look, domains.refs), XenstoreCalls(session, domains).table
