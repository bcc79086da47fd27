"""Hosts that go wrong, each in one way, and the suite held to them: it must find each.  Not collected by itself."""

import select
import threading

import pytest
from tinyloop_eventbridge import TinyloopHost

from eventbridge.testing import HostConformance


class ForgetsToWake(TinyloopHost):
    """A call from another thread is left, and the loop sleeps on."""

    def wake(self):
        if self.is_loop_thread():
            super().wake()


class EdgeTriggered(TinyloopHost):
    """Calls once for each time that the fd becomes readable, as with EPOLLET."""

    def watch(self, fd, callback):
        edges = self._edges[fd] = select.epoll()
        edges.register(fd, select.EPOLLIN | select.EPOLLET)

        def ready():
            if edges.poll(0):
                self.call(callback)

        self.loop.add_reader(edges.fileno(), ready)

    def unwatch(self, fd):
        edges = self._edges.pop(fd, None)
        if edges is not None:
            self.loop.remove_reader(edges.fileno())
            edges.close()

    def __init__(self, loop=None):
        self._edges = {}
        super().__init__(loop)


class AnotherThread(TinyloopHost):
    """Calls back on a thread of its own making."""

    def watch(self, fd, callback):
        def elsewhere():
            thread = threading.Thread(target=callback)
            thread.start()
            thread.join()

        self.loop.add_reader(fd, elsewhere)


class Swallows(TinyloopHost):
    """Whatever leaves a callback is forgotten."""

    def _raise_kept(self):
        self._raised = None


class LeavesItsFds(TinyloopHost):
    """Never closes its loop."""

    def give_back(self):
        pass


class Broken(HostConformance):
    own_thread = True
    patience = 0.3  # what does not come is not waited for as long

    @pytest.fixture
    def make_host(self):
        return self.host


class TestForgetsToWake(Broken):
    host = ForgetsToWake


class TestEdgeTriggered(Broken):
    host = EdgeTriggered


class TestAnotherThread(Broken):
    host = AnotherThread


class TestSwallows(Broken):
    own_thread = False
    host = Swallows


class TestLeavesItsFds(Broken):
    host = LeavesItsFds
