"""Every rule on every host, with the loop in the test's thread and in a thread of its own."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Any

import pytest

from eventbridge.adapters.hosts import uv_cffi
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hosts.libuv import LibuvHost
from eventbridge.adapters.hosts.select import SelectHost, import_selectors2
from eventbridge.core.host import HostLoop
from eventbridge.core.poll_poller import PollPoller
from eventbridge.core.poller import PollerProtocol
from eventbridge.testing import HostConformance
from tests.support import wanted

MakeHost = Callable[[], HostLoop]


class TestSelect(HostConformance):
    loop = "select"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return SelectHost


class GivenSelector(HostConformance):
    """A selector object that is the test's own."""

    loop = "select"

    def make_selector(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return lambda: SelectHost(self.make_selector())

    def close_given(self, host: HostLoop) -> None:
        host.selector.close()


class TestSelectSelector(GivenSelector):
    own_thread = False

    def make_selector(self) -> Any:
        return selectors.SelectSelector()


class TestPollSelector(GivenSelector):
    own_thread = False

    def make_selector(self) -> Any:
        return selectors.PollSelector()


class TestEpollSelector(GivenSelector):
    own_thread = False

    def make_selector(self) -> Any:
        return selectors.EpollSelector()


class TestSelectors2(GivenSelector):
    loop = "select, selectors2"
    library = "selectors2"

    def make_selector(self) -> Any:
        return import_selectors2().DefaultSelector()


class TestAsyncio(HostConformance):
    loop = "asyncio"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return AsyncioHost


class TestLibuv(HostConformance):
    """Through pyuv."""

    loop = "libuv, pyuv"
    library = "pyuv"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        wanted.module("pyuv")
        return LibuvHost


class CffiHost(LibuvHost):
    library = uv_cffi


class TestLibuvThroughCffi(HostConformance):
    """As where pyuv cannot be built."""

    loop = "libuv, cffi"
    library = "cffi"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return CffiHost


class TestPollFallback(HostConformance):
    """The poller of systems without epoll."""

    loop = "select, without epoll"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return SelectHost

    def make_poller(self) -> PollerProtocol:
        return PollPoller()
