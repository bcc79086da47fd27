"""What happens by itself: one story that all guests are in, out of one random number generator.

Sans-IO.  The same seed and number of domains tell the same story on every host, on every Python: of the generator only
``random()`` is used, whose sequence is promised to stay.

What is drawn ahead is whose turn it is and a number; what that guest then does is looked up in `guests.TRANSITIONS`
when its turn comes, in the state that it is in by then.  So a call that comes between changes what follows, leaves no
gap and makes nothing happen that does not fit; and where nobody calls, the story is its seed's alone.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from itertools import accumulate

from .guests import TRANSITIONS, Guest, Happening, State, Step
from .population import Cast

_SCALES = {state: list(accumulate(step.weight for step in steps)) for state, steps in TRANSITIONS.items()}


class Story:
    """Turns, in order, and each *lane*'s part of them.

    A lane is whatever carries a guest's happenings; ``lane_of(guest)`` is its lane's number.  `peek` looks ahead in
    the one story as far as the lane asked for needs, and keeps what is for others.  ``last``: how much happens.
    """

    def __init__(self, seed: int, cast: Cast, lane_of: Callable[[int], int], last: int | None = None) -> None:
        self._random = random.Random(seed).random
        self._cast = cast
        self._lane_of = lane_of
        self._last = last
        self._drawn = 0
        self._skipped = 0
        self._turns: deque[tuple[int, Guest, float]] = deque()
        self._ahead: dict[int, deque[int]] = {}  # the numbers of each lane's turns
        self._members = Counter(lane_of(guest.index) for guest in cast)
        cast.joined, cast.parted = self._joined, self._parted

    def peek(self, lane: int) -> int | None:
        """The number, from 1, of the lane's next turn; None when the story has ended, or has nobody there."""
        ahead = self._ahead.get(lane)
        if ahead is None:
            ahead = self._ahead[lane] = deque()
        while not ahead:
            if not self._members[lane] or not self._draw():
                return None
        return ahead[0]

    def take(self, by: float) -> Happening | None:
        """The next happening, of a turn whose number is at most ``by``; None: not yet, or none any more."""
        while self._turns or self._draw():
            number, guest, chance = self._turns[0]
            if number > by:
                break
            self._turns.popleft()
            self._ahead[self._lane_of(guest.index)].popleft()
            if not guest.left and TRANSITIONS[guest.state]:
                return self._cast.apply(guest, _chosen(guest.state, chance))
            self._skipped += 1
        return None

    def _draw(self) -> bool:
        members = self._cast.members
        if self._drawn - self._skipped == self._last or not members:
            return False
        self._drawn += 1
        guest = members[int(self._random() * len(members))]
        self._turns.append((self._drawn, guest, self._random()))
        lane = self._lane_of(guest.index)
        ahead = self._ahead.get(lane)
        if ahead is None:
            ahead = self._ahead[lane] = deque()
        ahead.append(self._drawn)
        return True

    def _joined(self, index: int) -> None:
        self._members[self._lane_of(index)] += 1

    def _parted(self, index: int) -> None:
        self._members[self._lane_of(index)] -= 1


def _chosen(state: State, chance: float) -> Step:
    scale = _SCALES[state]
    drawn = chance * scale[-1]
    for reach, step in zip(scale, TRANSITIONS[state], strict=True):
        if drawn < reach:
            return step
    raise AssertionError("random() is below 1")
