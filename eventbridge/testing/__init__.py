'''A pytest kit for whoever writes a host: every rule of the contract, and stand-ins whose every step is the test's.

**The suite.**  A test file of yours is the following, whole; ``HostConformance`` brings the tests, and a fixture
``make_host`` (in the class or in a conftest) says how a host of yours is made: fresh, with a loop that is ours to run
(`eventbridge.core.host.RunnableHost`)::

    import pytest

    from eventbridge import Bridge
    from eventbridge.adapters.hosts.select import SelectHost  # instead of yours
    from eventbridge.testing import HostConformance


    class TestMyHost(HostConformance):
        @pytest.fixture
        def make_host(self):
            return SelectHost


    def test_a_timeout_is_not_a_microsecond_early(clock, stepping):
        """T3, exactly, without waiting."""
        fired = []
        with Bridge(stepping) as bridge:
            bridge.add_timeout(20, lambda id, opaque: fired.append(clock.now))
            due = clock.now + 20_000_000
            clock.advance(ms=19, us=999)
            stepping.step_until_idle()
            assert not fired
            clock.advance(us=1)
            stepping.step_until_idle()
            assert fired == [due]


    def test_what_was_read(stepping, scripted_fd):
        """H3: level-triggered, until it is drained."""
        fd = scripted_fd()
        with Bridge(stepping) as bridge:
            bridge.add_handle(fd.fileno(), 1, fd.callback)
            fd.send(b"hello")
            assert stepping.step_until_idle() == 1
            fd.hang_up()
            stepping.step()
            assert fd.heard == b"hello"

Each conformance test runs with the loop in the test's thread and with the loop in a thread of its own, unless the class
says ``own_thread = False`` or ``True``.  What else a class may say (``loop``, ``library``, ``leaks``, ``patience``,
``make_poller``, ``close_given``) is in `eventbridge.testing.conformance.base.Rules`.  A host that loses a wake-up may
leave the test's thread asleep in its loop for ever: have pytest-timeout installed.

**The plugin**, in your top-level ``conftest.py``::

    pytest_plugins = ["eventbridge.testing.plugin"]

has pytest end with a report of the rules that were kept, a line for each class and thread; with ``--rules-report
FILE.json`` it is written for machines, too, and ``python -m eventbridge.testing.matrix FILE.json...`` makes a table of
several.  Its fixtures are

``clock``        a `FakeClock`: time stands still for the core until the test lets it pass;
``stepping``     a `SteppingHost`: a stand-in for a host, which makes one pass a ``step()``;
``scripted_fd``  makes a `ScriptedFd`: a real fd that is ready, hung up, closed or reused when the test says so.

Importing this package imports neither pytest nor any part of it that is not asked for.
'''

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance.harness import Rig, busy, raises
    from .conformance.rules import RULES
    from .conformance.suite import HostConformance, Rules, in_the_tests_thread
    from .fakes.clock import FakeClock
    from .fakes.scripted import ScriptedFd
    from .fakes.stepping import SteppingHost
    from .patience import PATIENCE

__all__ = [
    "HostConformance",
    "FakeClock",
    "SteppingHost",
    "ScriptedFd",
    "RULES",
    "Rules",
    "in_the_tests_thread",
    "Rig",
    "PATIENCE",
    "busy",
    "raises",
]

_HOMES = {
    "HostConformance": "conformance.suite",
    "FakeClock": "fakes.clock",
    "SteppingHost": "fakes.stepping",
    "ScriptedFd": "fakes.scripted",
    "RULES": "conformance.rules",
    "Rules": "conformance.base",
    "in_the_tests_thread": "conformance.base",
    "Rig": "conformance.harness",
    "PATIENCE": "patience",
    "busy": "conformance.harness",
    "raises": "conformance.harness",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
