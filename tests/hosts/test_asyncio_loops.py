"""Every rule on asyncio's loop as others make it: uvloop, tornado, rloop, gbulb, qasync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.core.host import HostLoop
from eventbridge.testing import HostConformance
from tests.support import wanted


class GivenLoop(HostConformance):
    """A loop that is the test's own."""

    def make_loop(self) -> asyncio.AbstractEventLoop:
        raise NotImplementedError

    @pytest.fixture
    def make_host(self) -> Callable[[], HostLoop]:
        return lambda: AsyncioHost(self.make_loop())

    def close_given(self, host: HostLoop) -> None:
        host.loop.close()


class TestUvloop(GivenLoop):
    loop = "asyncio, uvloop"
    library = "uvloop"

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return wanted.module("uvloop").new_event_loop()


class TestTornado(GivenLoop):
    """Its IOLoop is a coat of asyncio's."""

    loop = "asyncio, tornado"
    library = "tornado"
    own_thread = False

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return wanted.module("tornado.ioloop").IOLoop(make_current=False).asyncio_loop


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # its own wake-up pair, after each run
class TestRloop(GivenLoop):
    loop = "asyncio, rloop"
    library = "rloop"
    leaks = 2  # rloop 0.5.0 forgets its epoll and its eventfd when a loop is closed

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return wanted.module("rloop").new_event_loop()


class TestGbulb(GivenLoop):
    """asyncio over GLib's main context."""

    loop = "asyncio, gbulb"
    library = "gbulb"

    def make_loop(self) -> asyncio.AbstractEventLoop:
        contexts = wanted.module("gi.repository.GLib").MainContext
        contexts.default()  # whose eventfd, made once in a process, is nobody's leak
        return wanted.module("gbulb").GLibEventLoop(context=contexts.new())


class TestQasync(GivenLoop):
    """asyncio over Qt's application, and so of the main thread alone."""

    loop = "asyncio, qasync"
    library = "qasync"
    own_thread = False

    def make_loop(self) -> asyncio.AbstractEventLoop:
        self.application: Any = wanted.adapter("qt").application()
        return wanted.module("qasync").QEventLoop(self.application)

    def test_registering_before_the_loop_first_runs_works_from_any_thread(self) -> None:
        pytest.skip("another thread than the main one cannot run qasync's loop: it is the application's own")
