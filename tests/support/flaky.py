"""Finds the tests that fail now and then: the suite, many times, in random order, beside busy processors.

    make flaky                                  # 3 runs beside 2 processes that compute without end
    make flaky N=10 HOGS=2                      # 10 runs
    python -m tests.support.flaky --runs 0      # the table of what was found so far
    python -m tests.support.flaky --runs 5 -- tests/connection -k lost

The runs are made in a checkout of its own, of the commit that is checked out here, so that the files here may be edited
meanwhile.  Each run's outcome is appended, as one line of JSON, to a file of that commit in the tests' cache: runs that
are made later continue the table.  The exit status is 1 where any run of the table had a failure.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support import cache
from tests.support.command import ROOT

HOG = [sys.executable, "-S", "-E", "-c", "while True: pass"]
COMMIT_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the suite."""

    at: float
    """Unix seconds, at its beginning."""
    seconds: float
    hogs: int
    seed: int
    """Of the order of its tests."""
    options: list[str]
    status: int
    """pytest's exit status."""
    passed: int
    failed: dict[str, str]
    """A test, as the report names it, and the first line of what was wrong with it."""
    skipped: dict[str, str]
    """A test, and why it was skipped."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    commit = _git("rev-parse", f"--short={COMMIT_DIGITS}", "HEAD")
    file = cache.directory() / "flaky" / f"{commit}.jsonl"
    if args.runs:
        if _git("status", "--porcelain"):
            _say("the tree has changes that are not committed; the runs are of the commit")
        tree = prepared(commit)
        file.parent.mkdir(exist_ok=True)
        for number in range(1, args.runs + 1):
            print(
                f"flaky: run {number} of {args.runs} of {commit}, beside {args.hogs} hogs", file=sys.stderr, flush=True
            )
            with hogs(args.hogs):
                run = run_once(tree, args.hogs, args.options, file.parent)
            with file.open("a") as stream:
                stream.write(json.dumps(dataclasses.asdict(run)) + "\n")
            _say(_outcome(run))
    runs = recorded(file)
    print(table(commit, runs))
    return int(any(run.status for run in runs))


def prepared(commit: str) -> Path:
    """Return a checkout of the commit, with a virtual environment.  It is kept in the cache, for the next time."""
    tree = cache.directory() / "flaky" / "tree"
    if not (tree / ".git").exists():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(tree)], check=True)
    subprocess.run(["git", "fetch", "--quiet", str(ROOT), "HEAD"], cwd=tree, check=True)
    subprocess.run(["git", "checkout", "--quiet", "--force", "--detach", commit], cwd=tree, check=True)
    subprocess.run(["git", "clean", "--quiet", "-fd"], cwd=tree, check=True)
    subprocess.run(["tests/support/setup.sh", ".venv", "test"], cwd=tree, check=True)
    return tree


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that compute without end, at the common priority."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen(HOG, stdin=subprocess.DEVNULL))
            stack.callback(process.kill)
        yield


def run_once(tree: Path, beside: int, options: list[str], directory: Path) -> Run:
    """Run the suite as ``make test`` does, in an order that the seed gives."""
    seed = random.SystemRandom().randrange(1 << 32)
    report = directory / f"report-{os.getpid()}.xml"
    command = [str(tree / ".venv/bin/python"), "-m", "pytest", "-n", "4", "--dist", "worksteal", "-p", "randomly"]
    command += [f"--randomly-seed={seed}", f"--junitxml={report}", *options]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    at, began = time.time(), time.monotonic()
    done = subprocess.run(command, cwd=tree, env={**environment, "CI": "true"}, stdin=subprocess.DEVNULL, check=False)
    seconds = time.monotonic() - began
    passed, failed, skipped = read(report)
    report.unlink(missing_ok=True)
    if done.returncode and not failed:
        failed["(the run)"] = f"pytest ended with status {done.returncode}"
    return Run(at, seconds, beside, seed, options, done.returncode, passed, failed, skipped)


def read(report: Path) -> tuple[int, dict[str, str], dict[str, str]]:
    """Return how many tests passed, and which failed and were skipped with why, out of a report in JUnit's form."""
    passed, failed, skipped = 0, dict[str, str](), dict[str, str]()
    if not report.exists():
        return passed, failed, skipped
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        wrong = [part for part in case if part.tag in ("failure", "error")]
        left_out = case.find("skipped")
        if wrong:
            failed[name] = _first_line(wrong[0].get("message") or wrong[0].text or "")
        elif left_out is not None:
            skipped[name] = _first_line(left_out.get("message") or "")
        else:
            passed += 1
    return passed, failed, skipped


def recorded(file: Path) -> list[Run]:
    """Return the runs of a file, in the order in which they were made."""
    return [Run(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def table(commit: str, runs: Sequence[Run]) -> str:
    """Return what is known of a commit: its runs, every test that failed with how often, and why tests were skipped."""
    if not runs:
        return f"no run of {commit} is recorded: make flaky"
    failures = collections.Counter(name for run in runs for name in run.failed)
    words = {name: why for run in runs for name, why in run.failed.items()}
    lines = [f"{commit}: {len(runs)} runs, {sum(bool(run.status) for run in runs)} of them with failures", ""]
    lines += ["| run | hogs | seconds | passed | failed | skipped |", "|---|---|---|---|---|---|"]
    for number, run in enumerate(runs, 1):
        row = (number, run.hogs, f"{run.seconds:.0f}", run.passed, len(run.failed), len(run.skipped))
        lines.append(f"| {' | '.join(map(str, row))} |")
    if failures:
        lines += ["", "| test | failed in | what was wrong the last time |", "|---|---|---|"]
        lines += [f"| {name} | {count} of {len(runs)} | {words[name]} |" for name, count in failures.most_common()]
    lines += _skips(runs)
    return "\n".join(lines)


def _skips(runs: Iterable[Run]) -> list[str]:
    reasons = collections.Counter(why for run in runs for why in run.skipped.values())
    return ["", *(f"skipped, {count} in all: {why}" for why, count in reasons.most_common())] if reasons else []


def _outcome(run: Run) -> str:
    names = "".join(f"\n  {name}: {why}" for name, why in run.failed.items())
    return f"{run.passed} passed, {len(run.failed)} failed, {len(run.skipped)} skipped in {run.seconds:.0f} s{names}"


def _say(what: str) -> None:
    print(f"flaky: {what}", file=sys.stderr, flush=True)


def _first_line(text: str) -> str:
    return " ".join(text.strip().partition("\n")[0].split())[:200].replace("|", "/")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.flaky",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=3, help="how many (default: %(default)s); 0: the table alone")
    parser.add_argument("--hogs", type=int, default=2, help="busy processes beside them (default: %(default)s)")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="pytest's, after --")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        _say("interrupted: the runs that had ended are recorded")
        sys.exit(130)
