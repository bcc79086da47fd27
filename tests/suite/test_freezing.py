"""Freezing a process: in effect when it returns, and over when the test is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import freezing
from tests.support.command import run

THREADS = """
import sys, threading
for _ in range(8):
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose eight threads all compute."""
    command = [sys.executable, "-c", THREADS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def test_every_thread_has_stopped_when_freezing_returns_and_goes_on_after(busy: subprocess.Popen[bytes]) -> None:
    for _ in range(20):
        with freezing.freeze(busy.pid):
            assert set(freezing.states(busy.pid)) == {"T"}
        assert "T" not in freezing.states(busy.pid), "SIGCONT takes effect before kill(2) returns"


def test_what_is_left_frozen_is_thawed_once(busy: subprocess.Popen[bytes]) -> None:
    frozen = freezing.freeze(busy.pid)
    assert freezing.thaw_all() == 1
    assert "T" not in freezing.states(busy.pid)
    assert freezing.thaw_all() == 0
    frozen.thaw()


def test_a_process_that_was_killed_while_frozen_is_thawed_without_an_error(busy: subprocess.Popen[bytes]) -> None:
    with freezing.freeze(busy.pid):
        busy.kill()
        busy.wait()


FAILS_WITH_IT_FROZEN = """
import subprocess
import pytest
from tests.support import freezing

@pytest.fixture
def cat():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        yield cat
        cat.stdin.write(b"answer")
        cat.stdin.close()
        assert cat.stdout.read() == b"answer"
        print("the teardown was answered")

def test_fails_with_it_frozen(cat):
    freezing.freeze(cat.pid)
    assert False
"""


def test_a_frozen_process_goes_on_before_the_fixtures_of_a_failed_test_are_torn_down(tmp_path: Path) -> None:
    (tmp_path / "test_fails.py").write_text(FAILS_WITH_IT_FROZEN)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-rA", "--rootdir", str(tmp_path), str(tmp_path)]
    done = run(*command)
    assert done.returncode == 1, done.stdout
    assert "the teardown was answered" in done.stdout and "1 failed" in done.stdout
