"""What every test has."""

import gc

import pytest

from eventbridge import dispatcher, mailbox

pytest_plugins = ["eventbridge.testing.plugin"]


def pytest_collection_finish() -> None:
    """Tests that look for what is left collect garbage, and would go through the thousands of tests each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of a `SteppingHost` does all that there is to do, however long the machine keeps it waiting: a pass of
    its bridges ends by the number of its calls alone (H3).  Where time is the subject there is a clock that stands, and
    the kit's classes are on loops that run.
    """
    if hasattr(request.module, "SteppingHost") and request.cls is None and "clock" not in request.fixturenames:
        for module in (dispatcher, mailbox):
            monkeypatch.setattr(module, "BUDGET_SECONDS", 60.0)
