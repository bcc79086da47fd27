"""Ctrl-C while the loop of `Bridge.run` sleeps: KeyboardInterrupt comes out at once, and it can be run again."""

from __future__ import annotations

import sys

import pytest

from tests.support import wanted
from tests.support.command import run

NEEDS = {"trio": "trio", "glib": "gi", "gevent": "gevent", "twisted": "twisted", "qt": "PySide6", "libuv": "cffi"}

PROGRAM = """
import os, signal, sys, threading
import eventbridge

main = f"/proc/self/task/{os.getpid()}/stat"

def interrupt():
    while open(main).read().rpartition(")")[2].split()[0] != "S":  # until the loop sleeps
        pass
    os.kill(os.getpid(), signal.SIGINT)

with eventbridge.Bridge(sys.argv[1]) as bridge:
    bridge.run(timeout=0.01)
    for _ in range(2):
        try:
            threading.Thread(target=interrupt).start()
            print("ended by itself", bridge.run(timeout=30))
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    print("again", bridge.run(lambda: True), bridge.run(timeout=0.01))
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.set_wakeup_fd(-1) == -1
"""


@pytest.mark.parametrize("host", ["asyncio", "select", "libuv", *list(NEEDS)[:-1]])
def test_ctrl_c_comes_out_of_run(host: str) -> None:
    if host in NEEDS:
        wanted.installed(NEEDS[host])
    done = run(sys.executable, "-c", PROGRAM, host)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["KeyboardInterrupt", "KeyboardInterrupt", "again True False"]
    assert done.returncode == 0


def test_a_shells_background_job_tests_it_all_the_same() -> None:
    """Such a job ignores SIGINT, and so would every program that it starts (POSIX, Shell Command Language, 2.11)."""
    script = 'trap "" INT; exec "$0" -m pytest -p no:cacheprovider "$1" -k select'
    done = run("sh", "-c", script, sys.executable, __file__)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
