"""A guest saved to a file and restored from it by libxl.

A save stops the guest, copies its memory, and destroys the domain once the copy is safe on the disk; its end is then
told as ``stopped``, "saved".  Where it fails or is cut short at any step before, the guest goes on and the file is
gone, and the error says so.  A worker's thread, all of it, which may block.
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import Any, NoReturn

from eventbridge.errors import EventBridgeError, HypervisorError
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted

from ..call import Steps, Wait
from ..session import XenSession
from ..support.reasons import ABORTED
from . import domains, types
from .calls import SUSPENDED, LibxlCalls
from .context import Context
from .creation import Creation
from .definitions import Config, definition_of
from .save_file import NewFile, definition_beside, opened, refusal
from .shutdown_watch import Stopping
from .streams import Stream, begins_well, offset

NEEDED = ("libxl_domain_suspend", "libxl_domain_resume")
NEEDED_TO_RESTORE = ("libxl_domain_create_restore", "libxl_domain_restore_params_from_json")
RESTORE_SINCE = (4, 7)
"""Before, libxl_domain_create_restore took other arguments (LIBXL_HAVE_DOMAIN_CREATE_RESTORE_SEND_BACK_FD)."""

_PARAMETERS = {"stream_version": 2}  # what libxl_domain_suspend writes from 4.6 on (LIBXL_HAVE_SRM_V2)
_LOOK_SECONDS = 0.05
_LOOKS = 200
"""How often a guest that will stop itself is looked at: for 10 s."""


class Saving:
    """Of one session."""

    def __init__(self, session: XenSession, context: Context, calls: LibxlCalls, creation: Creation) -> None:
        self._session = session
        self._context = context
        self._calls = calls
        self._creation = creation

    # -- save

    def save(self, request: Request) -> Steps:
        path = _path(request)
        domid, total = self.of(request)
        definition = definition_of(self._context, domid)
        with NewFile(path) as file:
            yield from self.stream_out(request, domid, file.fd, Stream(*self._for(request), offset(file.fd), total))
            try:
                file.keep(definition)
            except HypervisorError as error:
                yield from self.put_back(request, domid, error)
        try:
            yield self._context.destroy(domid)
        except HypervisorError as error:
            raise HypervisorError(
                f"{error}; it is saved in {path} already, and stands still: destroy it before that is restored",
                code=error.code,
            ) from None

    def stream_out(self, request: Request, domid: int, fd: int, stream: Stream, flags: int = 0) -> Steps:
        """Its guest stands still afterwards, and is in ``fd``; where that fails, it goes on."""
        library, pointer = self._context.library, self._context.pointer
        with Stopping(domid) as stopping:
            try:
                with stream.start(
                    "save", domid, lambda how: library.libxl_domain_suspend(pointer, domid, fd, flags, how)
                ) as operation:
                    yield operation
            except HypervisorError as error:
                if not stopping.called_off():
                    yield from self._until_stopped(domid)
                yield from self.put_back(request, domid, error)

    def put_back(self, request: Request, domid: int, error: HypervisorError) -> Steps:
        """It was not saved because of ``error``: it goes on."""
        try:
            facts = self._context.domains.one(domid)
            if facts is not None and domains.reason(facts) == SUSPENDED:
                yield self._context.resume(domid)
        except EventBridgeError as another:
            raise HypervisorError(
                f"{error}; nothing is kept, and its guest may stand still, for it could not be resumed: {another}",
                code=error.code,
            ) from None
        _raise_again(request, error, "its guest goes on, and nothing is left of what was written")

    def _until_stopped(self, domid: int) -> Steps:
        for _ in range(_LOOKS):
            facts = self._context.domains.one(domid)
            if facts is None or domains.reason(facts) is not None:
                return
            yield Wait(self._session.bridge, _LOOK_SECONDS)

    def of(self, request: Request) -> tuple[int, int]:
        """Its domid, and its memory in bytes."""
        domid, facts = self._calls.seen(request)
        if domains.reason(facts) is not None:
            raise HypervisorError(f"{self._context.uri}: its guest has stopped already: nothing is left to be saved")
        if facts.get("paused") and facts.get("domain_type") != "hvm":
            raise HypervisorError(
                f"{self._context.uri}: it is paused, and a paravirtual guest has to stop itself to be saved: resume it"
            )
        return domid, facts.get("current_memkb", 0) << 10

    def _for(self, request: Request) -> tuple[XenSession, Context, Request]:
        return self._session, self._context, request

    # -- restore

    def restore(self, request: Request) -> Steps:
        path = _path(request)
        definition = request.arguments.get("definition") or definition_beside(path)
        if definition is None:
            raise refusal("restore from", path, f"there is no {path}.json beside it: give its definition")
        domid = ctypes.c_uint32()
        with opened(path) as fd, Config(self._context) as config:
            if not begins_well(fd):
                raise refusal("restore from", path, "no libxl has saved a guest there: it does not begin like one")
            config.read(definition)
            stream = Stream(*self._for(request), offset(fd), os.fstat(fd).st_size)
            with stream.start("restore", None, lambda how: self.stream_in(config, domid, fd, how)) as operation:
                yield config.lent_to(operation)
        return (yield from self._creation.made(request, domid.value))

    def stream_in(self, config: Config, domid: ctypes.c_uint32, fd: int, how: Any) -> int:
        """libxl copies the parameters before it returns."""
        library, pointer = self._context.library, self._context.pointer
        parameters = ctypes.create_string_buffer(types.size_of(library.libxl_domain_restore_params_init))
        library.libxl_domain_restore_params_init(parameters)
        try:
            code: int = library.libxl_domain_restore_params_from_json(
                pointer, parameters, json.dumps(_PARAMETERS).encode()
            ) or library.libxl_domain_create_restore(
                pointer, config.room, ctypes.byref(domid), fd, -1, parameters, how, None
            )
            return code
        finally:
            library.libxl_domain_restore_params_dispose(parameters)


def _path(request: Request) -> str:
    path = request.arguments.get("path")
    if not path:
        raise HypervisorError(f"{request.operation}: a path of a file is needed", operation=request.operation)
    return str(os.fspath(path))


def _raise_again(request: Request, error: HypervisorError, words: str) -> NoReturn:
    if request.aborted or error.code == ABORTED:
        raise JobAborted(f"{error}; {words}")
    raise HypervisorError(f"{error}; {words}", code=error.code)
