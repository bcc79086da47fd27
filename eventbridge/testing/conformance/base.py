"""How a host is brought under test: one fixture, and a few things that may be said about the class.

Every conformance test has a `Rig` of its own: a bridge on a fresh host, whose loop is run by the test's thread, or by a
thread of its own.  pytest is imported here: `eventbridge.testing` comes here only when the suite is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import pytest

from eventbridge.bridge import Bridge
from eventbridge.core.host import HostLoop, RunnableHost
from eventbridge.core.poller import PollerProtocol

from ..patience import PATIENCE
from .harness import Rig

THREADS = {"tests-thread": False, "own-thread": True}
"""How a test's id says which thread runs the loop, and `Rules.own_thread` in that case."""

Test = TypeVar("Test", bound=Callable[..., None])


def in_the_tests_thread(test: Test) -> Test:
    """Marks a test that has something to show only where the test's own thread runs the loop."""
    test.in_the_tests_thread = True  # type: ignore[attr-defined]  # a function takes any attribute
    return test


class Rules:
    """The base of each part of the suite.  Subclass `HostConformance`, give it a fixture ``make_host``, in the class
    or in a conftest, and let pytest collect it.  The fixture gives what makes a host::

        @pytest.fixture
        def make_host(self):
            return MyHost

    Each call of that makes a fresh `eventbridge.core.host.RunnableHost`, whose loop is ours to run.  A test calls it
    once, some twice.
    """

    own_thread: ClassVar[bool | None] = None
    """Which thread runs the loop, while the test calls from its own: True: a thread of the loop's; False: the test's;
    None: each in its turn, so that every test is there twice.
    """
    loop: ClassVar[str] = ""
    """What the report and the matrix call the loop; classes of the same name are one row.  "": the host's name."""
    library: ClassVar[str] = ""
    """The distribution that the loop is from, as pip calls it, for its version; "": the standard library."""
    leaks: ClassVar[int] = 0
    """How many fds a loop of this kind never gives back, with a bridge or without."""
    patience: ClassVar[float] = PATIENCE
    """Seconds until what a test waits for is given up, and the rule is broken."""

    rig: Rig

    def make_poller(self) -> PollerProtocol | None:
        """Another poller than the system's best; None for that."""
        return None

    def close_given(self, host: HostLoop) -> None:
        """Close what `make_host` gave to a host, a loop or a selector that is not the host's to close.  Called once
        for each host, after its ``close``.
        """

    def another_host(self) -> HostLoop:
        """A fresh one, closed when the test is over."""
        self._hosts.append(self._make_host())
        return self._hosts[-1]

    def close_host(self, host: HostLoop) -> None:
        """Have done with a host, and with what it was given."""
        self._hosts.remove(host)
        if isinstance(host, RunnableHost):
            host.close()
        self.close_given(host)

    @property
    def bridge(self) -> Bridge:
        return self.rig.bridge

    # -- pytest's

    @pytest.fixture(autouse=True)
    def _rig(self, make_host: Callable[[], HostLoop], request: pytest.FixtureRequest) -> Iterator[None]:
        """The rig, on a host of `make_host`'s."""
        own_thread = getattr(request, "param", self.own_thread)
        if own_thread and hasattr(request.function, "in_the_tests_thread"):
            pytest.skip("it is about the thread that runs the loop being the test's")
        self._make_host, self._hosts = make_host, list[HostLoop]()
        self.rig = Rig(self.another_host(), bool(own_thread), self.make_poller(), self.patience)
        request.node.conformance_host = self.bridge.host.name
        yield
        try:
            self.rig.end()
        finally:
            for host in list(self._hosts):
                self.close_host(host)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Each test once with the loop in its own thread and once not, where `own_thread` leaves it open."""
        if self.own_thread is None:
            both = not hasattr(metafunc.function, "in_the_tests_thread")
            modes = THREADS if both else {name: own for name, own in THREADS.items() if not own}
            metafunc.parametrize("_rig", modes.values(), ids=modes, indirect=True)
