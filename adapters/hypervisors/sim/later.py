"""What a call returns that is answered by somebody else, later."""

from __future__ import annotations

from typing import Final


class _Later:
    def __repr__(self) -> str:
        return "LATER"


LATER: Final = _Later()
