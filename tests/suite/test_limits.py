"""What `tests.support.limits` promises: whatever a test hangs in, end of the report and named, and the run goes on.

Each test here runs a private pytest on planted tests that hang in one way each.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import environment, interruptible
from tests.support.limits import watchdog
from tests.support.patience import FACTOR, PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LIMIT, GRACE = 4, 1  # of what has no mark, in the private run: seconds
OPTIONS = f"-p tests.support.limits -p no:hypothesispytest -p no:randomly -o timeout={LIMIT} -o limits_grace={GRACE}"

PLANTED = """
import atexit, ctypes, os, signal, subprocess, threading, time
import pytest

hanging = pytest.mark.timeout(1)
HOLDING = ctypes.PyDLL(None)  # its calls keep the interpreter's lock
LETTING_GO = ctypes.CDLL(None)


def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def hang_for_ever():
    block()
    HOLDING.sleep(10_000)


def test_fine_before():
    pass


@hanging
def test_holds_the_lock():
    hang_for_ever()


@hanging
def test_hangs_in_c():
    block()
    LETTING_GO.sleep(10_000)


@hanging
def test_is_stopped():
    os.kill(os.getpid(), signal.SIGSTOP)
    hang_for_ever()


@hanging
def test_ignores_its_own_timeout():
    while True:
        try:
            time.sleep(10_000)
        except BaseException:
            pass


@pytest.fixture
def hangs_at_its_setup():
    hang_for_ever()


@pytest.fixture
def hangs_at_its_teardown():
    yield
    hang_for_ever()


@hanging
def test_setup(hangs_at_its_setup):
    pass


@hanging
def test_teardown(hangs_at_its_teardown):
    pass


@hanging
def test_leaves_processes():
    children = [subprocess.Popen(["sleep", "10000"], start_new_session=bool(n)) for n in range(2)]
    children[0].send_signal(signal.SIGSTOP)
    subprocess.run(["sh", "-c", "sleep 10000 &"])
    hang_for_ever()


@hanging
def test_is_woken_by_the_report():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    LETTING_GO.sleep(10_000)


def test_fine_after():
    pass


class TestAtExit:
    def test_leaves_a_callback(self):
        atexit.register(hang_for_ever)

    def test_leaves_a_thread(self):
        threading.Thread(target=time.sleep, args=[10_000]).start()

    def test_leaves_a_thread_that_takes_the_lock_at_the_end(self):
        def later(main=threading.main_thread()):
            while main.is_alive():
                time.sleep(0.01)
            hang_for_ever()

        threading.Thread(target=later).start()
"""
BODY = ("holds_the_lock", "hangs_in_c", "is_stopped", "ignores_its_own_timeout", "leaves_processes")
WHERE = {**dict.fromkeys(BODY, "its body"), "setup": "its setup", "teardown": "its teardown"}
AT_EXIT = ("leaves_a_callback", "leaves_a_thread", "leaves_a_thread_that_takes_the_lock_at_the_end")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def mark() -> str:
    """In the environment of all that a private pytest starts."""
    return f"LIMITS_TEST={uuid.uuid4().hex}"


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Start]:
    """Start a private pytest; in the end nothing of it is left."""
    (tmp_path / "test_planted.py").write_text(PLANTED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def start(*arguments: str) -> subprocess.Popen[str]:
        env = environment(TMPDIR=str(tmp_path), **dict([mark.split("=")]))
        env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-q", *OPTIONS.split(), *arguments]
        pipe = subprocess.PIPE
        with interruptible():
            started = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True)
        processes.append(started)
        return started

    processes: list[subprocess.Popen[str]] = []
    try:
        yield start
        wait_until(lambda: not marked(mark))
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        for process in processes:
            process.communicate()


def marked(mark: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended
    return found


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=5 * PATIENCE)
    return process.returncode, out, err


def reported(err: str, name: str, where: str) -> str:
    """What the watchdog says about it: it is there, and once."""
    reports = re.findall(
        r"^\+\+\+\+ (.*? outlived its limit .*?)^\+\+\+\+ end of the report \+\+\+\+$", err, flags=re.M | re.S
    )
    (report,) = [
        one for one in reports if re.match(rf"{re.escape(name)} outlived its limit of \S+ s in {where} \(", one)
    ]
    return report


def test_a_healthy_run_has_no_watchdog_left_and_says_nothing_of_it(start: Start) -> None:
    code, out, err = ended(start("-k", "fine"))
    assert (code, err) == (0, "")
    assert "2 passed" in out


def test_healthy_workers_have_no_watchdog_left_and_say_nothing_of_it(start: Start) -> None:
    code, out, err = ended(start("-k", "fine", "-n2"))
    assert (code, err) == (0, "")
    assert "2 passed" in out and "watchdog" not in out


@pytest.mark.parametrize("name", WHERE)
def test_a_process_that_hangs_ends_with_1_and_the_tests_name(start: Start, name: str) -> None:
    code, out, err = ended(start("-vv", "-k", f"fine_before or test_{name}"))
    assert code == 1
    assert "test_fine_before PASSED" in out
    report = reported(err, f"test_planted.py::test_{name}", WHERE[name])
    assert shows_the_stacks(report)


def shows_the_stacks(report: str) -> bool:
    """By a debugger, or, of a process that can do so, by itself."""
    if re.search(r"(in hang_for_ever|pytest_pyfunc_call)$|(hang_for_ever|pytest_pyfunc_call) \(", report, flags=re.M):
        return True
    return not debuggers_work() and re.search("^-- it (blocks|is stopped)", report, flags=re.M) is not None


@functools.cache
def debuggers_work() -> bool:
    """Containers often forbid what they need."""
    program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as python:
        command = [program, "dump", "--pid", str(python.pid)]
        return program is not None and not subprocess.run(command, capture_output=True, check=False).returncode


def test_workers_that_hang_are_replaced_and_the_run_goes_on(start: Start) -> None:
    code, out, err = ended(start("-n2", "--dist", "worksteal", "-k", "not AtExit and not woken"))
    assert code == 1
    assert f"{len(WHERE)} failed, " in out.splitlines()[-1]
    assert "2 passed" in out or "3 passed" in out, "a test's body may be reported before its teardown hangs"
    for name, where in WHERE.items():
        assert re.search(rf"worker 'gw\d' crashed while running 'test_planted\.py::test_{name}'", out)
        assert f"test_planted.py::test_{name} outlived its limit of {FACTOR:g} s in {where}" in out
        assert shows_the_stacks(reported(err, f"test_planted.py::test_{name}", where))


@pytest.mark.parametrize("workers", ["", "-n1"])
def test_a_test_that_was_interrupted_by_its_report_is_not_mistaken_for_the_next(start: Start, workers: str) -> None:
    """It has gone on.  Whether it was killed in time or not, the run fails because of it, and of no other test."""
    code, out, err = ended(start("-k", "woken or fine_after", *workers.split()))
    assert code == 1
    reported(err, "test_planted.py::test_is_woken_by_the_report", "its body")
    assert "test_fine_after outlived" not in err
    assert "running 'test_planted.py::test_fine_after'" not in out
    assert not workers or "passed" in out


BETWEEN_TESTS = """
import os, pytest, test_planted


class Outermost:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self):
        yield
        test_planted.hang_for_ever()


def pytest_sessionstart(session):
    if "PYTEST_XDIST_WORKER" in os.environ:
        session.config.pluginmanager.register(Outermost())
"""


def test_a_worker_that_hangs_between_tests_is_ended_by_the_controllers_watchdog(start: Start, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(BETWEEN_TESTS)
    code, _, err = ended(start("-n1", "-k", "fine", "-o", "timeout=1", "-o", "limits_grace=3"))
    assert code == 1
    reported(err, "pytest", "waiting for news from its workers")


@pytest.mark.parametrize("name", AT_EXIT)
def test_a_process_that_hangs_at_its_end_has_told_its_results_and_ends_with_1(start: Start, name: str) -> None:
    code, out, err = ended(start("-k", f"fine or (AtExit and {name} and not {name}_)"))
    assert code == 1
    assert "3 passed" in out
    reported(err, "pytest", "exit")


@pytest.mark.parametrize("name", AT_EXIT)
def test_workers_that_hang_at_their_end_make_the_run_fail(start: Start, name: str) -> None:
    code, out, err = ended(start("-n2", "-k", f"fine or (AtExit and {name} and not {name}_)"))
    assert code == 1
    assert "3 passed" in out
    report = reported(err, "pytest", "exit")
    assert "worker gw" in report
    assert re.search(
        r"= ended by a watchdog =+\npytest outlived its limit of \S+ s in exit \(process \d+, worker gw", out
    )


@pytest.mark.parametrize("workers", ["", "-n2"])
@pytest.mark.parametrize(
    ("hook", "where"),
    [("pytest_collection_modifyitems", "collection"), ("pytest_sessionfinish", "the session's finish")],
)
def test_a_hook_that_hangs_is_ended_too(start: Start, tmp_path: Path, workers: str, hook: str, where: str) -> None:
    planted = f"import os, test_planted\ndef {hook}():\n    "
    planted += (
        "if 'PYTEST_XDIST_WORKER' in os.environ: test_planted.hang_for_ever()"
        if workers
        else "test_planted.hang_for_ever()"
    )
    (tmp_path / "conftest.py").write_text(f"{planted}\n")
    code, out, err = ended(start("-k", "fine", "-o", "timeout=2", *workers.split()))
    assert code == 1
    assert "pytest outlived its limit of" in err and f" in {where} (" in err
    if workers:
        assert f" in {where} (" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_pytest(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start_waiting(start, tmp_path)
    process.send_signal(number)
    code, out, _ = ended(process)
    assert code == (2 if number == signal.SIGINT else -number)
    assert ("KeyboardInterrupt" in out) == (number == signal.SIGINT)


@pytest.mark.parametrize("workers", ["", "-n1"])
def test_no_watchdog_outlives_a_run_that_is_killed(start: Start, tmp_path: Path, mark: str, workers: str) -> None:
    """Though the test has forked a child, which lives on and has all that a fork inherits."""
    (tmp_path / "fork").touch()
    process = start_waiting(start, tmp_path, *workers.split())
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    wait_until(lambda: marked(mark) == [int((tmp_path / "child").read_text())])
    (tmp_path / "go on").touch()


@pytest.mark.parametrize("workers", ["", "-n1"])
def test_a_test_process_that_dies_takes_its_watchdog_along(
    start: Start, tmp_path: Path, mark: str, workers: str
) -> None:
    (tmp_path / "fork").touch()
    process = start_waiting(start, tmp_path, *workers.split())
    os.kill(int((tmp_path / "waits").read_text()), signal.SIGKILL)
    if not workers:
        wait_until(lambda: marked(mark) == [int((tmp_path / "child").read_text())])
    (tmp_path / "go on").touch()
    code, out, err = ended(process)
    assert code == (1 if workers else -signal.SIGKILL)
    assert "outlived" not in out + err


def start_waiting(start: Start, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """A run that is in a test; the file "waits" has the id of the process."""
    (directory / "test_waits.py").write_text(
        "import os, pathlib, time\n"
        "def test_waits():\n"
        "    while_waiting = lambda: os.path.exists('go on') or time.sleep(0.01)\n"
        "    if os.path.exists('fork'):\n"
        "        if (child := os.fork()) == 0:\n"
        "            while not while_waiting(): pass\n"
        "            os._exit(0)\n"
        "        pathlib.Path('child').write_text(str(child))\n"
        "    pathlib.Path('waiting').write_text(str(os.getpid()))\n"
        "    os.rename('waiting', 'waits')\n"
        "    while not while_waiting(): pass\n"
    )
    process = start("test_waits.py", "-o", "timeout=100", *arguments)
    wait_until((directory / "waits").exists)
    return process


def test_time_in_which_the_watchdog_did_not_run_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As when a terminal's ctrl-Z has stopped all processes."""
    now, stood_still = 0.0, [100.0]

    class Poll:
        def register(self, *_: int) -> None:
            pass

        def poll(self, ms: float) -> list[tuple[int, int]]:
            nonlocal now
            now += stood_still.pop() if stood_still and ms else ms / 1000
            return []

    memory = os.memfd_create("memory")
    os.ftruncate(memory, watchdog.SIZE)
    os.pwrite(memory, watchdog.RECORD.pack(3.0, 2.0, b"its teardown", b"test_it"), watchdog.AT)
    options = {"pid": os.getpid(), "memory": memory, "directory": tmp_path, "token": "", "report": 1}
    watching = watchdog.Watchdog({name: str(value) for name, value in options.items()})
    ends: list[tuple[float, str]] = []
    monkeypatch.setattr(watching, "end", lambda what, number: ends.append((now, what)) is None)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now)
    monkeypatch.setattr(watchdog.select, "poll", Poll)
    outlived = watching.watch()
    monkeypatch.undo()
    os.close(watching.alive)
    ((when, what),) = ends
    assert what == outlived and "test_it" in what and "teardown" in what
    assert 100 + 3.0 <= when < 100 + 3.0 + 2 * watchdog.TICK


def test_limits_are_scaled(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration's and the marks'; what the command line says is taken as it is."""
    (tmp_path / "test_limits.py").write_text(
        "import pytest\n"
        "@pytest.fixture(autouse=True)\n"
        "def limit(request):\n"
        "    return request.config.pluginmanager.get_plugin('limits')._item_limit\n"
        "def test_plain(limit): print('plain', limit)\n"
        "@pytest.mark.timeout(4)\n"
        "def test_marked(limit): print('marked', limit)\n"
        "@pytest.mark.timeout(0)\n"
        "def test_unlimited(limit): print('unlimited', limit)\n"
    )
    monkeypatch.setenv("EVENTBRIDGE_TEST_PATIENCE", "2.5")
    code, out, _ = ended(start("-s", "test_limits.py", "-o", "timeout=20"))
    assert code == 0
    said = dict(re.findall(r"(plain|marked|unlimited) ([\d.]+)", out))
    assert said == {"plain": "50.0", "marked": "10.0", "unlimited": "0.0"}


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "much"])
def test_a_patience_that_makes_no_sense_is_refused(value: str) -> None:
    env = environment(EVENTBRIDGE_TEST_PATIENCE=value)
    done = subprocess.run(
        [sys.executable, "-c", "import tests.support.patience"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"EVENTBRIDGE_TEST_PATIENCE='{value}'" in done.stderr.splitlines()[-1]
