"""What a refusal of Xen's libraries means to whoever asked: which error it is, and what it is told with.

A library that finds nobody at the other end of its connection answers as it does for a hundred other reasons, and so
it does for a domain that has ended under its hands.  So both are looked at, once something has been refused.  Blocks:
a worker's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted

from .support.reasons import ABORTED, NO_SUCH_DOMAIN
from .xenstore.store import Store

DOMAIN_DESTROYED = -24

# libxl's code: the error that it is.  Whatever is not here is a `HypervisorError`.
CLASSES: dict[int, type[NoSuchDomain | JobAborted]] = {
    NO_SUCH_DOMAIN: NoSuchDomain,
    DOMAIN_DESTROYED: NoSuchDomain,
    ABORTED: JobAborted,
}


class Refusals:
    """Of one session.  ``find(ref)`` raises `NoSuchDomain` where a domain is not there."""

    def __init__(self, uri: str, store: Store, find: Callable[[DomainRef], DomainRef]) -> None:
        self._uri = uri
        self._store = store
        self._find = find

    def understood(self, request: Request, error: HypervisorError | ConnectionLost) -> EventBridgeError:
        """The error to refuse ``request`` with, instead of a library's own ``error``."""
        if isinstance(error, ConnectionLost):
            return self._lost(request, error)
        if isinstance(error, NoSuchDomain):
            return self._looked_at(request) or error  # who has no name any more may be there
        found = CLASSES.get(error.code or 0)
        if request.aborted and error.code is not None:
            found = JobAborted  # which a library may call by another name: libxl's restore fails then, no more
        if found is None:
            lost = self._looked_at(request)
            return told(request, error) if lost is None else lost
        if found is JobAborted:
            return JobAborted(str(told(request, error)))
        return NoSuchDomain(
            str(told(request, error)), code=error.code, operation=request.operation, domain=name_of(request.domain)
        )

    def _looked_at(self, request: Request) -> EventBridgeError | None:
        """Has xenstored gone, or the domain?"""
        try:
            self.must_live()
            if request.domain is not None:
                self._find(request.domain)
        except ConnectionLost as lost:
            return self._lost(request, lost)
        except NoSuchDomain as gone:
            return gone
        except HypervisorError:
            return None  # then what was refused first says more
        return None

    def _lost(self, request: Request, lost: ConnectionLost) -> ConnectionLost:
        return ConnectionLost(f"{self._uri}: cannot {request.operation}{of(request.domain)}: {lost}")

    def must_live(self) -> None:
        """`ConnectionLost` where xenstored has gone: libxl says nothing of that, but that domains have no names."""
        try:
            self._store.list("/")
        except HypervisorError:
            return  # a refusal is an answer


def told(request: Request, error: HypervisorError) -> HypervisorError:
    """The same, with the name of the domain that it was asked for by."""
    who = name_of(request.domain)
    words = str(error)
    if who is not None and who not in words:
        words = f"{words} (asked to {request.operation}{of(request.domain)})"
    return HypervisorError(words, code=error.code, operation=request.operation, domain=who or error.domain)


def no_such(uri: str, ref: DomainRef, words: str = "") -> NoSuchDomain:
    """``words``: what was found instead."""
    return NoSuchDomain(
        f"{uri}: there is no domain{named(ref)}{f': {words}' if words else ''}",
        code=NO_SUCH_DOMAIN,
        domain=name_of(ref),
    )


def name_of(ref: DomainRef | None) -> str | None:
    """What it is called by in an error."""
    if ref is None:
        return None
    return ref.name or ref.uuid or (None if ref.id is None else str(ref.id))


def of(ref: DomainRef | None) -> str:
    """As in "cannot destroy web"."""
    name = name_of(ref)
    return "" if name is None else f" {name}"


def named(ref: DomainRef) -> str:
    """All that it is called."""
    known = {"": ref.name, "uuid ": ref.uuid, "id ": ref.id}
    return " " + ", ".join(f"{what}{value}" for what, value in known.items() if value is not None)
