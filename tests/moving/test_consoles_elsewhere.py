"""D9: a console's bytes reach the task that reads them, though after a move another thread hands them on."""

from __future__ import annotations

import collections
import os
import pty
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from eventbridge.connection.console import ConsoleSession
from eventbridge.hypervisor.model import ConsoleInfo, ConsoleKind
from tests.moving.office import Office

LINE = b"login: \n"
LINES = 2000


class Watched(collections.deque[bytes]):
    """The chunks; when they were looked at, and before the look says what was seen, another thread comes in between."""

    def __init__(self, coming: Callable[[], object]) -> None:
        super().__init__()
        self.coming = coming

    def __len__(self) -> int:
        seen, coming = super().__len__(), self.coming
        self.coming = lambda: None
        coming()
        return seen


def session_on(bridge: Any, tty: str | None = None) -> ConsoleSession:
    """Of a stand-in for a domain, which says where its console is."""

    async def console_info(*which: object) -> ConsoleInfo:
        return ConsoleInfo(ConsoleKind.SERIAL, 0, None, 1, tty=tty)

    domain: Any = SimpleNamespace(connection=SimpleNamespace(bridge=bridge), console_info=console_info)
    return ConsoleSession(domain, None, 0)


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_console_is_read_by_a_task_of_the_old_loop(name: str) -> None:
    """D9: every byte once, in order, then the end."""
    with ExitStack() as stack:
        office = Office(name, stack)
        guest, tty = pty.openpty()
        found = bytearray()

        async def read() -> str:
            async with session_on(office.bridge, os.ttyname(tty)) as console:
                async for data in console:
                    found.extend(data)
            return "the end"

        task = office.task(read)
        office.leave()
        os.close(tty)
        for _ in range(LINES):
            os.write(guest, LINE)
        while len(found) < len(LINE) * LINES and not task.ended:
            office.home.do(lambda: None)
        assert bytes(found) == LINE * LINES and not task.ended
        os.close(guest)
        assert task.result() == "the end"


def test_what_comes_while_a_task_goes_to_wait_wakes_it() -> None:
    """D9: between its look at what is there and its waiting."""
    console = session_on(None)
    console._chunks = Watched(lambda: console._data(b"now"))
    woken: list[int] = []
    console._wait(lambda: woken.append(1))
    assert woken == [1] and list(console._chunks) == [b"now"]


def test_what_comes_with_the_end_is_read_before_it() -> None:
    """D9: between a task's look at what is there and its look at the end."""
    console = session_on(SimpleNamespace(host=Woken()))

    def come() -> None:
        console._data(b"last")
        console._end(None)

    console._chunks = Watched(come)
    assert step(console) == b"last"
    assert step(console) == b"the end"


class Woken:
    """Stands in for a host on whose thread a task waits for what has come already."""

    name = "stand-in"

    def is_loop_thread(self) -> bool:
        return True

    async def wait_for(self, subscribe: Callable[[Callable[[], None]], None], timeout: float | None) -> bool:
        woken: list[int] = []
        subscribe(lambda: woken.append(1))
        assert woken
        return True


def step(console: ConsoleSession) -> bytes:
    try:
        console.__anext__().send(None)
    except StopIteration as read:
        return bytes(read.value)
    except StopAsyncIteration:
        return b"the end"
    raise AssertionError("it waits")
