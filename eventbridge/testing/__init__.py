"""The conformance suite: every rule of the contract, for whoever writes a host.

    from eventbridge.testing import HostConformance

    class TestMyHost(HostConformance):
        def make_host(self):
            return MyHost()             # fresh, and ours to run: see eventbridge.host.RunnableHost

    class TestMyHostInItsOwnThread(TestMyHost):
        own_thread = True

pytest collects it (``pytest.register_assert_rewrite("eventbridge.testing")`` first makes its failures tell more).
"""

from .base import Rules
from .dispatch import DispatchRules
from .handles import HandleRules
from .lifetimes import LifetimeRules
from .reuse import ReuseRules
from .rig import PATIENCE, Rig, busy, raises
from .timeouts import TimeoutRules

__all__ = ["PATIENCE", "HostConformance", "Rig", "Rules", "busy", "raises"]


class HostConformance(HandleRules, ReuseRules, TimeoutRules, DispatchRules, LifetimeRules):
    """All of it."""
