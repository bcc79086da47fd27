"""Programs that the tests with real hypervisors run: found, or the test says what to install.

Where they could be installed (`make test` as root does) their absence is a failure, so that no green run hides it;
elsewhere it is a skip that says the same."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from typing import Any, NoReturn

import pytest

_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def program(name: str, package: str) -> str:
    """The path of a program, or the end of the test that asks for it."""
    path = shutil.which(name, path=_SBIN)
    if path is None:
        missing(name, package)
    return path


def missing(what: str, package: str) -> None:
    """End the test with what to install."""
    message = f"{what} is not installed: apt-get install -y --no-install-recommends {package}"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def module(name: str) -> Any:
    """A module of PyPI's, which tests/support/setup.sh installs, or the end of the test."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        _not_installed(f"{name} cannot be imported ({error})")


def installed(name: str) -> None:
    """As `module`, for a package that another process imports: no two bindings of Qt can be in one, and to look for a
    part of one would import the whole.
    """
    assert "." not in name
    if importlib.util.find_spec(name) is None:
        _not_installed(f"{name} is not installed")


def adapter(name: str) -> Any:
    """The host adapter's module, likewise."""
    return module(f"eventbridge.adapters.hosts.{name}")


def _not_installed(what: str) -> NoReturn:
    message = f"{what}: tests/support/setup.sh installs it"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
