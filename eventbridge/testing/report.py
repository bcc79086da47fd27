"""What a run of the suite has shown: which rules each host kept, in words for the terminal and in JSON for the matrix.

Pure data in, text out; the plugin brings what pytest says.  A rule is *kept* by a configuration (a class, and which
thread ran the loop) when tests that cite it passed and none failed, *broken* when one failed, and *not shown* where
none came to an end: skipped, without a host, or not selected.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from eventbridge.core.version import VERSION

from .conformance.rules import RULES

# What may become of a test, the worst last: one that is reported in several phases has the worst of them.
OUTCOMES = ("passed", "skipped", "no host", "failed")


@dataclass(slots=True)
class Shown:
    """One test."""

    rules: list[str]
    outcome: str
    why: str = ""


@dataclass(slots=True)
class Configuration:
    """One class, with the loop in one kind of thread."""

    loop: str
    library: str
    version: str
    name: str
    thread: str
    tests: dict[str, Shown] = field(default_factory=dict)

    def add(self, test: str, shown: Shown) -> None:
        """What a phase of a test came to."""
        known = self.tests.setdefault(test, shown)
        if OUTCOMES.index(shown.outcome) > OUTCOMES.index(known.outcome):
            self.tests[test] = shown

    def citing(self, rule: str, *outcomes: str) -> list[str]:
        """The tests of that rule that came to one of these."""
        return [name for name, shown in self.tests.items() if rule in shown.rules and shown.outcome in outcomes]

    @property
    def ran(self) -> int:
        return sum(shown.outcome in ("passed", "failed") for shown in self.tests.values())

    @property
    def kept(self) -> list[str]:
        return [rule for rule in RULES if self.citing(rule, "passed") and not self.citing(rule, "failed")]

    @property
    def broken(self) -> dict[str, list[str]]:
        return {rule: tests for rule in RULES if (tests := self.citing(rule, "failed"))}

    @property
    def not_shown(self) -> dict[str, str]:
        """With why: of a rule's tests that came to nothing the first's reason; "" where none was selected."""
        return {
            rule: next((self.tests[test].why for test in self.citing(rule, "skipped", "no host")), "")
            for rule in RULES
            if not self.citing(rule, "passed", "failed")
        }

    @property
    def absent(self) -> str:
        """Why nothing ran; "" where something did."""
        reasons = Counter(shown.why for shown in self.tests.values() if shown.why)
        return reasons.most_common(1)[0][0] if reasons and not self.ran else ""

    def line(self) -> str:
        """The report's."""
        of = (
            f"{self.name}, {self.thread}"
            if self.loop in ("", self.name)
            else f"{self.loop} ({self.name}, {self.thread})"
        )
        if not self.ran:
            return f"{of}: nothing shown: {self.absent or 'no test ran'}"
        said = [f"{of}: {len(self.kept)} of {len(RULES)} rules kept, {self.ran} tests"]
        said.extend(f"{rule} BROKEN by {', '.join(tests)}" for rule, tests in self.broken.items())
        reasons: dict[str, list[str]] = {}
        for rule, why in self.not_shown.items():
            reasons.setdefault(why, []).append(rule)
        others = len(reasons.pop("", ()))
        said.extend(f"{' '.join(rules)} not shown: {why}" for why, rules in reasons.items())
        if others:
            said.append(f"{others} rules' tests were not selected")
        skipped = [shown.why for shown in self.tests.values() if shown.outcome == "skipped"]
        if skipped and not reasons:
            said.append(f"{len(skipped)} skipped: {skipped[0]}")
        return "; ".join(said)

    def as_json(self) -> dict[str, Any]:
        return {
            "loop": self.loop or self.name,
            "library": self.library,
            "version": self.version,
            "name": self.name,
            "thread": self.thread,
            "kept": self.kept,
            "broken": self.broken,
            "not_shown": self.not_shown,
            "absent": self.absent,
            "tests": {name: asdict(shown) for name, shown in self.tests.items()},
        }


class Report:
    """All configurations of a run."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Configuration] = {}

    def add(self, told: dict[str, Any], outcome: str, why: str) -> None:
        """A phase of one test: what its process told of it (`plugin.told`), and what came of it."""
        key = (told["name"], told["thread"])
        if key not in self._found:
            self._found[key] = Configuration(told["loop"], told["library"], told["version"], *key)
        found = self._found[key]
        found.loop = found.loop or told["loop"]  # not known before a host was made
        found.add(told["test"], Shown(told["rules"], outcome, why))

    def configurations(self) -> list[Configuration]:
        return sorted(self._found.values(), key=lambda one: (one.loop, one.name, one.thread))

    def lines(self) -> Iterable[str]:
        return (one.line() for one in self.configurations())

    def as_json(self) -> dict[str, Any]:
        """Python's and the platform's versions with it."""
        return {
            "eventbridge": VERSION,
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
            "rules": RULES,
            "configurations": [one.as_json() for one in self.configurations()],
        }
