"""The pytest plugin: a report of rules kept, and the kit's stand-ins as fixtures.

    pytest_plugins = ["eventbridge.testing.plugin"]     # in your top-level conftest.py

Each conformance test tells with its report which rules it shows (its docstring cites them) and on what.  Under
pytest-xdist it is the workers that run tests, and their reports, with that in them, that reach the controller, which
alone gathers and writes.

It is not announced as an entry point (``pytest11``): pytest would then load it, and rewrite the assertions of all of
eventbridge, in every test run of every environment that eventbridge is installed in.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from eventbridge.core import dispatcher, mailbox

from .conformance.rules import shown_by
from .conformance.suite import THREADS, HostConformance, Rules
from .fakes.clock import FakeClock
from .fakes.scripted import ScriptedFd
from .fakes.stepping import SteppingHost
from .report import Report

# -- fixtures


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """Time stands still for the core, and for every bridge that is made in this test, until ``clock.advance``."""
    with FakeClock().installed() as clock:
        yield clock


@pytest.fixture
def stepping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SteppingHost:
    """A stand-in for a host: one pass for each ``stepping.step()``.

    A pass ends by the number of its callbacks alone (D2), so that a step does the same on a machine that keeps the test
    waiting; where the test has the ``clock``, whose time is the test's, also by its time.
    """
    if "clock" not in request.fixturenames:
        for module in (dispatcher, mailbox):
            monkeypatch.setattr(module, "BUDGET_SECONDS", float("inf"))
    return SteppingHost()


@pytest.fixture
def scripted_fd() -> Iterator[Callable[..., ScriptedFd]]:
    """Makes scripted fds, as `ScriptedFd` does, which are closed when the test is over."""
    with contextlib.ExitStack() as stack:

        def make(*args: Any, **kwargs: Any) -> ScriptedFd:
            fd = ScriptedFd(*args, **kwargs)
            stack.callback(fd.end)
            return fd

        yield make


@pytest.fixture
def make_host() -> Callable[[], Any]:
    """What a conformance class is without one of its own."""
    pytest.fail(
        "a conformance class needs a fixture make_host, in the class or in a conftest, that returns what makes a "
        "fresh host: see eventbridge.testing",
        pytrace=False,
    )


# -- the report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("eventbridge").addoption(
        "--rules-report", metavar="FILE.json", help="write which rules of eventbridge's contract each host kept"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Gatherer(config), "eventbridge-rules")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    cls = getattr(item, "cls", None)
    if isinstance(cls, type) and issubclass(cls, Rules):
        report.conformance = told(item, cls)  # type: ignore[attr-defined]  # a report takes any attribute,
        report.conformance_outcome = _outcome(item, report, call)  # type: ignore[attr-defined]  # and xdist carries it
    return report


def told(item: pytest.Item, cls: type[Rules]) -> dict[str, Any]:
    """What a test's process tells of it: simple types, for they go from process to process."""
    test = getattr(item, "originalname", item.name)
    callspec = getattr(item, "callspec", None)
    own = cls.own_thread if cls.own_thread is not None else callspec and callspec.params.get("_rig")
    return {
        "loop": cls.loop or getattr(item, "conformance_host", ""),
        "library": cls.library,
        "version": _version(cls.library),
        "name": cls.__name__.removeprefix("Test"),
        "thread": next(name for name, value in THREADS.items() if value == bool(own)),
        "test": test,
        "rules": shown_by(cls, test),  # type: ignore[arg-type]  # mypy does not see that a class is hashable
    }


@functools.cache  # three reports a test, and a look through all that is installed
def _version(library: str) -> str:
    try:
        return version(library) if library else ""
    except PackageNotFoundError:
        return ""


def _outcome(item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[str, str]:
    """One of `report.OUTCOMES`, and why, in a line."""
    if report.passed and not hasattr(report, "wasxfail"):
        return "passed", ""
    why = getattr(report, "wasxfail", "") or ("" if call.excinfo is None else _why(call.excinfo.value))
    if report.failed or hasattr(report, "wasxfail"):
        return ("failed" if hasattr(item, "conformance_host") else "no host"), why
    return "skipped", why


def _why(error: BaseException) -> str:
    plain = isinstance(error, pytest.skip.Exception | pytest.fail.Exception)
    return " ".join((str(error) if plain else f"{type(error).__name__}: {error}").split("\n")[0].split())


class _Gatherer:
    """What the process that is in charge makes of the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._report = Report()
        self._path: str | None = config.getoption("--rules-report")
        self._in_charge = not hasattr(config, "workerinput")  # not one of xdist's workers

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "conformance"):
            self._report.add(report.conformance, *report.conformance_outcome)
        elif str(report.when) == "???":  # xdist's own report of a test in which a worker died
            self._crashed(report.nodeid)

    def _crashed(self, nodeid: str) -> None:
        """The host has taken its process down: known is the test's name alone."""
        *_, name, test = ["", *nodeid.split("::")]
        test, _, id = test.partition("[")
        configuration = next((one for one in self._report.configurations() if f"Test{one.name}" == name), None)
        if configuration is None and not hasattr(HostConformance, test):
            return
        told = {
            "loop": configuration.loop if configuration else "",
            "library": configuration.library if configuration else "",
            "version": configuration.version if configuration else "",
            "name": name.removeprefix("Test"),
            "thread": next((thread for thread in THREADS if thread in id), "tests-thread"),
            "test": test,
            "rules": shown_by(HostConformance, test),
        }
        self._report.add(told, "failed", "the process died")

    def pytest_sessionfinish(self) -> None:
        if self._in_charge and self._path:
            Path(self._path).write_text(json.dumps(self._report.as_json(), indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        lines = list(self._report.lines())
        if lines:
            terminalreporter.section("rules kept")
            for line in lines:
                terminalreporter.write_line(line, red="BROKEN" in line)
