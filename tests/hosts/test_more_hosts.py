"""Every rule on the hosts of other libraries, with the loop in the test's thread and in a thread of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from eventbridge.core.host import HostLoop
from eventbridge.errors import HostUnavailable
from eventbridge.testing import HostConformance
from tests.support import wanted

MakeHost = Callable[[], HostLoop]
PYQT = "PyQt6.QtCore" in sys.modules  # as test_pyqt does it: no two bindings can be in one process


class TestTrio(HostConformance):
    loop = "trio"
    library = "trio"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return wanted.adapter("trio").TrioHost


class TestGlib(HostConformance):
    """On a main context of its own."""

    loop = "glib"
    library = "PyGObject"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        adapter = wanted.adapter("glib")
        return lambda: adapter.GlibHost(apart=True)

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


class TestGlibDefault(TestGlib):
    """On the process's."""

    own_thread = False

    @pytest.fixture
    def make_host(self) -> MakeHost:
        return wanted.adapter("glib").GlibHost

    def test_registering_before_the_loop_first_runs_works_from_any_thread(self) -> None:
        """But that it is the main thread's for good once there is a Qt application, as another test may have made."""
        try:
            super().test_registering_before_the_loop_first_runs_works_from_any_thread()
        except HostUnavailable:
            assert self.bridge.host.loop.is_owner()


class TestGevent(HostConformance):
    loop = "gevent"
    library = "gevent"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        adapter = wanted.adapter("gevent")
        return lambda: adapter.GeventHost(apart=True)


class TestTwisted(HostConformance):
    """On an epoll reactor."""

    loop = "twisted"
    library = "Twisted"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        adapter = wanted.adapter("twisted")
        return lambda: adapter.TwistedHost(apart=True)


class TestTwistedsSelectReactor(HostConformance):
    """Given to it; as any other."""

    loop = "twisted"
    library = "Twisted"
    own_thread = False

    @pytest.fixture
    def make_host(self) -> MakeHost:
        adapter = wanted.adapter("twisted")
        from twisted.internet.selectreactor import SelectReactor

        return lambda: adapter.TwistedHost(SelectReactor())

    def close_given(self, host: HostLoop) -> None:
        host.loop.waker.connectionLost(None)


class TestQt(HostConformance):
    """Through PySide6; see test_pyqt for PyQt6."""

    loop = "qt, PyQt6" if PYQT else "qt, PySide6"
    library = "PyQt6" if PYQT else "PySide6-Essentials"

    @pytest.fixture
    def make_host(self) -> MakeHost:
        adapter = wanted.adapter("qt")
        return lambda: adapter.QtHost(apart=True)

    def test_a_timer_of_0_has_its_turn_too(self) -> None:
        """D2: Qt's idle work, while there is more to do in every pass."""
        qt = wanted.adapter("qt").Qt
        self.ready(1000, self.rig.noting("callback"))
        self.rig.until(lambda: self.rig.noted("callback"))
        self.rig.on_loop(lambda: qt.QTimer.singleShot(0, lambda: self.rig.note("idle")))
        self.rig.until(lambda: self.rig.noted("idle"))
        assert self.rig.noted("idle") == 1
