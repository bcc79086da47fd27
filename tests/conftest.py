"""What every test has."""

import collections
import gc
import resource
import signal
from pathlib import Path

import pytest

from eventbridge.core import dispatcher, mailbox
from tests.support import freezing, markers, waking, wanted

pytest_plugins = ["eventbridge.testing.plugin", "tests.support.limits"]

waking.check_every_wait()

FILES = 20_000
"""Open files that a process of the tests may have, if its hard limit allows: the common soft limit of 1024 is too low
for tests with thousands of fds, and for loops that never give back one each (rloop's and gbulb's, 700 in all)."""

_, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if _hard == resource.RLIM_INFINITY else min(FILES, _hard), _hard))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control has its background jobs ignore SIGINT (POSIX, 2.11), a CI runner often has too, and
    # each program that a test starts would inherit that and never see its Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    markers.mark(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return markers.absent(path, parent)


@pytest.hookimpl(tryfirst=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return markers.absent(file_path, parent) if file_path.name.startswith("test_") else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, by reason: in a run that is green one looks for what it does not show."""
    reasons = collections.Counter(wanted.reason(report) for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section("skipped")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    markers.runs(item)


def pytest_collection_finish() -> None:
    """Tests that look for what is left collect garbage, and would go through the thousands of tests each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """What a test has frozen goes on before its fixtures are torn down, which may wait for it in C."""
    freezing.thaw_all()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass ends by the number of its calls alone (D2), however long the machine keeps it waiting."""
    for module in (dispatcher, mailbox):
        monkeypatch.setattr(module, "BUDGET_SECONDS", 60.0)


@pytest.fixture(autouse=True)
def a_step_is_a_whole_round(request: pytest.FixtureRequest) -> None:
    """Of a `SteppingHost`.  Where time is the subject there is a clock that stands, and the kit's classes are on loops
    that run.
    """
    if hasattr(request.module, "SteppingHost") and request.cls is None and "clock" not in request.fixturenames:
        request.getfixturevalue("unhurried")
