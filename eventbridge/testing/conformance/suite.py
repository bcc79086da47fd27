"""The suite as a whole: all parts in one class, for a third party to subclass.  It needs pytest.

pytest is told to rewrite the assertions of the parts before they are first imported, so that a failure shows the
values, with the plugin or without.
"""

from __future__ import annotations

import sys

import pytest

PARTS = ("base", "harness", "handles", "reuse", "timeouts", "dispatch", "lifetimes")

pytest.register_assert_rewrite(
    *(name for part in PARTS if (name := f"{__package__}.{part}") not in sys.modules)  # it warns of what is too late
)

from .base import THREADS, Rules, in_the_tests_thread  # noqa: E402  # after the registration, for its sake
from .dispatch import DispatchRules  # noqa: E402
from .handles import HandleRules  # noqa: E402
from .lifetimes import LifetimeRules  # noqa: E402
from .reuse import ReuseRules  # noqa: E402
from .timeouts import TimeoutRules  # noqa: E402

__all__ = ["PARTS", "THREADS", "HostConformance", "Rules", "in_the_tests_thread"]


class HostConformance(HandleRules, ReuseRules, TimeoutRules, DispatchRules, LifetimeRules):
    """Every rule of the contract, on the hosts that a fixture ``make_host`` makes; see `base.Rules`."""
