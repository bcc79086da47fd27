"""libxl on its own event loop (``libxl_osevent_beforepoll``, poll(2), ``afterpoll``), by ctypes and nothing of the
project's: what the tests of the stand-in ask, and what an adapter's events can be compared with.  One thread."""

from __future__ import annotations

import contextlib
import ctypes as C
import time
from collections.abc import Callable, Iterator

from tests.support.patience import PATIENCE
from tests.support.xen import packages

SHUTDOWN, DEATH, EJECT, COMPLETE = range(1, 5)
ALL = C.c_uint64(2**64 - 1)
SELECTIVE_REAP = 3
CRITICAL = 9


class TimeVal(C.Structure):
    _fields_ = (("seconds", C.c_long), ("microseconds", C.c_long))


class PollFd(C.Structure):
    _fields_ = (("fd", C.c_int), ("events", C.c_short), ("revents", C.c_short))


class Event(C.Structure):
    """libxl_event; ``value`` is the first word of its union: a shutdown's reason, an operation's result."""

    _fields_ = (
        ("link", C.c_void_p * 2),
        ("domid", C.c_uint32),
        ("uuid", C.c_uint8 * 16),
        ("for_user", C.c_uint64),
        ("type", C.c_int),
        ("value", C.c_int64),
    )


class ChildHooks(C.Structure):
    _fields_ = (("owner", C.c_int), ("fork_replacement", C.c_void_p), ("reaped", C.c_void_p))


class PlainLibxl:
    """A context that is waited on with poll(2); ``events`` has what came, as (type, domid, value)."""

    def __init__(self) -> None:
        self.library = C.CDLL(f"libxenlight.so.{packages.version()}")
        self.library.libxl_list_domain.restype = C.c_void_p
        self.library.libxl_domid_to_name.restype = C.c_void_p
        self.events: list[tuple[int, int, int]] = []
        self._logs = C.CDLL("libxentoollog.so.1")
        self._logs.xtl_createlogger_stdiostream.restype = C.c_void_p
        stderr = C.c_void_p.in_dll(C.CDLL(None), "stderr")
        self._logger = C.c_void_p(
            self._logs.xtl_createlogger_stdiostream(stderr, CRITICAL, 0)
        )  # libxl calls a NULL one
        self.context = C.c_void_p()
        if status := self.library.libxl_ctx_alloc(C.byref(self.context), 0, 0, self._logger):
            self._logs.xtl_logger_destroy(self._logger)
            raise OSError(f"libxl_ctx_alloc: {status}")
        self._children = ChildHooks(SELECTIVE_REAP)  # by default libxl reaps any child of this process
        self.library.libxl_childproc_setmode(self.context, C.byref(self._children), None)

    def call(self, name: str, *arguments: object) -> int:
        """A function of libxl's that takes the context first, and what it returns."""
        status: int = self.library[name](self.context, *arguments)
        return status

    def count(self) -> int:
        """How many domains there are, dom0 among them; negative where libxl cannot tell."""
        number = C.c_int()
        domains = C.c_void_p(self.library.libxl_list_domain(self.context, C.byref(number)))
        if not domains.value:
            return -1
        self.library.libxl_dominfo_list_free(domains, number)
        return number.value

    @contextlib.contextmanager
    def watching(self, domid: int) -> Iterator[None]:
        """Collect the domain's shutdown and death meanwhile.

        xenstored fires a new watch once at once, just after it has answered.  It answers the next request behind that:
        when the block begins, the first firing has been taken, and no later pass looks at the domain because of it.
        """
        generator = C.c_void_p()
        assert self.call("libxl_evenable_domain_death", domid, C.c_uint64(0), C.byref(generator)) == 0
        self._ask_xenstored(domid)
        self.settle()
        yield
        self.library.libxl_evdisable_domain_death(self.context, generator)

    def _ask_xenstored(self, domid: int) -> None:
        name = C.c_void_p(self.library.libxl_domid_to_name(self.context, domid))
        C.CDLL(None).free(name)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, f"it did not happen; what did: {self.events}"
            self._pass(100)
            self._collect()

    def settle(self) -> None:
        """What is ready already is told, and nothing is waited for."""
        self._pass(0)
        self._collect()

    def _pass(self, longest: int) -> None:
        fds, count, timeout = (PollFd * 64)(), C.c_int(64), C.c_int(longest)
        assert self.call("libxl_osevent_beforepoll", C.byref(count), fds, C.byref(timeout), _now()) == 0
        C.CDLL(None).poll(fds, count, timeout)
        self.call("libxl_osevent_afterpoll", count, fds, _now())

    def _collect(self) -> None:
        event = C.POINTER(Event)()
        while self.call("libxl_event_check", C.byref(event), ALL, None, None) == 0:
            got = event.contents
            self.events.append((got.type, got.domid, _value(got)))
            self.call("libxl_event_free", event)

    def close(self) -> None:
        self.library.libxl_ctx_free(self.context)
        self._logs.xtl_logger_destroy(self._logger)


def _value(event: Event) -> int:
    """The union's member is an int for a completed operation, a byte for a shutdown, and of no use for the others."""
    if event.type == COMPLETE:
        return C.c_int32(event.value).value
    return event.value & 0xFF if event.type == SHUTDOWN else 0


def _now() -> TimeVal:
    now = time.time()
    return TimeVal(int(now), int(now % 1 * 1e6))
