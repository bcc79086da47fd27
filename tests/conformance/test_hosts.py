"""Every rule on every host, with the loop in the test's thread and in a thread of its own."""

from __future__ import annotations

import selectors

import pytest

from eventbridge.adapters.hosts import uv_cffi
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hosts.libuv import LibuvHost
from eventbridge.adapters.hosts.select import SelectHost, import_selectors2
from eventbridge.host import HostLoop
from eventbridge.poll_fallback import PollPoller
from eventbridge.poller import PollerProtocol
from eventbridge.testing import HostConformance


class TestSelect(HostConformance):
    def make_host(self) -> HostLoop:
        return SelectHost()


class TestSelectInItsOwnThread(TestSelect):
    own_thread = True


class GivenSelector(HostConformance):
    """A selector object that is the test's own."""

    def make_selector(self) -> object:
        raise NotImplementedError

    def make_host(self) -> HostLoop:
        self.selectors.append(self.make_selector())
        return SelectHost(self.selectors[-1])

    def setup_method(self) -> None:
        self.selectors: list[object] = []
        super().setup_method()

    def teardown_method(self) -> None:
        super().teardown_method()
        for selector in self.selectors:
            selector.close()

    def close_given(self, host: HostLoop) -> None:
        host.selector.close()


class TestSelectSelector(GivenSelector):
    def make_selector(self) -> object:
        return selectors.SelectSelector()


class TestPollSelector(GivenSelector):
    def make_selector(self) -> object:
        return selectors.PollSelector()


class TestEpollSelector(GivenSelector):
    def make_selector(self) -> object:
        return selectors.EpollSelector()


class TestSelectors2(GivenSelector):
    def make_selector(self) -> object:
        return import_selectors2().DefaultSelector()


class TestSelectors2InItsOwnThread(TestSelectors2):
    own_thread = True


class TestAsyncio(HostConformance):
    def make_host(self) -> HostLoop:
        return AsyncioHost()


class TestAsyncioInItsOwnThread(TestAsyncio):
    own_thread = True


class TestLibuv(HostConformance):
    """Through pyuv."""

    def make_host(self) -> HostLoop:
        pytest.importorskip("pyuv", reason="pyuv is not built here: make test builds it where there is a compiler")
        return LibuvHost()


class TestLibuvInItsOwnThread(TestLibuv):
    own_thread = True


class CffiHost(LibuvHost):
    library = uv_cffi


class TestLibuvThroughCffi(HostConformance):
    """As where pyuv cannot be built."""

    def make_host(self) -> HostLoop:
        return CffiHost()


class TestLibuvThroughCffiInItsOwnThread(TestLibuvThroughCffi):
    own_thread = True


class TestPollFallback(HostConformance):
    """The poller of systems without epoll."""

    def make_host(self) -> HostLoop:
        return SelectHost()

    def make_poller(self) -> PollerProtocol:
        return PollPoller()


class TestPollFallbackInItsOwnThread(TestPollFallback):
    own_thread = True
