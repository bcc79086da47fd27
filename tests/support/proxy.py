"""A bad network between us and a peer: a proxy that delays, cuts and truncates what goes through, unix or TCP.

It runs on an asyncio loop in a thread of its own, so that it works whatever loop the test is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE

CHUNK = 65536

Address = Path | tuple[str, int]


class Proxy:
    """``address`` is where it listens; ``to`` is who is behind it."""

    def __init__(self, address: Address, to: Address) -> None:
        self.address = address
        self.to = to
        self.delay = 0.0
        """Seconds that every piece takes, each way."""
        self.lets_through: int | None = None
        """Bytes from the peer that still get through; then the connection is cut in mid-word."""
        self.refuses = False
        """Is a new connection cut at once?"""
        self.frozen = False
        """Is nothing let through, and nothing said?"""
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def cut(self) -> None:
        """Every connection, at once, without a word."""
        self._do(self._cut())

    def stop(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    # -- its own thread

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _listen(self) -> None:
        if isinstance(self.address, Path):
            self._server = await asyncio.start_unix_server(self._serve, self.address)
        else:
            self._server = await asyncio.start_server(self._serve, *self.address)
            host, port = self._server.sockets[0].getsockname()
            self.address = (host, port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self.refuses:
                return
            beyond, back = await self._connect()
            self._writers.add(back)
            await asyncio.gather(self._pump(reader, back, False), self._pump(beyond, writer, True))
        except (OSError, asyncio.IncompleteReadError):
            pass  # that is what it is for
        finally:
            await self._cut_these(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.to, Path):
            return await asyncio.open_unix_connection(self.to)
        return await asyncio.open_connection(*self.to)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, from_peer: bool) -> None:
        while data := await reader.read(CHUNK):
            while self.frozen:
                await asyncio.sleep(0.01)
            if self.delay:
                await asyncio.sleep(self.delay)
            if from_peer and self.lets_through is not None:
                data, self.lets_through = data[: self.lets_through], max(0, self.lets_through - len(data))
                if not self.lets_through:
                    writer.write(data)
                    self.lets_through = None
                    await self._cut()
                    return
            writer.write(data)
        await self._cut_these(writer)

    async def _cut(self) -> None:
        await self._cut_these(*self._writers)

    async def _cut_these(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            self._writers.discard(writer)
            writer.close()

    async def _end(self) -> None:
        self.frozen = False
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def proxied(to: Address, directory: Path | None = None) -> Iterator[Proxy]:
    """A proxy in front of ``to``: at ``directory``/proxy, or on a loopback port."""
    proxy = Proxy(("127.0.0.1", 0) if directory is None else directory / "proxy", to)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
