"""The matrix of hosts and Pythons: made from the reports of runs, and the README's held to the suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventbridge.testing import RULES, matrix

KEPT = list(RULES)


def configuration(loop: str, name: str = "Mine", thread: str = "own-thread", **more: Any) -> dict[str, Any]:
    tests = {f"test_{number}": {"rules": [], "outcome": "passed", "why": ""} for number in range(9)}
    found = {"loop": loop, "library": "", "version": "", "name": name, "thread": thread, "kept": KEPT, "broken": {}}
    return {**found, "not_shown": {}, "absent": "", "tests": tests, **more}


def report(python: str, *configurations: dict[str, Any]) -> dict[str, Any]:
    return {"python": python, "configurations": configurations}


def body(table: str) -> list[str]:
    return table.splitlines()[2:]


def test_a_row_is_a_loop_with_all_that_it_was_run_as() -> None:
    table = matrix.table(
        [
            report(
                "3.11.7",
                configuration("select", "Poll", "tests-thread"),
                configuration("select", "Own"),
                configuration("select", "Own", "tests-thread"),
            )
        ]
    )
    assert body(table) == ["| select |  | Own, Poll (tests-thread) | 26 of 26, 27 tests |"]


def test_a_column_is_a_python_the_oldest_first_and_reports_of_one_are_united() -> None:
    table = matrix.table(
        [
            report("3.12.1", configuration("a", version="2.0")),
            report("3.9.10", configuration("a", version="1.0")),
            report("3.12.1", configuration("b")),
        ]
    )
    assert table.splitlines()[0] == "| loop | library | run as | Python 3.9.10 | Python 3.12.1 |"
    assert body(table)[0] == "| a | 1.0 / 2.0 | Mine (own-thread) | 26 of 26, 9 tests | 26 of 26, 9 tests |"
    assert body(table)[1] == "| b |  | Mine (own-thread) | — (1) | 26 of 26, 9 tests |"
    assert table.splitlines()[-1] == "1. not run"


def test_a_rule_that_one_configuration_broke_is_not_kept_and_named_below() -> None:
    broken = configuration("a", "Bad", kept=KEPT[1:], broken={"H1": ["test_ids"]})
    table = matrix.table([report("3.11.7", configuration("a"), broken)])
    assert "25 of 26, 18 tests (1) |" in table
    assert table.splitlines()[-1] == "1. Bad, own-thread: H1 is broken by test_ids"


def test_a_host_that_is_not_there_says_why_once_and_breaks_no_table() -> None:
    absent = [configuration("a", thread=thread, absent="no wheel | <b>", kept=[]) for thread in ("x", "y")]
    table = matrix.table([report("3.11.7", *absent), report("3.12.1", configuration("b", absent="no wheel | <b>"))])
    assert table.count("— (1)") == 2
    assert table.splitlines()[-1] == "1. no wheel \\| &lt;b>" or "2. not run" in table


def test_it_is_written_between_its_comments_and_can_be_read_back(tmp_path: Path) -> None:
    readme, reported = tmp_path / "README.md", tmp_path / "one.json"
    reported.write_text(
        '{"python": "3.11.7", "configurations": [{"loop": "a", "version": "1", "name": "Mine", "thread": "own-thread", '
        '"kept": ["H1"], "broken": {}, "not_shown": {"H2": ""}, "absent": "", "tests": {}}]}'
    )
    readme.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    for _ in range(2):
        assert matrix.main([str(reported), "--into", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert matrix.read_back(text) == {"a": ("Mine (own-thread)", ["1 of 26, 0 tests (1)"])}


def test_what_is_amiss_is_told_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme, other = tmp_path / "README.md", tmp_path / "other.json"
    readme.write_text("no place\n")
    other.write_text("{}")
    whole = tmp_path / "whole.json"
    whole.write_text('{"python": "3.11.7", "configurations": []}')
    for arguments, said in (
        (
            [str(whole), "--into", str(readme)],
            f"has no place for the matrix: write these two lines where it is to be:\n{matrix.BEGIN}",
        ),
        ([str(other)], "no report of pytest's --rules-report: it lacks 'python'"),
        ([str(tmp_path / "none.json")], "No such file"),
        ([str(readme)], "Expecting value"),
    ):
        assert matrix.main(arguments) == 1
        assert said in capsys.readouterr().err
    assert readme.read_text() == "no place\n"
