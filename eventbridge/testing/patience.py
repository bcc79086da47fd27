"""How long a test waits for what must happen, in one place.

Waiting costs nothing where all is well, so the patience is long.  A machine that is slow, emulated or busy with other
work is given more of it by an environment variable, which scales all waits of the kit.
"""

from __future__ import annotations

import os

VARIABLE = "EVENTBRIDGE_TEST_PATIENCE"


def _factor(text: str) -> float:
    """Return the number in ``text``.  Raises ValueError unless it is a number from 0.01 to 1000."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 1000:
        raise ValueError(f"{VARIABLE}={text!r}: give a number from 0.01 to 1000, such as 2 to wait twice as long")
    return number


FACTOR: float = _factor(os.environ.get(VARIABLE) or "1")
"""What EVENTBRIDGE_TEST_PATIENCE says: 1.0 where nobody says anything, 3 on a machine that is three times as slow."""

PATIENCE: float = 10.0 * FACTOR
"""Seconds until the kit gives a condition up, where a conformance class has no `patience` of its own."""
