"""QEMU with no daemon: libvirt's driver in the process, whose events come from C threads of libvirt's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.patience import PATIENCE
from tests.support.qemu import command, embed_root, guest
from tests.support.watched import HOSTS

SCRIPT = Path(__file__).with_name("embed_script.py")


@pytest.mark.parametrize("host", HOSTS)
def test_events_of_libvirts_own_threads_arrive_while_the_loop_sleeps(host: str) -> None:
    """D6, T2: a foreign C thread arms a timeout; libvirt-python's libvirtaio hears none of these."""
    with embed_root() as root:
        ended = subprocess.run(
            command(root, SCRIPT, host, str(root)),
            env=environment(),
            input=guest("g"),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    told = [(event["kind"], event["reason"]) for event in events]
    assert told[:2] == [("started", "booted"), ("suspended", "paused")]
    assert told[-1] == ("stopped", "destroyed")
    assert told.count(("stopped", "destroyed")) == 1
    assert ("rebooted", None) in told
    assert {event["domain"]["name"] for event in events} == {"g"}
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
