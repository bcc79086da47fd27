"""A host that somebody else wrote, in a package of its own: built, put on a path, and met by its entry point alone.

`tinyloop` is a stand-in for a loop of which eventbridge has never heard; its package has its own tests, which use
nothing but the public kit.  Everything runs in processes in which it is installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import EVENTBRIDGE, environment, running
from tests.support.patience import PATIENCE

PACKAGE = Path(__file__).parent / "tinyloop"
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('out')"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's directory, with its wheel, built without network, unpacked into ``site``; once for all workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    home = base / "third_party"
    with open(base / "third_party.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "site").exists():
            shutil.copytree(PACKAGE, home, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
            subprocess.run([sys.executable, "-c", BUILD], cwd=home, check=True, capture_output=True, timeout=PATIENCE)
            (wheel,) = (home / "out").glob("*.whl")
            zipfile.ZipFile(wheel).extractall(home / "site")
    return home


def there(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run it where the package is installed."""
    env = environment(str(home / "site"))
    # It is no worker of this run's.
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        command, env=env, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )


def suite(home: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """The package's own tests, and each configuration of their report of rules."""
    report = home / f"report-{os.getpid()}.json"
    done = there(home, sys.executable, "-m", "pytest", f"--rules-report={report}", *arguments)
    assert report.exists(), done.stdout + done.stderr
    return done, json.loads(report.read_text())["configurations"]


def test_a_bridge_is_made_by_its_name(installed: Path) -> None:
    program = """
import eventbridge
with eventbridge.Bridge("tinyloop") as bridge:
    fired = []
    bridge.add_timeout(1, lambda id, opaque: fired.append(bridge.is_running_here()))
    assert bridge.run(lambda: len(fired) == 3, timeout=60)
    print(type(bridge.host).__module__, bridge.stats().host, fired)
"""
    done = there(installed, sys.executable, "-c", program)
    assert done.stderr == ""
    assert done.stdout == "tinyloop_eventbridge tinyloop [True, True, True]\n"


def test_attach_finds_it_running(installed: Path) -> None:
    """D1: the loop that runs here, though asyncio is loaded and other loops have hosts; and outside it, none."""
    program = """
import asyncio, eventbridge, tinyloop
loop = tinyloop.Loop()
def inside():
    bridge = eventbridge.attach()
    assert bridge.host.loop is loop
    def fired(id, opaque):
        print(bridge.stats().host)
        bridge.close()
        loop.stop()
    bridge.add_timeout(1, fired)
loop.call_soon(inside)
loop.run()
loop.close()
try:
    eventbridge.attach()
except eventbridge.HostUnavailable as error:
    print(error)
"""
    done = there(installed, sys.executable, "-c", program)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "tinyloop"
    assert "tinyloop is loaded, but does not run in this thread" in done.stdout.splitlines()[1]


def test_watch_runs_on_it(installed: Path) -> None:
    env = environment(str(installed / "site"))
    with running("watch", "sim:///default", "--loop", "tinyloop", "--json", env=env) as watch:
        shown = watch.shows(3)
        watch.send(signal.SIGTERM)
        code, rest, said = watch.ends()
    assert code == 0, said
    events = [json.loads(line) for line in [*shown, *rest.splitlines()]]
    assert all(event["source"] == "sim:///default" for event in events)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    unknown = there(installed, *EVENTBRIDGE, "watch", "sim:///default", "--loop", "nobody's")
    assert unknown.returncode == 2 and "tinyloop" in unknown.stderr


def test_doctor_names_it(installed: Path) -> None:
    """Without eventbridge's own hosts and hypervisors, which test_doctor looks at: they take their time."""
    program = """
from eventbridge.cli import doctor, main
doctor.HOSTS.clear(); doctor.HYPERVISORS.clear()
main(["doctor", "--json"])
"""
    (found,) = json.loads(there(installed, sys.executable, "-c", program).stdout)["hosts"]
    assert (found["name"], found["state"], found["version"]) == ("tinyloop", "works", "tinyloop 1.0")


def test_it_keeps_every_rule(installed: Path) -> None:
    """H1-H11, T1-T6, D1-D9: as its package's own tests show, with either thread; and their report says so."""
    done, configurations = suite(installed, "tests")
    assert done.returncode == 0, done.stdout
    lines = re.findall(r"^tinyloop \(Tinyloop, (.*)\): (\d+) of (\d+) rules kept, (\d+) tests$", done.stdout, re.M)
    assert [line[:3] for line in lines] == [("own-thread", "26", "26"), ("tests-thread", "26", "26")]
    for found in configurations:
        assert (found["loop"], found["library"], found["version"]) == ("tinyloop", "tinyloop", "1.0")
        assert (len(found["kept"]), found["broken"], found["not_shown"], found["absent"]) == (26, {}, {}, "")
        assert all(shown["rules"] for shown in found["tests"].values())


# Which rule each broken host breaks, and the test that is to find it.
BROKEN = {
    "ForgetsToWake": ("D6", "test_the_hosts_own_calls_come_on_its_thread_in_order"),
    "EdgeTriggered": ("H3", "test_what_is_not_drained_is_delivered_again"),
    "AnotherThread": ("D1", "test_callbacks_come_on_the_loops_thread_alone"),
    "Swallows": ("D4", "test_keyboard_interrupt_and_system_exit_propagate_through_the_host"),
    "LeavesItsFds": ("D8", "test_close_leaves_no_fd_behind"),
}


def test_hosts_that_go_wrong_are_found_and_the_rule_is_named(installed: Path) -> None:
    """And nothing else is: what has nothing to do with it passes."""
    well = "test_ids_start_at_1_grow_and_are_never_reused"
    nodes = [f"tests/broken.py::Test{host}::{test}" for host, (_, bad) in BROKEN.items() for test in (bad, well)]
    done, configurations = suite(installed, "--tb=no", *nodes)
    assert done.returncode == 1
    broken = {one["name"]: one["broken"] for one in configurations}
    assert broken.keys() == BROKEN.keys()
    for host, (rule, test) in BROKEN.items():
        assert broken[host][rule] == [test], host
        assert all(tests == [test] for tests in broken[host].values()), host
        assert re.search(rf"^tinyloop \({host}, .*; {rule} BROKEN by {test}", done.stdout, re.MULTILINE), done.stdout
