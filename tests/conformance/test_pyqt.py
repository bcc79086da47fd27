"""Every rule on Qt through PyQt6: in a process of its own, for no two bindings can be in one."""

from __future__ import annotations

import re
import sys

from tests.helpers import wanted
from tests.helpers.command import run

SUITE = """
import sys
import PyQt6.QtCore
import pytest
sys.exit(pytest.main(["-p", "no:cacheprovider", "tests/conformance/test_more_hosts.py", "-k", "TestQt"]))
"""


def test_every_rule_holds_on_pyqt6_too() -> None:
    wanted.installed("PyQt6.QtCore")
    done = run(sys.executable, "-c", SUITE)
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and "skipped" not in done.stdout, done.stdout
    assert len(re.findall(r"^\.+", done.stdout, re.MULTILINE)) >= 2
