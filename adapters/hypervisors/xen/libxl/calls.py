"""What can be asked of libxl 4.2 and later: the operations of ``libxl:///``, as a table.

Those that libxl does by itself are begun with a how and awaited as steps (``..xen.steps``): no thread waits for them.
Xen counts pauses, and refuses to unpause what runs; so how a domain is, is looked at before.  A worker's thread, all of
it, which may block.
"""

from __future__ import annotations

from collections.abc import Callable

from eventbridge.hypervisor.model import ConsoleInfo, DomainInfo, DomainRef
from eventbridge.hypervisor.request import Request

from ..call import Steps
from ..console import wanted
from ..errors import no_such
from ..session import Table, XenSession
from ..support.reasons import SHUTDOWN
from . import domains
from .async_operation import Operation
from .consoles import console_info
from .context import Context
from .domains import Facts

SUSPENDED = next(number for number, meant in SHUTDOWN.items() if meant.name == "suspend")


class LibxlCalls:
    """See above; ``table`` has them by name."""

    def __init__(self, session: XenSession, context: Context) -> None:
        self.session = session
        self.context = context
        self.table: Table = {
            "list": self.list,
            "info": self.info,
            "console_info": self.console_info,
            "suspend": self.suspend,
            "resume": self.resume,
            "shutdown": lambda request: self._asked(request, context.shutdown),
            "reboot": lambda request: self._asked(request, context.reboot),
            "destroy": self.destroy,
        }

    # -- looks

    def list(self, request: Request) -> list[DomainInfo]:
        return [self.told(facts) for facts in self.context.domains.all() if not domains.is_dying(facts)]

    def info(self, request: Request) -> DomainInfo:
        assert request.domain is not None
        return self.told(self.facts(self.session.find(request.domain)))

    def console_info(self, request: Request) -> ConsoleInfo:
        assert request.domain is not None
        kind, number = wanted(request)
        domid = self.session.find(request.domain).id or 0
        return console_info(self.context, self.session.store, domid, kind, number)

    def facts(self, ref: DomainRef) -> Facts:
        """`NoSuchDomain` where it has ended since."""
        facts = self.context.domains.one(ref.id or 0)
        if facts is None or facts.get("uuid") != ref.uuid:
            raise no_such(self.context.uri, ref)
        return facts

    def told(self, facts: Facts) -> DomainInfo:
        return self.session.named(domains.info(facts, self.context.domains.name(facts.get("domid", 0))))

    # -- changes

    def suspend(self, request: Request) -> Steps:
        domid, facts = self.seen(request)
        if not facts.get("paused"):
            yield self.context.pause(domid)
            self.session.lookout.paused(domid)

    def resume(self, request: Request) -> Steps:
        """A guest that has stopped itself to be saved goes on; one that is paused is let go."""
        domid, facts = self.seen(request)
        yield from self.let_go(domid, facts)

    def let_go(self, domid: int, facts: Facts) -> Steps:
        if domains.reason(facts) == SUSPENDED:
            yield self.context.resume(domid)
        if facts.get("paused"):
            yield self.context.unpause(domid)
            self.session.lookout.unpaused(domid)

    def destroy(self, request: Request) -> Steps:
        yield self.context.destroy(self.session.domid_of(request))

    def _asked(self, request: Request, ask: Callable[[int], Operation]) -> Steps:
        """libxl waits until the guest has heard it: a deaf one for a minute."""
        operation = ask(self.session.domid_of(request))
        self.session.cuts_short(request, operation.abort)
        yield operation

    def seen(self, request: Request) -> tuple[int, Facts]:
        domid = self.session.domid_of(request)
        facts = self.context.domains.one(domid)
        if facts is None:
            raise self.context.domains.no_such(domid)
        return domid, facts
