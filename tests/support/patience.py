"""How long this project's tests wait for what must happen: one constant, for every test and every helper.

It is as long as a test's own limit allows, for it is used up only where something is broken.  The environment variable
EVENTBRIDGE_TEST_PATIENCE scales it, together with the limits (`tests.support.limits`).
"""

from __future__ import annotations

import asyncio

from eventbridge.testing.patience import FACTOR as FACTOR

PATIENCE: float = 50.0 * FACTOR
"""Seconds."""


def patience(times: float = 2.0) -> asyncio.Timeout:
    """Return ``async with patience():``, which raises TimeoutError into what hangs inside; for some waits together."""
    return asyncio.timeout(times * PATIENCE)


def renew(limit: asyncio.Timeout, times: float = 2.0) -> None:
    """Begin the limit of an ``async with patience() as limit:`` anew, in each round of a test that has many: what hangs
    is ended as soon, and a slow machine takes longer and passes.
    """
    limit.reschedule(asyncio.get_running_loop().time() + times * PATIENCE)
