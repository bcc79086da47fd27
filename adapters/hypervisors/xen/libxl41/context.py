"""A libxl_ctx of 4.1: opened, asked, and freed when nobody is inside libxl with it any more.

libxl 4.1 has no operations: every call does what it does before it returns, and blocks as long.  So all of it but what
`waiter` needs belongs on threads other than a running loop's, and those of its calls that change a domain refuse to
run there.  Any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import uuid
from collections.abc import Callable, Iterator

from eventbridge.core.bridge import BridgeCore
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainInfo, DomainRef, State

from ..support.close_gate import Gate
from ..support.libxl_log import Journal
from ..support.reasons import LIBXL_ERRORS, NO_SUCH_DOMAIN, meaning
from . import types
from .types import Ctx, DomInfo

ERROR_VERSION, ERROR_FAIL, ERROR_INVAL = -2, -3, -6

# libxl_dominfo's flags, the one that says most first.  A domain with none of them waits for a processor.
_STATES = (("dying", State.DYING), ("paused", State.PAUSED), ("running", State.RUNNING), ("blocked", State.BLOCKED))

# What is asked of a domain: libxl's function, and what it takes after the domid.
_REQUESTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "pause": ("libxl_domain_pause", ()),
    "unpause": ("libxl_domain_unpause", ()),
    "shutdown": ("libxl_domain_shutdown", (0,)),
    "reboot": ("libxl_domain_shutdown", (1,)),
    "destroy": ("libxl_domain_destroy", (1,)),  # forced: it does not wait for the guest's devices
}


class Context:
    """``Context(uri, teardown)``: ``teardown()`` is called once, inside libxl's reach, just before the ctx is freed.

    `HypervisorUnavailable` where there is no libxl 4.1, `HypervisorError` where it cannot be opened here.
    """

    def __init__(self, uri: str = "libxl:///", teardown: Callable[[], object] = lambda: None) -> None:
        self.uri = uri
        self.library = types.Library()
        self._teardown = teardown
        self._journal = Journal(self.library)
        self._ctx = Ctx()
        self.pointer = ctypes.pointer(self._ctx)
        self.inside = Gate(self._free, self._was_closed)
        """``with context.inside:`` around every call of libxl's with ``pointer``."""
        code = self.library.libxl_ctx_init(self.pointer, types.LIBXL_VERSION, self._journal.pointer)
        if code:
            said = self._journal.last()
            self._journal.close()
            raise self._cannot_open(code, said)

    @property
    def closed(self) -> bool:
        return self.inside.closed

    def close(self) -> None:
        """The last one out frees the ctx, which speaks to xenstored: it may block here, or there."""
        self.inside.close()

    def _free(self) -> None:
        self._teardown()
        self.library.libxl_ctx_free(self.pointer)
        self._journal.close()

    # -- domains; these block

    def list(self) -> list[DomInfo]:
        """At most the first 1024 (xc_domain_getinfolist is asked for no more by 4.1)."""
        count = ctypes.c_int()
        with self.inside, self._listening():
            found = self.library.libxl_list_domain(self.pointer, ctypes.byref(count))
            if not found:
                raise self.refusal("list the domains", ERROR_FAIL)
            try:
                return [DomInfo.from_buffer_copy(found[index]) for index in range(count.value)]
            finally:
                types.free(found)

    def one(self, domid: int) -> DomInfo | None:
        """None where there is no such domain."""
        found = DomInfo()
        with self.inside, self._listening():
            code = self.library.libxl_domain_info(self.pointer, ctypes.byref(found), domid)
            if code and code != ERROR_INVAL:
                raise self.refusal("look at", code, domid)
        return None if code else found

    def name(self, domid: int) -> str | None:
        with self.inside:
            return types.taken(self.library.libxl_domid_to_name(self.pointer, domid))

    def info(self, domid: int) -> DomainInfo:
        """`HypervisorError` (-21) where there is no such domain."""
        found = self.one(domid)
        if found is None:
            raise HypervisorError(
                f"{self.uri}: there is no domain {domid}", code=NO_SUCH_DOMAIN, operation="info", domain=str(domid)
            )
        return self.told(found)

    def told(self, found: DomInfo) -> DomainInfo:
        """With its name.  Blocks."""
        return DomainInfo(
            ref(found, self.name(found.domid)),
            state(found),
            vcpus=found.vcpu_online,
            memory=found.current_memkb,
            max_memory=found.max_memkb,
            cpu_time=found.cpu_time,
        )

    def request(self, bridge: BridgeCore, what: str, domid: int) -> None:
        """``what`` is pause, unpause, shutdown, reboot or destroy.  Blocks until libxl has done it; `HypervisorError`,
        also on the running loop's own thread, which would stand still.
        """
        function, arguments = _REQUESTS[what]
        # Asked twice: the loop may have begun to run, elsewhere, while it was asked.
        if bridge.is_running_here() and bridge.is_loop_thread():
            raise HypervisorError(
                f"{self.uri}: cannot {what} domain {domid} on the loop's thread, which would stand still until libxl "
                "is done: call it on a thread of its own",
                operation=what,
                domain=str(domid),
            )
        with self.inside, self._listening():
            code = getattr(self.library, function)(self.pointer, domid, *arguments)
            if code:
                raise self.refusal(what, code, domid)

    # -- errors

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        self._journal.listen()
        yield

    def refusal(self, operation: str, code: int, domid: int | None = None) -> HypervisorError:
        """What libxl answered, in words, with the last that it said on this thread."""
        words = "no such domain" if code == ERROR_INVAL and domid is not None else LIBXL_ERRORS.get(code, str(code))
        said = self._journal.last()
        return HypervisorError(
            f"{self.uri}: cannot {operation}{'' if domid is None else f' domain {domid}'}: {words}"
            f"{f'; libxl said: {said}' if said else ''}",
            code=code,
            operation=operation,
            domain=None if domid is None else str(domid),
        )

    def _cannot_open(self, code: int, said: str) -> HypervisorError:
        if code == ERROR_VERSION:
            words = f"{self.library.name} refuses the version of its interface that 4.1 has"
        else:
            words = "is this a Xen host's domain 0, is xenstored running, and may this user use both? be root there"
        return HypervisorError(
            f"{self.uri}: cannot open libxl: {'; '.join(filter(None, (said, words)))}", code=code, operation="open"
        )

    def _was_closed(self) -> HypervisorError:
        return HypervisorError(f"{self.uri}: it was closed; open another")


def ref(found: DomInfo, name: str | None = None) -> DomainRef:
    return DomainRef(name, str(uuid.UUID(bytes=bytes(found.uuid))), found.domid)


def reason(found: DomInfo) -> int | None:
    """The shutdown reason, where its guest has stopped."""
    return int(found.shutdown_reason) if found.shutdown else None


def state(found: DomInfo) -> State:
    if found.shutdown and not found.dying:
        return meaning(found.shutdown_reason).state
    return next((state for flag, state in _STATES if getattr(found, flag)), State.RUNNING)
