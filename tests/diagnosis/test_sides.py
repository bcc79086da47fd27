"""The debug mode: which side of the bridge may call what, held to in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import environment
from tests.support.patience import PATIENCE

PREFACE = """
import logging, os, threading
from eventbridge import Bridge
from eventbridge.core import affinity
from eventbridge.core.mailbox import Mailbox
from eventbridge.testing import SteppingHost
logging.basicConfig(format="%(levelname)s %(message)s")
host = SteppingHost()
bridge = Bridge(host)
class Source:
    fd = os.eventfd(1)
    def fileno(self): return self.fd
    def events(self): return 1
    def deadline(self): return None
    def drain(self, events): os.eventfd_read(self.fd); drained.append(1)
    def detached(self): drained.append("detached")
drained = []
def elsewhere(function, *given):
    host.here = False
    try:
        print(function(*given))
    except AssertionError as error:
        print("AssertionError:", error)
    host.here = True
"""


def python(script: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", PREFACE + script]
    return subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


LOOP_SIDE = """
elsewhere(bridge._dispatcher.run_pass)
elsewhere(bridge._dispatcher.run_frees, 1)
elsewhere(bridge._rebuild)
mailbox = Mailbox(bridge)
elsewhere(mailbox._due, 1, None)
bridge.add_source(Source())
elsewhere(bridge._sources.popitem()[1][1]._ready, 1, 1, 1, None)
print(drained)
"""


@pytest.mark.parametrize(("options", "more"), [(["-X", "dev"], {}), ([], {"EVENTBRIDGE_DEBUG": "1"})])
def test_what_is_the_loop_s_alone_is_refused_elsewhere(options: list[str], more: dict[str, str]) -> None:
    done = python(LOOP_SIDE, *options, **more)
    lines = done.stdout.splitlines()
    for line, name in zip(lines, ("run_pass", "run_frees", "_watch_anew", "_take", "_drain"), strict=False):
        assert line.startswith("AssertionError: ") and f".{name} belongs to the host loop's thread" in line
    assert lines[5:] == ["[]"], "the source was not drained"
    assert done.returncode == 0, done.stderr


def test_without_the_debug_mode_nothing_is_checked() -> None:
    done = python(LOOP_SIDE)
    assert "AssertionError" not in done.stdout
    assert done.stdout.splitlines()[-1] == "[1]"


def test_a_hook_that_holds_up_its_caller_is_logged() -> None:
    """A thread holds the registry's lock, as nobody must."""
    done = python(
        """
affinity.LONG_SECONDS = 0.0
bridge.add_timeout(-1, print)
bridge.update_timeout(1, 5)
""",
        "-X",
        "dev",
    )
    assert "WARNING BridgeCore.add_timeout is hook side, and held up its caller for 0.0" in done.stderr
    assert "WARNING BridgeCore.update_timeout is hook side" in done.stderr
    assert done.returncode == 0


def test_a_callback_is_not_called_with_the_registry_s_lock_held() -> None:
    """No lock is held while foreign code is called."""
    done = python(
        """
bridge.add_timeout(0, lambda id, opaque: print("called"))
with bridge._registry.lock:
    try:
        host.step()
    except AssertionError as error:
        print("AssertionError:", error)
""",
        "-X",
        "dev",
    )
    assert "called" not in done.stdout.splitlines()
    assert "would be called with the registry's lock held" in done.stdout


def test_a_callback_that_blocks_is_caught_in_the_act() -> None:
    done = python(
        """
import eventbridge.bridge
caught = threading.Event()
class Catch(logging.Handler):
    def emit(self, record): caught.set()
logging.getLogger("eventbridge").addHandler(Catch())
def blocks(id, opaque):
    bridge.remove_timeout(id)
    print(caught.wait(30))
bridge.add_timeout(0, blocks)
host.step_until_idle()
""",
        "-X",
        "dev",
    )
    assert done.stdout == "True\n", "it was told of while it blocked"
    assert "WARNING timeout 1 of application (__main__.blocks) has blocked the loop for 0." in done.stderr
    assert "in blocks" in done.stderr


def test_the_marks_cost_nothing_without_it() -> None:
    done = python("print(Bridge.add_handle.__wrapped__ if hasattr(Bridge.add_handle, '__wrapped__') else 'bare')")
    assert done.stdout == "bare\n"
    assert os.environ.get("EVENTBRIDGE_DEBUG") is None
