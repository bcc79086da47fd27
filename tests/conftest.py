"""What every test has."""

import gc

pytest_plugins = ["eventbridge.testing.plugin"]


def pytest_collection_finish() -> None:
    """Tests that look for what is left collect garbage, and would go through the thousands of tests each time."""
    gc.collect()
    gc.freeze()
