"""The diagnosis socket: who may ask, what is answered, and that a loop that hangs is no hindrance."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from eventbridge import Bridge, EventBridgeError
from eventbridge.diagnosis.client import Asking, is_socket
from eventbridge.diagnosis.pulse import NO_LAG
from eventbridge.testing import SteppingHost
from tests.support.command import environment
from tests.support.patience import PATIENCE
from tests.support.trace_format import Picture


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "diagnosis.sock")


def ask(path: str, **question: Any) -> dict[str, Any]:
    with Asking(path, question) as asking:
        return asking.answer()


def test_only_its_owner_may_open_it(stepping: SteppingHost, path: str) -> None:
    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert is_socket(path)
    assert not os.path.exists(path)


def test_figures_are_answered_whatever_the_loop_is_at(path: str) -> None:
    """The callback here ends only once the answer is there."""
    answers: list[dict[str, Any]] = []

    def hangs(id: int, opaque: object) -> None:
        answers.append(ask(path, want="stats"))
        answers.append(ask(path, want="stacks"))
        bridge.remove_timeout(id)

    with Bridge("select") as bridge, bridge.serve_diagnosis(path):
        bridge.add_timeout(-1, print)
        bridge.add_timeout(0, hangs)
        assert bridge.run(until=lambda: len(answers) == 2, timeout=PATIENCE)
    (stats,), threads = answers[0]["bridges"], answers[1]["threads"]
    assert (stats["host"], stats["timeouts"], stats["owners"]) == (
        "select",
        2,
        {"application": {"handles": 0, "timeouts": 2}},
    )
    assert (
        stats["callback"]["origin"].startswith("timeout 2 of application (") and "hangs" in stats["callback"]["origin"]
    )
    assert stats["callback"]["since"] is None, "nobody observes it, so nobody knows"
    assert any("in hangs" in thread["stack"] for thread in threads)
    assert answers[0]["process"] == os.getpid()


def test_a_trace_ends_when_the_asker_says_enough_and_is_whole(path: str) -> None:
    """Ctrl-C at the asker's: what there is is answered, long before its time."""
    with Bridge("select") as bridge, bridge.serve_diagnosis(path):
        bridge.add_timeout(1, lambda id, opaque: None)
        with Asking(path, {"want": "trace", "seconds": 3000}) as asking:
            assert bridge.run(until=lambda: bool(bridge.observers), timeout=PATIENCE)
            bridge.run(timeout=0.02)
            asking.enough()
            answers: list[dict[str, Any]] = []
            asker = threading.Thread(target=lambda: answers.append(asking.answer()))
            asker.start()
            assert bridge.run(until=lambda: not bridge.observers and not asker.is_alive(), timeout=PATIENCE)
        assert Picture(answers[0]).spans("callback", "application")
        bridge.run(timeout=0.01)
        assert bridge.stats().host_lag == NO_LAG


def test_a_trace_of_some_seconds_is_answered_after_them(stepping: SteppingHost, path: str) -> None:
    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        picture = Picture(ask(path, want="trace", seconds=0.01))
        assert picture.spans("pass") == [], "nobody made a pass"


@pytest.mark.parametrize(
    "question", [b"\n", b"[]\n", b'{"want": "money"}\n', b'{"want": "trace"}\n', b"\xff\n", b"x" * 9000]
)
def test_what_is_no_question_is_answered_with_an_error(stepping: SteppingHost, path: str, question: bytes) -> None:
    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        with socket.socket(socket.AF_UNIX) as asker:
            asker.connect(path)
            asker.sendall(question)
            assert "cannot be answered" in json.loads(asker.recv(4096))["error"]
        assert ask(path, want="stats")["bridges"], "and the next one is answered as ever"
        with pytest.raises(EventBridgeError, match="cannot be answered"):
            ask(path, want="money")


def test_an_asker_who_goes_away_harms_nobody(stepping: SteppingHost, path: str) -> None:
    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as asker:
                asker.connect(path)
        assert ask(path, want="stats")["bridges"]


def test_a_socket_that_a_dead_process_has_left_is_taken_over(stepping: SteppingHost, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        assert ask(path, want="stats")["bridges"]


def test_one_that_somebody_answers_on_is_not_nor_is_a_file(stepping: SteppingHost, path: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        with pytest.raises(FileExistsError, match="another process does"):
            bridge.serve_diagnosis(path)
        with pytest.raises(FileExistsError, match="no socket"):
            bridge.serve_diagnosis(file)
        with pytest.raises(FileNotFoundError):
            bridge.serve_diagnosis(tmp_path / "no" / "such")
        assert ask(path, want="stats")["bridges"]
    assert file.read_text() == "precious"


def test_it_ends_with_its_bridge(stepping: SteppingHost, path: str) -> None:
    before = threading.active_count()
    bridge = Bridge(stepping)
    server = bridge.serve_diagnosis(path)
    bridge.close()
    assert not os.path.exists(path)
    server.close()
    while threading.active_count() > before:
        pass
    with pytest.raises(OSError):
        ask(path, want="stats")


def test_a_forked_child_does_not_hold_the_parent_s_socket(path: str) -> None:
    """D7: the child goes on while the parent has ended; who asks then is refused, and does not wait for ever."""
    script = f"""
import os, sys, time
from eventbridge import Bridge
bridge = Bridge("select")
server = bridge.serve_diagnosis({path!r})
reader, writer = os.pipe()
child = os.fork()
if not child:
    os.close(writer)
    os.read(reader, 1)  # until the parent has gone
    from eventbridge.diagnosis.client import Asking
    answer = "held"
    for _ in range(1000):  # the parent's pipe is freed before its socket, to which one can connect until then
        try:
            with Asking({path!r}, {{"want": "stats"}}):
                pass
        except ConnectionRefusedError as error:
            answer = type(error).__name__
            break
        except OSError:  # it was closed at this moment
            pass
        time.sleep(0.01)
    print(answer, flush=True)
    os._exit(0)
os.close(reader)
os._exit(0)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]  # 3.12 warns of a fork beside threads
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("ConnectionRefusedError\n", "")


def test_a_process_that_cannot_serve_where_it_was_told_to_goes_on_without(
    stepping: SteppingHost, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a child has it that was given its parent's environment."""
    from eventbridge.diagnosis.process_wide import serve

    with Bridge(stepping) as bridge, bridge.serve_diagnosis(path):
        with caplog.at_level(logging.WARNING, "eventbridge"):
            serve(path)
            serve(path)
        assert [record.getMessage() for record in caplog.records] == [
            f"no diagnosis on {path}: [Errno 17] cannot serve diagnosis: another process does, there: {path!r}"
        ], "said once"
        assert ask(path, want="stats")["bridges"]
