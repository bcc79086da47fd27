"""The rules that a host is held to, and which of them a test shows: those that its docstring cites.

The table is the contract's, a sentence each; the docstrings of `eventbridge.Bridge` say more.  Standard library only:
the matrix is made where there is no pytest.
"""

from __future__ import annotations

import functools
import re

RULES: dict[str, str] = {
    "H1": "handle ids start at 1, grow, and are never used again",
    "H2": "what is asked for is reported, errors and hang-ups always, and nothing at all to a mask of 0",
    "H3": "level-triggered: what is not drained is delivered again",
    "H4": "several handles on one fd each get what they asked for",
    "H5": "update and remove take effect at once, also inside a pass",
    "H6": "no call starts after remove has returned on the loop's thread",
    "H7": "free is called exactly once, on the loop's thread, with a clean stack, after the last call",
    "H8": "an unknown id raises, and changes nothing",
    "H9": "files that epoll refuses are always ready",
    "H10": "fds are never closed, and their flags never changed",
    "H11": "a handle is on a number: an fd closed before its handle harms nobody",
    "T1": "-1 is disabled, 0 every pass, n every n ms",
    "T2": "an update re-arms from now and takes effect at once, also while the loop sleeps",
    "T3": "never early",
    "T4": "a late loop fires a periodic timeout once",
    "T5": "a timeout's removal and free are as a handle's",
    "T6": "10,000 armed timeouts do not slow an idle pass",
    "D1": "callbacks come on the loop's thread alone",
    "D2": "a pass has a budget, then the host has its turn, and nobody starves",
    "D3": "timeouts come before handles",
    "D4": "a callback's exception is contained; KeyboardInterrupt and SystemExit propagate",
    "D5": "a callback may run the loop again: an event taken is delivered once",
    "D6": "any thread may call, while the loop sleeps too, and no lock is held over foreign code",
    "D7": "a forked child is refused, and the parent notices nothing",
    "D8": "close frees everything and then refuses; drain waits for the last",
    "D9": "registrations move to another loop, and nobody notices",
}

_CITED = re.compile(r"\b[HTD]\d{1,2}\b")


def cited(text: str | None) -> list[str]:
    """The rules that a docstring names, in the table's order."""
    found = set(_CITED.findall(text or ""))
    return [rule for rule in RULES if rule in found]


@functools.cache
def shown_by(cls: type, test: str) -> list[str]:
    """The rules that a class's test of this name shows; of one that was overridden, also what the original cites."""
    found: set[str] = set()
    for base in cls.__mro__:
        if test in vars(base):
            found.update(cited(vars(base)[test].__doc__))
    return [rule for rule in RULES if rule in found]


def names_of_tests(cls: type) -> list[str]:
    """The names of a conformance class's tests."""
    return [name for name in dir(cls) if name.startswith("test_")]
