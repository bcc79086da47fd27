"""Every rule on the hosts of other libraries, with the loop in the test's thread and in a thread of its own."""

from __future__ import annotations

from eventbridge.errors import HostUnavailable
from eventbridge.host import HostLoop
from eventbridge.testing import HostConformance
from tests.helpers import wanted


class TestTrio(HostConformance):
    def make_host(self) -> HostLoop:
        return wanted.adapter("trio").TrioHost()


class TestTrioInItsOwnThread(TestTrio):
    own_thread = True


class TestGlib(HostConformance):
    """On a main context of its own."""

    def make_host(self) -> HostLoop:
        return wanted.adapter("glib").GlibHost(apart=True)

    def test_what_has_a_lower_priority_has_its_turn_too(self) -> None:
        """D2: an idle source, while there is more to do in every pass."""
        glib = wanted.adapter("glib").GLib
        idle = glib.Idle()
        idle.set_callback(lambda *_: self.rig.note("idle"))
        self.ready(1000, self.rig.noting("callback"))
        self.rig.until(lambda: self.rig.noted("callback"))
        idle.attach(self.bridge.host.loop)
        self.rig.until(lambda: self.rig.noted("idle"))
        assert self.rig.noted("idle") == 1


class TestGlibInItsOwnThread(TestGlib):
    own_thread = True


class TestGlibDefault(TestGlib):
    """On the process's."""

    def make_host(self) -> HostLoop:
        return wanted.adapter("glib").GlibHost()

    def test_registering_before_the_loop_first_runs_works_from_any_thread(self) -> None:
        """But that it is the main thread's for good once there is a Qt application, as another test may have made."""
        try:
            super().test_registering_before_the_loop_first_runs_works_from_any_thread()
        except HostUnavailable:
            assert self.bridge.host.loop.is_owner()


class TestGevent(HostConformance):
    def make_host(self) -> HostLoop:
        return wanted.adapter("gevent").GeventHost(apart=True)


class TestGeventInItsOwnThread(TestGevent):
    own_thread = True


class TestTwisted(HostConformance):
    """On an epoll reactor."""

    def make_host(self) -> HostLoop:
        return wanted.adapter("twisted").TwistedHost(apart=True)


class TestTwistedInItsOwnThread(TestTwisted):
    own_thread = True


class TestTwistedsSelectReactor(HostConformance):
    """Given to it; as any other."""

    def make_host(self) -> HostLoop:
        adapter = wanted.adapter("twisted")
        from twisted.internet.selectreactor import SelectReactor

        self.reactors.append(SelectReactor())
        return adapter.TwistedHost(self.reactors[-1])

    def setup_method(self) -> None:
        self.reactors: list[object] = []
        super().setup_method()

    def teardown_method(self) -> None:
        super().teardown_method()
        for reactor in self.reactors:
            reactor.waker.connectionLost(None)

    def close_given(self, host: HostLoop) -> None:
        host.loop.waker.connectionLost(None)


class TestQt(HostConformance):
    """Through PySide6; see test_pyqt for PyQt6."""

    def make_host(self) -> HostLoop:
        return wanted.adapter("qt").QtHost(apart=True)

    def test_a_timer_of_0_has_its_turn_too(self) -> None:
        """D2: Qt's idle work, while there is more to do in every pass."""
        qt = wanted.adapter("qt").Qt
        self.ready(1000, self.rig.noting("callback"))
        self.rig.until(lambda: self.rig.noted("callback"))
        self.rig.on_loop(lambda: qt.QTimer.singleShot(0, lambda: self.rig.note("idle")))
        self.rig.until(lambda: self.rig.noted("idle"))
        assert self.rig.noted("idle") == 1


class TestQtInItsOwnThread(TestQt):
    own_thread = True
