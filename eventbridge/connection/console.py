"""A console's bytes for a task: ``async with domain.open_console() as stream: async for data in stream: ...``.

A thin face on `console_session.ConsoleStream`.  The bytes arrive on the loop thread, and a task reads them, which
is on another where the bridge has moved away from the task's loop (D9).
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING

from eventbridge.core.host_lookup import awaiting
from eventbridge.core.waker import Bell
from eventbridge.hypervisor.model import ConsoleInfo, ConsoleKind

from .console_session import ConsoleStream, open_console

if TYPE_CHECKING:
    from .domain import Domain


class ConsoleSession:
    """One console, from `__aenter__` on.  Ends when the guest's end hangs up; an OSError of the tty's is raised."""

    def __init__(self, domain: Domain, kind: ConsoleKind | None, number: int) -> None:
        self._domain = domain
        self._kind = kind
        self._number = number
        self._stream: ConsoleStream | None = None
        self._chunks: collections.deque[bytes] = collections.deque()
        self._ended = False
        self._error: OSError | None = None
        self._bell = Bell()
        self.info: ConsoleInfo | None = None

    async def __aenter__(self) -> ConsoleSession:
        self.info = await self._domain.console_info(self._kind, self._number)
        self._stream = open_console(self._domain.connection.bridge, self.info, self._data, self._end)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._stream is not None:
            self._stream.close()
        self._ended = True

    def write(self, data: bytes) -> None:
        """As `ConsoleStream.write`."""
        assert self._stream is not None, "async with it first"
        self._stream.write(data)

    def __aiter__(self) -> ConsoleSession:
        return self

    async def __anext__(self) -> bytes:
        while True:
            ended = self._ended  # before: what came until then is there to be taken
            if self._chunks:
                return self._chunks.popleft()
            if ended:
                raise self._error or StopAsyncIteration
            host = self._domain.connection.bridge.host
            await awaiting(host, "use stream_console()").wait_for(self._wait, None)

    def _wait(self, done: Callable[[], None]) -> None:
        self._bell.wait(done, lambda: bool(self._chunks) or self._ended)

    def _data(self, data: bytes) -> None:
        self._chunks.append(data)
        self._bell.ring()

    def _end(self, error: OSError | None) -> None:
        self._error, self._ended = error, True
        self._bell.ring()
