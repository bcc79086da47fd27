"""The kit's report of rules kept: what is in it, from one process or several; and the rules that the suite cites."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

import eventbridge.testing
from eventbridge.testing import RULES, HostConformance
from eventbridge.testing.conformance.rules import cited, names_of_tests, shown_by
from eventbridge.testing.conformance.suite import PARTS
from eventbridge.testing.report import Report
from tests.support.command import environment
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow

PLUGIN = 'pytest_plugins = ["eventbridge.testing.plugin"]\n'
INI = "[pytest]\naddopts = -q -p no:cacheprovider -p no:hypothesispytest\nfilterwarnings = error\n"


def told(
    test: str, *rules: str, name: str = "Mine", thread: str = "tests-thread", loop: str = "mine"
) -> dict[str, Any]:
    return {
        "loop": loop,
        "library": "",
        "version": "",
        "name": name,
        "thread": thread,
        "test": test,
        "rules": list(rules),
    }


def run(directory: Path, tests: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """pytest's output, and its report of rules, of a test file in a project of its own."""
    (directory / "conftest.py").write_text(PLUGIN)
    (directory / "test_mine.py").write_text(textwrap.dedent(tests))
    (directory / "pytest.ini").write_text(
        "[pytest]\naddopts = -q -p no:cacheprovider -p no:hypothesispytest\nfilterwarnings = error\n"
    )
    env = {name: value for name, value in environment().items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rules-report=rules.json", *arguments],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (directory / "rules.json").exists(), done.stdout + done.stderr
    return done.stdout, json.loads((directory / "rules.json").read_text())


# -- the suite


def test_a_conformance_test_cites_a_rule() -> None:
    """In its docstring; those of the kit's own stand-ins for loops, too."""
    assert [test for test in names_of_tests(HostConformance) if not shown_by(HostConformance, test)] == []


def test_every_rule_is_cited() -> None:
    """All 26 of the contract: H1-H11, T1-T6, D1-D9."""
    assert [
        rule
        for rule in RULES
        if not any(rule in shown_by(HostConformance, test) for test in names_of_tests(HostConformance))
    ] == []
    assert [sum(rule.startswith(kind) for rule in RULES) for kind in "HTD"] == [11, 6, 9]


def test_what_a_docstring_cites() -> None:
    assert cited("T2 inside a pass, H11: disabled, or an hour later (H5).") == ["H5", "H11", "T2"]
    assert cited("H12, T0, XH1, H1x: none of them a rule.") == []
    assert cited(None) == []


def test_an_overridden_test_shows_what_the_original_does() -> None:
    class Mine(HostConformance):
        def test_never_early(self) -> None:
            """D3: by the way."""

    assert shown_by(Mine, "test_never_early") == ["T3", "D3"]


def test_a_failure_of_the_suite_shows_the_values() -> None:
    """The plugin has pytest rewrite the assertions of every part, before any is imported."""
    loaders = {part: sys.modules[f"eventbridge.testing.conformance.{part}"].__loader__ for part in PARTS}
    assert {part for part, loader in loaders.items() if not isinstance(loader, AssertionRewritingHook)} == set()


def test_importing_the_kit_imports_no_pytest() -> None:
    """Commands import from it, where there is none."""
    imports = "from eventbridge.testing import matrix; from eventbridge.testing.fakes import clock"
    program = f"import sys; {imports}; print('pytest' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "False\n", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        eventbridge.testing.Nothing  # noqa: B018  # that is the test


# -- what is made of the reports


def test_a_rule_is_kept_when_its_tests_passed_and_none_failed() -> None:
    report = Report()
    report.add(told("a", "H1", "H2"), "passed", "")
    report.add(told("b", "H2", "T1"), "failed", "AssertionError")
    report.add(told("c", "H3"), "skipped", "not here")
    report.add(told("d", "H1"), "skipped", "not here")
    (found,) = report.configurations()
    assert found.kept == ["H1"]
    assert found.broken == {"H2": ["b"], "T1": ["b"]}
    assert found.not_shown["H3"] == "not here" and found.not_shown["D1"] == ""
    assert found.line().startswith(
        "mine (Mine, tests-thread): 1 of 26 rules kept, 2 tests; H2 BROKEN by b; T1 BROKEN by b; H3 not shown: not here"
    )


@pytest.mark.parametrize(
    "phases, outcome",
    [
        (["passed", "passed", "passed"], "passed"),
        (["passed", "passed", "failed"], "failed"),
        (["no host", "passed"], "no host"),
        (["passed", "skipped", "passed"], "skipped"),
    ],
)
def test_the_worst_phase_of_a_test_counts(phases: list[str], outcome: str) -> None:
    report = Report()
    for phase in phases:
        report.add(told("a", "H1"), phase, phase)
    (found,) = report.configurations()
    assert found.tests["a"].outcome == outcome


def test_where_nothing_ran_the_line_says_why() -> None:
    report = Report()
    report.add(told("a", "H1", loop=""), "no host", "ImportError: nothing of the kind")
    report.add(told("a", "H1", thread="own-thread"), "passed", "")
    absent, ran = report.configurations()
    assert absent.line() == "Mine, tests-thread: nothing shown: ImportError: nothing of the kind"
    assert (absent.absent, ran.absent) == ("ImportError: nothing of the kind", "")


# -- pytest


def test_the_front_pages_example_works_as_it_stands(tmp_path: Path) -> None:
    """T3, H3 and, of the suite, a few tests: each with either thread."""
    page = inspect.getdoc(eventbridge.testing)
    assert page is not None
    example = re.search(r"::\n\n((?:    .*\n|\n)+)\n*Each conformance test", page)
    assert example is not None
    few = "never_early or ids_start or microsecond or was_read"
    output, report = run(tmp_path, example[1], "-k", few)
    assert "6 passed" in output, output
    lines = [line for line in output.splitlines() if line.startswith("select (MyHost, ")]
    assert len(lines) == 2 and all("2 of 26 rules kept, 2 tests" in line for line in lines)
    assert {one["thread"] for one in report["configurations"]} == {"tests-thread", "own-thread"}
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))


SOME_GO_WRONG = """
    import os
    import pytest
    from eventbridge.adapters.hosts.select import SelectHost
    from eventbridge.testing import HostConformance

    class Mine(HostConformance):
        own_thread = False

        @pytest.fixture
        def make_host(self):
            return SelectHost

    class TestGoesWell(Mine):
        def test_files_that_epoll_refuses_are_always_ready_for_what_was_asked(self):
            pytest.skip("no files here")

    class TestDies(Mine):
        def test_never_early(self):
            os._exit(7)

    class TestFails(Mine):
        library = "pytest"

        def test_never_early(self):
            assert 1 + 1 == 3

    class TestHasNoHost(Mine):
        @pytest.fixture
        def make_host(self):
            raise ImportError("no such loop")

    class TestSaysNothing(HostConformance):
        own_thread = True
"""


def test_workers_tell_and_the_controller_gathers(tmp_path: Path) -> None:
    """With xdist: a test that fails, one that is skipped, one that kills its worker, hosts that cannot be made."""
    few = "never_early or epoll_refuses or ids_start"
    output, report = run(tmp_path, SOME_GO_WRONG, "-n", "2", "-k", few, "--tb=short")
    found = {one["name"]: one for one in report["configurations"]}
    assert found.keys() == {"GoesWell", "Dies", "Fails", "HasNoHost", "SaysNothing"}
    assert found["GoesWell"]["kept"] == ["H1", "T3"]
    assert found["GoesWell"]["not_shown"]["H9"] == "no files here"
    assert found["Dies"]["broken"] == {"T3": ["test_never_early"]}
    assert found["Dies"]["tests"]["test_never_early"]["why"] == "the process died"
    assert found["Fails"]["broken"] == {"T3": ["test_never_early"]}
    assert "1 + 1" in found["Fails"]["tests"]["test_never_early"]["why"]
    assert (found["Fails"]["library"], found["Fails"]["version"]) == ("pytest", pytest.__version__)
    assert found["HasNoHost"]["absent"] == "ImportError: no such loop"
    assert "needs a fixture make_host" in found["SaysNothing"]["absent"]
    assert found["SaysNothing"]["thread"] == "own-thread"
    assert len(re.findall(r"BROKEN by test_never_early", output)) == 2
    assert output.count("rules kept ==") == 1, "the workers say nothing themselves"
    assert os.listdir(tmp_path).count("rules.json") == 1
