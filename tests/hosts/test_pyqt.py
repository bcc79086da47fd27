"""Every rule on Qt through PyQt6: in a process of its own, for no two bindings can be in one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support import wanted
from tests.support.command import run

SUITE = """
import sys
import PyQt6.QtCore
import pytest
more = sys.argv[1:]
sys.exit(pytest.main(["-p", "no:cacheprovider", "tests/hosts/test_more_hosts.py", "-k", "TestQt", *more]))
"""


def test_every_rule_holds_on_pyqt6_too(request: pytest.FixtureRequest) -> None:
    """H1-H11, T1-T6, D1-D9; its part of ``--rules-report FILE.json`` goes to FILE.pyqt6.json, beside it."""
    wanted.installed("PyQt6")
    report = request.config.getoption("--rules-report")
    more = [f"--rules-report={Path(report).with_suffix('.pyqt6.json').absolute()}"] if report else []
    done = run(sys.executable, "-c", SUITE, *more)
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and "skipped" not in done.stdout, done.stdout
    assert len(re.findall(r"^\.+", done.stdout, re.MULTILINE)) >= 2
    assert re.findall(r"^qt, PyQt6 .*: (\d+) of (\d+) rules kept", done.stdout, re.MULTILINE) == [("26", "26")] * 2
