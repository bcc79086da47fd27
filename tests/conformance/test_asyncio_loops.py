"""Every rule on asyncio's loop as others make it: tornado, rloop, gbulb, qasync (and uvloop: see test_hosts)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.host import HostLoop
from eventbridge.testing import HostConformance
from tests.helpers import wanted


class GivenLoop(HostConformance):
    """A loop that is the test's own."""

    def make_loop(self) -> asyncio.AbstractEventLoop:
        raise NotImplementedError

    def make_host(self) -> HostLoop:
        self.loops.append(self.make_loop())
        return AsyncioHost(self.loops[-1])

    def setup_method(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []
        super().setup_method()

    def teardown_method(self) -> None:
        super().teardown_method()
        for loop in self.loops:
            loop.close()

    def close_given(self, host: HostLoop) -> None:
        self.loops.remove(host.loop)
        host.loop.close()


class TestUvloop(GivenLoop):
    def make_loop(self) -> asyncio.AbstractEventLoop:
        return wanted.module("uvloop").new_event_loop()


class TestUvloopInItsOwnThread(TestUvloop):
    own_thread = True


class TestTornado(GivenLoop):
    """Its IOLoop is a coat of asyncio's."""

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return wanted.module("tornado.ioloop").IOLoop(make_current=False).asyncio_loop


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # its own wake-up pair, after each run
class TestRloop(GivenLoop):
    leaks = 2  # rloop 0.5.0 forgets its epoll and its eventfd when a loop is closed

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return wanted.module("rloop").new_event_loop()


class TestRloopInItsOwnThread(TestRloop):
    own_thread = True


class TestGbulb(GivenLoop):
    """asyncio over GLib's main context."""

    def make_loop(self) -> asyncio.AbstractEventLoop:
        contexts = wanted.module("gi.repository.GLib").MainContext
        contexts.default()  # whose eventfd, made once in a process, is nobody's leak
        return wanted.module("gbulb").GLibEventLoop(context=contexts.new())


class TestGbulbInItsOwnThread(TestGbulb):
    own_thread = True


class TestQasync(GivenLoop):
    """asyncio over Qt's application, and so of the main thread alone."""

    def make_loop(self) -> asyncio.AbstractEventLoop:
        self.application: Any = wanted.adapter("qt").application()
        return wanted.module("qasync").QEventLoop(self.application)

    def test_registering_before_the_loop_first_runs_works_from_any_thread(self) -> None:
        pytest.skip("another thread than the main one cannot run qasync's loop: it is the application's own")
