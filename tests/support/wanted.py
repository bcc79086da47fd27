"""What the tests with real hypervisors run and import: found, or the test says what to install.

What is missing skips the test, with a reason that says what to do: a developer without root, without libvirt or without
a network has a green run, whose end lists what it has not shown.  Where the environment says CI, as `.ci/run` and
``make flaky`` do, everything is wanted, and what is missing fails the test: no green run there hides it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from typing import Any, NoReturn

import pytest

_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def absent(message: str) -> NoReturn:
    """End the test, or the module that is being imported, by the policy above."""
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)


def program(name: str, package: str) -> str:
    """Return the path of a program, or end the test that asks for it."""
    path = shutil.which(name, path=_SBIN)
    if path is None:
        missing(name, package)
    return path


def missing(what: str, package: str) -> NoReturn:
    """End the test with what to install."""
    absent(f"{what} is not installed: apt-get install -y --no-install-recommends {package}")


def module(name: str) -> Any:
    """Return a module of PyPI's, which tests/support/setup.sh installs, or end the test."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing_module(name, f"{name} cannot be imported ({error})")


def installed(name: str) -> None:
    """As `module`, for a package that another process imports: no two bindings of Qt can be in one, and to look for a
    part of one would import the whole.
    """
    assert "." not in name
    if importlib.util.find_spec(name) is None:
        missing_module(name, f"{name} is not installed")


def adapter(name: str) -> Any:
    """Return the host adapter's module, likewise."""
    return module(f"eventbridge.adapters.hosts.{name}")


def missing_module(name: str, message: str) -> NoReturn:
    """End the test with what installs a module of PyPI's."""
    absent(f"{message}: tests/support/setup.sh installs it")


def root(what: str) -> None:
    """End the test with why it needs root's rights, where it is not run with them."""
    if os.geteuid() != 0:
        pytest.skip(f"{what}: tested as root only", allow_module_level=True)


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test, or a module, was skipped."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")
