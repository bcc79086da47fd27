"""What every test has."""

import gc

import pytest

from eventbridge import dispatcher, mailbox
from tests.support import freezing

pytest_plugins = ["eventbridge.testing.plugin"]


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
