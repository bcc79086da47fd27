"""How long to wait before trying to connect again: longer each time, up to a bound, and never all at the same moment.

Sans-IO: no clock; whoever asks waits.  A thousand managers whose daemon has been restarted must not come back in step,
so each wait is drawn at random from the upper part of its range.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds: the ``first`` wait, each ``factor`` times the one before, at most ``most``; of each, a random part of up
    to ``jitter`` (0 to 1) is left out.  ``tries``: how often; None: until it works or is closed.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.5
    tries: int | None = None

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.factor >= 1 and self.most >= self.first and 0 <= self.jitter <= 1):
            raise ValueError(
                f"{self!r}: first must be above 0, factor at least 1, most at least first, jitter from 0 to 1"
            )

    def waits(self, draw: random.Random | None = None) -> Iterator[float]:
        """The waits of one loss, in order."""
        drawn = draw or random.Random()
        wait, number = self.first, 0
        while self.tries is None or number < self.tries:
            yield wait * (1 - self.jitter * drawn.random())
            wait = min(wait * self.factor, self.most)
            number += 1
