"""Every script of examples/ runs alone and shows what its docstring says."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.command import ROOT, environment, interruptible, run
from tests.support.patience import PATIENCE

EXAMPLES = ROOT / "examples"

SHOWN = {
    "asyncio_daemon.py": ["test suspended", "test resumed", "1 s are over", "drained"],
    "select_loop.py": ["test suspended", "test resumed", "message of your own: hello", "left in your selector: 0"],
    "pyuv_loop.py": [
        "a timer of your own",
        "test suspended",
        "test resumed",
        "nothing is active on the loop any more",
    ],
    "trio_connect.py": [
        "simulated-0 started (booted)",
        "simulated-0 suspended (paused)",
        "simulated-0 is paused",
        "simulated-0 resumed (unpaused)",
        "simulated-1 started (booted)",
        "simulated-0 stopped (destroyed)",
        "simulated-1 stopped (destroyed)",
        "closed",
    ],
    "glib_loop.py": ["test suspended", "a nested loop has run", "test resumed", "drained"],
    "own_fd_beside_libvirt.py": ["suspend: test is suspended", "resume: test is resumed"],
    "connection.py": [
        "10 domains",
        "event: simulated-0 job_started (start)",
        "event: simulated-0 started (booted)",
        "event: simulated-0 job_ended (completed)",
        "it is running",
        "event: simulated-0 job_started (save)",
        "event: simulated-0 stopped (saved)",
        "event: simulated-0 job_ended (completed)",
        "64 MiB saved",
        "event: simulated-0 started (restored)",
        "event: simulated-0 job_started (save)",
        "meanwhile it is running",
        "event: simulated-0 job_ended (aborted)",
        "we are in a hurry: JobAborted",
        "event: simulated-0 stopped (destroyed)",
    ],
    "connection_callbacks.py": [
        "10 domains",
        "event: simulated-0 job_started (start)",
        "event: simulated-0 started (booted)",
        "event: simulated-0 job_ended (completed)",
        "event: simulated-0 suspended (paused)",
        "on a thread: it is paused",
        "event: simulated-0 resumed (unpaused)",
        "closed, and nothing is left",
    ],
    "diagnosis.py": [
        "it is known: simulated-3",
        "slow: a timeout of application, __main__.sleepy",
        "whose they are: eventbridge, sim",
        "the slowest was __main__.sleepy of application",
        "the loop was late by 0.5 s or more: True",
        "traced: call callback connection host job pass",
    ],
    "libvirtaio_drop_in.py": ["test suspended", "test resumed", "idle"] * 2,
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == SHOWN.keys()


@pytest.mark.parametrize("name", SHOWN)
def test_it_shows_what_it_says_and_leaves_nothing_open(name: str) -> None:
    """With all warnings on a socket left open, or a coroutine never awaited, is one on standard error."""
    done = run(sys.executable, "-W", "always", str(EXAMPLES / name))
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == sorted(SHOWN[name]), "the threads of some may overtake each other"
    assert done.returncode == 0


@pytest.mark.parametrize("name", SHOWN)
def test_it_is_short_and_says_what_it_shows(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_daemon_ends_well_at_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, str(EXAMPLES / "asyncio_daemon.py"), "--for", str(PATIENCE)]
    with interruptible():
        daemon = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    with daemon:
        assert daemon.stdout is not None
        while daemon.stdout.readline() != "test resumed\n":
            assert daemon.poll() is None
        daemon.send_signal(number)
        assert daemon.stdout.read() == "drained\n"
        assert daemon.wait(PATIENCE) == 0
