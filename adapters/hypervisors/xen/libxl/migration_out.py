"""A guest that moves from one session to another on the same host, through a pipe, as ``xl migrate`` does it.

The destination makes a domain out of the pipe, paused, under the guest's name with "--incoming".  The source streams
the guest into it; until it is whole over there whatever fails, at either side, leaves it running where it was.  Then
the destination gives the domain its name and lets it go, and the source ends what stands still here, or has it go on
where the destination could not.  For as long as there are two, both have the guest's UUID.  A worker's thread, all of
it, which may block.
"""

from __future__ import annotations

import contextlib
import json
import os

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request

from ..call import Steps
from ..errors import name_of
from ..resolve import AWAY, INCOMING
from ..session import XenSession
from . import migration_in
from .calls import LibxlCalls
from .context import Context
from .definitions import Config, definition_of
from .migration_in import Incoming
from .relay import Relay
from .save_restore import Saving
from .streams import Stream

NEEDED = ("libxl_domain_rename", "libxl_retrieve_domain_configuration")
_LIVE = 2  # LIBXL_SUSPEND_LIVE


class Migration:
    """Of one session, either end."""

    def __init__(self, session: XenSession, context: Context, calls: LibxlCalls, saving: Saving) -> None:
        self._session = session
        self._context = context
        self._calls = calls
        self._saving = saving

    # -- the destination

    def prepare(self, request: Request) -> str:
        source = self._session.find(_source(request))
        text = definition_of(self._context, source.id or 0)
        if text is None:
            raise HypervisorError(
                f"{self._context.uri}: {name_of(source)} cannot be migrated: libxl does not know its definition"
            )
        coming = Incoming(self._session, source)
        if not migration_in.expect(coming):
            coming.hang_up()
            os.close(coming.reader)
            raise HypervisorError(f"{self._context.uri}: {name_of(source)} is being migrated already")
        self._session.at_close.append(coming.hang_up)
        self._begin(coming, text)
        return coming.word

    def _begin(self, coming: Incoming, text: str) -> None:
        definition = json.loads(text)
        definition["c_info"]["name"] = f"{coming.source.name}{INCOMING}"
        config = Config(self._context)
        config.__enter__()
        try:
            config.read(definition)
            # Never aborted: it is the pipe's end that ends it.
            operation = self._context.start(
                "receive",
                None,
                lambda how: self._saving.stream_in(config, coming.domid, coming.reader, how),
                lambda: False,
            )
        except BaseException:
            self._over(coming, config)
            migration_in.forget(coming)
            raise
        coming.operation = config.lent_to(operation)
        operation.on_done(lambda operation: self._over(coming, config))

    def _over(self, coming: Incoming, config: Config) -> None:
        config.__exit__()
        os.close(coming.reader)
        coming.hang_up()
        with contextlib.suppress(ValueError):
            self._session.at_close.remove(coming.hang_up)

    def finish(self, request: Request) -> Steps:
        coming = self._expected(request)
        assert coming.operation is not None
        if not coming.operation.done:
            raise HypervisorError(f"{self._context.uri}: {name_of(coming.source)} has not come in yet")
        domid, name = coming.domid.value, coming.source.name or ""
        self._rename(domid, f"{name}{INCOMING}", name)
        for session in (self._session, coming.sender or self._session):
            session.lookout.renamed(domid, name)
        yield self._context.unpause(domid)
        migration_in.forget(coming)
        return self._calls.told(self._calls.facts(DomainRef(name, coming.source.uuid, domid)))

    def cancel(self, request: Request) -> Steps:
        coming = self._expected(request)
        assert coming.operation is not None
        coming.hang_up()
        with contextlib.suppress(HypervisorError):  # as it should
            yield coming.operation
        if coming.operation.error is None:
            yield self._context.destroy(coming.domid.value)
        migration_in.forget(coming)

    def _expected(self, request: Request) -> Incoming:
        source = _source(request)
        coming = migration_in.of(self._session, source)
        if coming is None:
            raise HypervisorError(
                f"{self._context.uri}: no {name_of(source)} is coming in: migrate_prepare begins that",
                operation=request.operation,
                domain=name_of(source),
            )
        return coming

    # -- the source

    def migrate(self, request: Request) -> Steps:
        """Where it is to be confirmed, what is left of it here stands still, under another name, until it is."""
        coming = self._there(request)
        domid, total = self._saving.of(request)
        name = self._context.domains.name(domid) or ""
        yield from self._send(request, coming, domid, total)
        for session in (self._session, coming.session):
            session.lookout.leaving(domid)
        if request.arguments.get("confirm"):
            self._rename(domid, name, f"{name}{AWAY}")
        else:
            yield self._context.destroy(domid)

    def _send(self, request: Request, coming: Incoming, domid: int, total: int) -> Steps:
        """It is whole over there afterwards; where that fails, it goes on here."""
        assert coming.operation is not None
        writer = None if coming.operation.done else coming.take_writer()
        if writer is None:
            raise HypervisorError(f"{self._context.uri}: what listened at {coming.word} has ended, or listens no more")
        coming.sender = self._session
        flags = _LIVE if request.arguments.get("live") else 0
        relay = Relay(writer)
        try:
            stream = Stream(self._session, self._context, request, relay.position, total)
            yield from self._saving.stream_out(request, domid, relay.fd, stream, flags)
        finally:
            relay.close()
        try:
            yield coming.operation
        except HypervisorError as error:
            yield from self._saving.put_back(request, domid, error)

    def confirm(self, request: Request) -> Steps:
        """It runs over there: what is left of it here is ended; or it does not: it goes on here."""
        domid = self._session.domid_of(request)
        if request.arguments.get("succeeded"):
            yield self._context.destroy(domid)
            return
        name = self._context.domains.name(domid) or ""
        if name.endswith(AWAY):
            self._rename(domid, name, name.removesuffix(AWAY))
        self._session.lookout.stays(domid)
        _, facts = self._calls.seen(request)
        yield from self._calls.let_go(domid, facts)

    def _rename(self, domid: int, before: str, after: str) -> None:
        self._context.call("libxl_domain_rename", domid, before.encode(), after.encode(), domid=domid)

    def _there(self, request: Request) -> Incoming:
        asked = request.arguments
        if asked.get("bandwidth") or asked.get("downtime"):
            raise HypervisorError(f"{self._context.uri}: libxl limits neither bandwidth nor downtime: leave them out")
        coming = migration_in.find(str(asked.get("to")))
        if coming is None:
            raise HypervisorError(
                f"{self._context.uri}: nobody listens at {asked.get('to')!r}: a guest moves between two sessions of "
                "one host, to where migrate_prepare says"
            )
        return coming


def _source(request: Request) -> DomainRef:
    source = request.arguments.get("source")
    if not isinstance(source, DomainRef):
        raise HypervisorError(f"{request.operation}: the DomainRef of who comes is needed, as source")
    return source
