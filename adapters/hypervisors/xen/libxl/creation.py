"""Domains made by libxl, out of a definition: begun with a how, awaited, and let go once they are whole.

libxl makes every domain paused.  Where it fails, or is cut short, it takes away what it has made itself.  A worker's
thread, all of it, which may block.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from typing import Any

from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request

from ..call import Awaited, Steps
from ..errors import no_such
from ..session import XenSession
from .context import Context
from .definitions import Config

NEEDED = ("libxl_domain_create_new", "libxl_domain_config_from_json")
"""Without these a libxl cannot."""


class Creation:
    """Of one session."""

    def __init__(self, session: XenSession, context: Context) -> None:
        self._session = session
        self._context = context

    def create(self, request: Request) -> Steps:
        definition = request.arguments.get("definition")
        if definition is None:
            raise HypervisorError(f"{self._context.uri}: cannot create a domain without a definition of it")
        library, domid = self._context.library, ctypes.c_uint32()
        with Config(self._context) as config:
            config.read(definition)
            operation = self._context.start(
                "create",
                None,
                lambda how: library.libxl_domain_create_new(
                    self._context.pointer, config.room, ctypes.byref(domid), how, None
                ),
            )
            self._session.cuts_short(request, operation.abort)
            yield config.lent_to(operation)
        return (yield from self.made(request, domid.value))

    def made(self, request: Request, domid: int) -> Generator[Awaited, None, DomainRef]:
        """It is whole, and paused still."""
        if not request.arguments.get("paused"):
            try:
                yield self._context.unpause(domid)
            except HypervisorError:
                yield self._context.destroy(domid)
                raise
        return self.ref(domid)

    def ref(self, domid: int) -> DomainRef:
        facts: Any = self._context.domains.one(domid)
        if facts is None:
            raise no_such(self._context.uri, DomainRef(None, None, domid), "it has ended already")
        return DomainRef(self._context.domains.name(domid), facts.get("uuid"), domid)
