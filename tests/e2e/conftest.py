"""What the tests of whole commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.announced_driver import announce
from tests.support.command import environment


@pytest.fixture
def announced(tmp_path: Path) -> dict[str, str]:
    """An environment in which somebody else's driver, for ``fake:///``, is installed."""
    return environment(announce(tmp_path))
