"""The matrix: which host keeps which rules on which Python, from the reports of as many runs.

    pytest --rules-report 3.11.json ...                      # once with each Python
    python -m eventbridge.testing.matrix 3.11.json 3.12.json 3.13.json --into README.md

A row is a loop (`base.Rules.loop`), with all classes and threads that it was run with; a column is a Python.  Reports
of one Python are united: a host may need a process of its own.  Standard library only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .conformance.rules import RULES

BEGIN = "<!-- written by python -m eventbridge.testing.matrix -->"
END = "<!-- end of what it wrote -->"
NOTHING = "—"

Found = dict[str, Any]  # one configuration, as report.Configuration.as_json has it


@dataclass(slots=True)
class Row:
    """One loop: its configurations, by Python."""

    loop: str
    cells: dict[str, list[Found]] = field(default_factory=dict)

    def everything(self) -> Iterator[Found]:
        for found in self.cells.values():
            yield from found

    def versions(self) -> str:
        """Of the loop's library; several where the Pythons have several."""
        return " / ".join(sorted({one["version"] for one in self.everything() if one["version"]}))

    def configurations(self) -> str:
        """The classes it was run as, and in which thread where it was one only."""
        threads: dict[str, set[str]] = {}
        for one in self.everything():
            threads.setdefault(one["name"], set()).add(one["thread"])
        return ", ".join(
            name if len(threads[name]) > 1 else f"{name} ({min(threads[name])})" for name in sorted(threads)
        )


def rows_of(reports: Iterable[dict[str, Any]]) -> tuple[list[Row], list[str]]:
    """The rows, by name, and the Pythons, oldest first."""
    rows: dict[str, Row] = {}
    pythons: set[str] = set()
    for report in reports:
        pythons.add(report["python"])
        for one in report["configurations"]:
            row = rows.setdefault(one["loop"], Row(one["loop"]))
            row.cells.setdefault(report["python"], []).append(one)
    in_order = sorted(pythons, key=lambda text: [int(part) if part.isdigit() else 0 for part in text.split(".")])
    return [rows[loop] for loop in sorted(rows)], in_order


def table(reports: Iterable[dict[str, Any]]) -> str:
    """In Markdown, with the reasons below it."""
    rows, pythons = rows_of(reports)
    notes: list[str] = []
    lines = [
        f"| loop | library | run as | {' | '.join(f'Python {python}' for python in pythons)} |",
        "| --- " * (3 + len(pythons)) + "|",
    ]
    for row in rows:
        cells = [_cell(row.cells.get(python, []), notes) for python in pythons]
        lines.append(f"| {' | '.join([row.loop, row.versions(), row.configurations(), *cells])} |")
    lines.extend(["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))] if notes else [])
    return "\n".join(lines)


def _cell(found: list[Found], notes: list[str]) -> str:
    """Rules that every configuration kept that ran, and tests of them all; or why there is nothing."""
    ran = [one for one in found if not one["absent"]]
    if not ran:
        return f"{NOTHING} {_note(next((one['absent'] for one in found), 'not run'), notes)}"
    kept = [rule for rule in RULES if all(rule in one["kept"] for one in ran)]
    tests = sum(shown["outcome"] in ("passed", "failed") for one in ran for shown in one["tests"].values())
    said = f"{len(kept)} of {len(RULES)}, {tests} tests"
    if len(kept) < len(RULES):
        said += " " + _note("; ".join(_amiss(one) for one in ran if len(one["kept"]) < len(RULES)), notes)
    return said


def _amiss(one: Found) -> str:
    broken = [f"{rule} is broken by {', '.join(tests)}" for rule, tests in one["broken"].items()]
    hidden = [f"{rule} is not shown: {why or 'not selected'}" for rule, why in one["not_shown"].items()]
    return f"{one['name']}, {one['thread']}: {'; '.join(broken + hidden)}"


def _note(text: str, notes: list[str]) -> str:
    """A reference to it; the same text is written once."""
    text = text.replace("|", "\\|").replace("<", "&lt;")
    if text not in notes:
        notes.append(text)
    return f"({notes.index(text) + 1})"


def read_back(text: str) -> dict[str, tuple[str, list[str]]]:
    """What a written table says: for each loop what it was run as, and its cells."""
    found = {}
    for line in text.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| ") and len(cells) > 3 and cells[0] not in ("loop", "---"):
            found[cells[0]] = (cells[2], cells[3:])
    return found


def write_into(path: Path, written: str) -> None:
    """Between the two comments, which must be there; ValueError where they are not."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"{path} has no place for the matrix: write these two lines where it is to be:\n{BEGIN}\n{END}"
        )
    path.write_text(f"{before}{begin}\n\n{written}\n\n{end}{after}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eventbridge.testing.matrix", description=__doc__.split("\n")[0])
    parser.add_argument("reports", nargs="+", metavar="FILE.json", help="what pytest --rules-report wrote")
    parser.add_argument("--into", metavar="FILE.md", type=Path, help="write it there, between the two comments for it")
    args = parser.parse_args(argv)
    try:
        written = table([json.loads(Path(path).read_text()) for path in args.reports])
        if args.into is None:
            print(written)
        else:
            write_into(args.into, written)
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"no report of pytest's --rules-report: it lacks {error}" if isinstance(error, KeyError) else str(error)
        print(f"{parser.prog}: {told}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
