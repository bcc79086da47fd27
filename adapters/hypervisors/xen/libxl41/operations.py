"""What can be asked of libxl 4.1: the operations of ``libxl:///``, as a table.

Each is a call that blocks until 4.1 has done it, on a worker's thread.  4.1 saves and restores in the caller's own
thread and process, and knows no how and no abort: that is left out.
"""

from __future__ import annotations

from typing import Any

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import ConsoleInfo, DomainInfo
from eventbridge.hypervisor.request import Request

from ..console import console_info, wanted
from ..errors import no_such
from ..resolve import Resolver
from ..session import Table, XenSession
from .context import Context, reason
from .toolstack import Libxl41Toolstack
from .types import DomInfo


class Libxl41Calls:
    """See above; ``table`` has them by name."""

    def __init__(self, session: XenSession, context: Context) -> None:
        self._session = session
        self._context = context
        self.table: Table = {
            "list": self._list,
            "info": self._info,
            "console_info": self._console_info,
            "suspend": self._suspend,
            "resume": self._resume,
            "shutdown": lambda request: self._do("shutdown", session.domid_of(request)),
            "reboot": lambda request: self._do("reboot", session.domid_of(request)),
            "destroy": lambda request: self._do("destroy", session.domid_of(request)),
        }

    def _list(self, request: Request) -> list[DomainInfo]:
        context = self._context
        return [self._session.named(context.told(found)) for found in context.list() if not found.dying]

    def _info(self, request: Request) -> DomainInfo:
        assert request.domain is not None
        return self._session.named(self._context.told(self._seen(request, self._session.find(request.domain).id or 0)))

    def _console_info(self, request: Request) -> ConsoleInfo:
        assert request.domain is not None
        return console_info(self._session.store, self._session.find(request.domain).id or 0, *wanted(request))

    def _suspend(self, request: Request) -> None:
        domid = self._session.domid_of(request)
        if not self._seen(request, domid).paused:
            self._do("pause", domid)
            self._session.lookout.paused(domid)

    def _resume(self, request: Request) -> None:
        domid = self._session.domid_of(request)
        found = self._seen(request, domid)
        if reason(found) is not None:
            raise HypervisorError(
                f"{self._context.uri}: domain {domid} has stopped itself, which libxl 4.1 cannot undo from here: "
                "destroy it, or resume it with the toolstack that was saving it"
            )
        if found.paused:
            self._do("unpause", domid)
            self._session.lookout.unpaused(domid)

    def _do(self, what: str, domid: int) -> None:
        self._context.request(self._session.bridge, what, domid)

    def _seen(self, request: Request, domid: int) -> DomInfo:
        found = self._context.one(domid)
        if found is None:
            assert request.domain is not None
            raise no_such(self._context.uri, request.domain)
        return found


def calls(session: XenSession, toolstack: Any) -> tuple[Resolver, Table]:
    """For `XenSession.open`."""
    assert isinstance(toolstack, Libxl41Toolstack)
    resolver = Resolver(session.uri, toolstack.ref, toolstack.refs)
    return resolver, Libxl41Calls(session, toolstack.context).table
