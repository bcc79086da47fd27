"""A libvirt hypervisor that is open: its events over one connection, and what it is asked over others beside it.

Calls run on worker threads, one request each; those that take long have threads of their own, so that eight
migrations do not keep a ninth domain's `info` waiting.  Nobody waits here for a daemon that is silent: libvirt's
keepalive breaks the connections (`driver.KEEPALIVE`), and every thread inside one comes out with an error then.
"""

from __future__ import annotations

import functools
import threading
from typing import Any
from urllib.parse import urlsplit

import libvirt

from eventbridge.errors import ConnectionLost, EventBridgeError
from eventbridge.hypervisor.events import Emit
from eventbridge.hypervisor.request import Request
from eventbridge.hypervisor.worker_pool import BlockingSession, Workers

from . import installed
from .connection_pool import CLOSED, LOST, Connections, OneEach, Shared, alive
from .errors import meaning, tried
from .opening import Opener
from .operations import CALLS, LONG, Asked, Calls
from .subscription import LibvirtSubscription

CLOSE_SECONDS = 2.0
"""How long `LibvirtSession.close` waits for the daemon."""
LONG_WORKERS = 32


class LibvirtSession(LibvirtSubscription, BlockingSession):
    """`eventbridge.hypervisor.driver.Session` for libvirt; ``connection`` delivers events, ``opener`` opens more."""

    def __init__(self, uri: str, connection: Any, emit: Emit, opener: Opener) -> None:
        LibvirtSubscription.__init__(self, uri, connection, emit)
        BlockingSession.__init__(self, uri)
        self.calls = {name: functools.partial(self._do, call) for name, call in CALLS.items()}
        self._long = Workers(uri, LONG_WORKERS)
        self._opener = opener
        self._connections: Connections = Shared(connection)
        self._lock = threading.Lock()
        self._under_way: set[Request] = set()
        self._leaving = threading.Thread(target=self._leave_last, name=f"leaving {uri}", daemon=True)

    def register(self, keepalive: tuple[int, int]) -> None:
        super().register(keepalive)
        if "keepalive" not in self.refused:  # a daemon's
            self._connections = OneEach(self._connection, self._opener, only=_of_this_connection_alone(self.uri))

    def begin(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.begin`."""
        self._workers_of(request).submit(request, self.calls[request.operation])

    def given_up(self, request: Request) -> None:
        """As `eventbridge.hypervisor.driver.Session.given_up`."""
        self._workers_of(request).make_room()

    def close(self) -> None:
        """No event is emitted after it returns, and all that was asked is refused with `ConnectionLost`.

        Waits until libvirt has let go of the connection, `CLOSE_SECONDS` at most, and not at all on the thread that
        runs the loop: with a daemon that is silent that goes on, on a thread of its own, until the keepalive has
        ended it.  Idempotent.
        """
        first = self.hush()
        self.close_calls()
        self._refuse_all(CLOSED)
        if first:
            self._leaving.start()
        bridge = installed()
        if bridge is None or not bridge.is_running_here():
            self._leaving.join(CLOSE_SECONDS)

    def lost(self) -> None:
        """A daemon that has gone answers nothing more, and its other connections may take longer to notice."""
        self._refuse_all(LOST)

    def close_calls(self) -> None:
        """What waits for a thread is refused."""
        self.workers.close()
        self._long.close()

    def _refuse_all(self, why: str) -> None:
        """What is under way, and whatever is asked from now on."""
        self._connections.close(why)
        self._opener.give_up()
        with self._lock:
            under_way = list(self._under_way)
        for request in under_way:
            request.refuse(ConnectionLost(f"{tried(self.uri, request)}: the connection {why}"))

    def _leave_last(self) -> None:
        self._connections.wait_until_empty()
        self.leave()

    def _workers_of(self, request: Request) -> Workers:
        return self._long if request.operation in LONG else self.workers

    # -- on a worker's thread

    def _do(self, call: Calls, request: Request) -> Any:
        with self._lock:
            self._under_way.add(request)
        try:
            answer, error = self._ask(call, request)
        finally:
            with self._lock:
                self._under_way.discard(request)
        if error is not None:
            raise error
        return answer

    def _ask(self, call: Calls, request: Request) -> tuple[Any, EventBridgeError | None]:
        """The answer, or the error, which has no traceback: that would keep libvirt's objects, and they the connection,
        for as long as somebody keeps the error.
        """
        opened = False
        try:
            with self._connections.inside(tried(self.uri, request)) as connection:
                opened = True
                asked = Asked(request, connection, self._connections, self.uri)
                try:
                    return call(asked), None
                except libvirt.libvirtError as error:
                    return None, meaning(self.uri, request, error, alive(connection), asked.aborted())
        except EventBridgeError as error:
            return None, error.with_traceback(None)
        except libvirt.libvirtError as error:
            if opened:
                raise
            return None, meaning(self.uri, request, error, alive=False)


def _of_this_connection_alone(uri: str) -> bool:
    """libvirt's test driver makes what a file describes anew for each connection; only its "default" is everybody's
    (src/test/test_driver.c, testOpenFromFile).
    """
    parts = urlsplit(uri)
    return parts.scheme.partition("+")[0] == "test" and parts.path != "/default"
