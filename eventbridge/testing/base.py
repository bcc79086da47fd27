"""How a host is brought under test: one class attribute, one method."""

from __future__ import annotations

from typing import ClassVar

from eventbridge.bridge import Bridge
from eventbridge.host import HostLoop, RunnableHost
from eventbridge.poller import PollerProtocol

from .rig import Rig


class Rules:
    """The base of each part of the suite.  Subclass `HostConformance`, say how your host is made, and let pytest
    collect it.
    """

    own_thread: ClassVar[bool] = False
    """Is the loop run by a thread of its own, with every call coming from another?"""

    rig: Rig

    def make_host(self) -> HostLoop:
        """A fresh host whose loop is ours to run."""
        raise NotImplementedError("a conformance test says how its host is made")

    def make_poller(self) -> PollerProtocol | None:
        """Another poller than the system's best; None for that."""
        return None

    def setup_method(self) -> None:
        self._hosts: list[HostLoop] = []
        self.rig = Rig(self.another_host(), self.own_thread, self.make_poller())

    def teardown_method(self) -> None:
        self.rig.end()
        for host in self._hosts:
            if isinstance(host, RunnableHost):
                host.close()

    def another_host(self) -> HostLoop:
        """`make_host`'s, closed when the test is over."""
        self._hosts.append(self.make_host())
        return self._hosts[-1]

    @property
    def bridge(self) -> Bridge:
        return self.rig.bridge
