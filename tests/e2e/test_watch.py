"""``eventbridge watch``: what it shows, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import libvirt
import pytest

from tests.support.command import EVENTBRIDGE, blocking, environment, eventbridge, running
from tests.support.libvirtd import private_libvirtd
from tests.support.patience import PATIENCE

LOOPS = ("asyncio", "uvloop", "libuv", "select")
SIM = "sim:///default?domains=3&seed=1&rate=200"
KEYS = {"kind", "domain", "reason", "source", "sequence", "at", "synthetic", "raw"}


def test_each_event_is_a_line_with_time_domain_kind_and_reason() -> None:
    with running("watch", SIM) as watch:
        lines = watch.shows(20)
        watch.send(signal.SIGTERM)
        code, rest, err = watch.ends()
    lines += rest.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3}  simulated-\d +\w+", line) for line in lines), lines
    assert not any("\x1b" in line for line in lines), "colour is for terminals only"
    assert (code, err.count("\n")) == (0, 2)
    assert re.search(rf"\neventbridge: {len(lines)} events in \d+\.\d s: \w+ \d+", err)


def test_json_is_one_object_a_line_with_the_promised_keys_and_no_gap() -> None:
    with running("watch", SIM, "--json") as watch:
        events = [json.loads(line) for line in watch.shows(20)]
    assert all(event.keys() == KEYS for event in events)
    assert [event["sequence"] for event in events] == list(range(1, 21))
    assert {event["source"] for event in events} == {SIM}
    assert all(event["raw"]["simulated"] for event in events), "sim says what it is wherever it shows"


def test_it_ends_by_itself_after_the_seconds_that_are_asked_for() -> None:
    done = eventbridge("watch", SIM, "--for", "4")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert re.search(r" events in (?:[4-9]|\d\d)\.\d s: ", done.stderr), "never early"


@pytest.mark.parametrize("loop", LOOPS)
def test_real_and_simulated_events_arrive_through_one_dispatcher_on_each_loop(loop: str) -> None:
    with (
        private_libvirtd() as daemon,
        running("watch", "--json", "--loop", loop, daemon.unix_uri, SIM) as watch,
    ):
        watch.until("watching test+unix")
        connection = libvirt.open(daemon.tcp_uri)
        connection.lookupByName("test").suspend()
        connection.close()
        seen = set()
        while len(seen) < 2:
            event = json.loads(watch.stdout.readline())
            seen.add((event["source"], event["kind"]) if event["source"] == daemon.unix_uri else "sim")
        assert seen == {(daemon.unix_uri, "suspended"), "sim"}
        watch.send(signal.SIGTERM)
        code, _, err = watch.ends()
        assert (code, "Traceback" in err) == (0, False), err


def test_the_source_is_shown_where_there_are_several() -> None:
    other = SIM.replace("seed=1", "seed=2")
    with running("watch", SIM, other) as watch:
        watch.until(SIM, other)
        lines = watch.shows(20)
    assert all(f"  {SIM}  " in line or f"  {other}  " in line for line in lines)


def test_a_uri_that_is_named_twice_is_watched_once() -> None:
    with running("watch", "--json", SIM, SIM) as watch:
        assert [json.loads(line)["sequence"] for line in watch.shows(10)] == list(range(1, 11))
        watch.send(signal.SIGTERM)
        assert watch.ends()[2].count("watching") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("uri", ["test:///default", SIM])
def test_a_signal_ends_it_well_on_every_loop_also_while_it_sleeps(uri: str, loop: str, number: signal.Signals) -> None:
    with running("watch", "--loop", loop, uri) as watch:
        watch.until("watching")
        watch.send(number)
        code, _, err = watch.ends()
    assert code == 0
    assert re.fullmatch(r"eventbridge: \d+ events? in \d+\.\d s.*\n", err), err


def test_an_ignored_interrupt_stays_ignored_as_a_background_job_of_a_script_has_it() -> None:
    with running("watch", SIM, sigint=signal.SIG_IGN) as watch:
        watch.until("watching")
        watch.send(signal.SIGINT)
        watch.shows(20)
        assert watch.process.poll() is None
        watch.send(signal.SIGTERM)
        assert watch.ends()[0] == 0


@pytest.mark.parametrize("uri", ["test:///default", SIM])
def test_it_ends_quietly_when_nobody_reads_it_any_more(uri: str) -> None:
    with running("watch", uri) as watch:
        watch.until("watching")
        watch.stdout.close()
        assert watch.stderr.read() == ""
        assert watch.process.wait() == 0


def test_output_that_cannot_be_written_is_an_error_and_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*EVENTBRIDGE, "watch", SIM],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "eventbridge: standard output: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_there_is_colour_unless_it_is_not_wanted(no_color: str) -> None:
    """https://no-color.org"""
    ours, terminal = os.openpty()
    command = [*EVENTBRIDGE, "watch", SIM]
    env = {**environment(), "NO_COLOR": no_color}
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.DEVNULL, env=env) as watch:
        os.close(terminal)  # so that reading ours ends with the process
        shown = b""
        while b"booted" not in shown:
            shown += os.read(ours, 65536)
        watch.terminate()
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while os.read(ours, 65536):  # or it might wait for room on the terminal for ever
                pass
        assert watch.wait(PATIENCE) == 0
    os.close(ours)
    assert (b"\x1b[32mstarted" in shown) is not bool(no_color)
    assert (b"  started" in shown) is bool(no_color)


# -- what goes wrong


def test_a_uri_that_cannot_be_opened_is_one_line_and_the_others_go_on(announced: dict[str, str]) -> None:
    with running("watch", "fake:///refuses", "fake:///blunders", SIM, env=announced) as watch:
        said = watch.until("refuses", "blunders", "watching")
        watch.shows(20)
        watch.send(signal.SIGTERM)
        code, _, err = watch.ends()
    assert (code, len(said)) == (1, 3)
    assert "eventbridge: fake:///refuses: cannot open: somebody else is using it\n" in said
    assert "eventbridge: fake:///blunders: a driver's own mistake\n" in said
    assert "Traceback" not in err


def test_when_none_can_be_opened_it_ends_at_once_with_1(announced: dict[str, str]) -> None:
    done = eventbridge("watch", "fake:///refuses", "test+unix:///default?socket=/nonexistent/sock", env=announced)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 3, "a line for each, and the count"
    assert "0 events" in done.stderr


def test_opening_that_takes_long_is_told_and_ctrl_c_does_not_wait_for_it(announced: dict[str, str]) -> None:
    with running("watch", "fake:///hangs", "fake:///quiet", env=announced) as watch:
        assert "eventbridge: fake:///hangs: still opening after 2 s\n" in watch.until("still opening")
        watch.send(signal.SIGINT)
        code, _, err = watch.ends()
    assert (code, err.splitlines()[0]) == (1, "eventbridge: fake:///hangs: was not open yet")
    assert "quiet" not in err


def test_a_lost_connection_is_told_and_the_others_go_on(announced: dict[str, str]) -> None:
    with running("watch", "--no-reconnect", "fake:///breaks", "fake:///quiet", env=announced) as watch:
        assert "eventbridge: fake:///breaks: connection lost (eof): not watched any more\n" in watch.until("lost")
        assert "connection_lost" in watch.stdout.readline()
        assert watch.process.poll() is None
        watch.send(signal.SIGINT)
        assert watch.ends()[0] == 1


def test_it_ends_with_1_when_no_connection_is_left() -> None:
    with private_libvirtd() as daemon, running("watch", "--no-reconnect", daemon.unix_uri, daemon.tcp_uri) as watch:
        watch.until("watching")
        watch.until("watching")
        daemon.kill()
        code, out, err = watch.ends()
    assert (code, out.count("connection_lost"), err.count("connection lost (")) == (1, 2, 2)
    assert "Traceback" not in err


def test_a_daemon_that_comes_back_is_watched_again() -> None:
    """The test driver's domain runs again then, as a new one: its id says so."""
    with private_libvirtd() as daemon, running("watch", daemon.unix_uri) as watch:
        watch.until("watching")
        daemon.kill()
        assert "tried again until it is back" in "".join(watch.until("lost"))
        daemon.restart()
        while "connection_restored" not in (line := watch.stdout.readline()):
            assert line, "it ended"
        watch.send(signal.SIGINT)
        assert watch.ends()[0] == 0


def test_one_that_is_still_lost_in_the_end_is_a_1() -> None:
    with private_libvirtd() as daemon, running("watch", daemon.unix_uri) as watch:
        watch.until("watching")
        daemon.kill()
        watch.until("lost")
        watch.send(signal.SIGINT)
        assert watch.ends()[0] == 1


def test_a_daemon_that_answers_nothing_does_not_keep_it() -> None:
    with private_libvirtd() as daemon, running("watch", daemon.unix_uri) as watch:
        watch.until("watching")
        daemon.freeze()
        watch.send(signal.SIGINT)
        code, _, err = watch.ends()
    assert code == 0
    assert "Traceback" not in err


def test_what_will_not_close_is_left_behind_with_a_word(announced: dict[str, str]) -> None:
    with running("watch", "fake:///sticks", env=announced) as watch:
        watch.until("watching")
        watch.send(signal.SIGINT)
        code, _, err = watch.ends()
    assert code == 0
    assert "did not close within 5 s" in err


def test_a_second_ctrl_c_does_not_wait_for_what_will_not_close(announced: dict[str, str]) -> None:
    with running("watch", "fake:///sticks", env=announced) as watch:
        watch.until("watching")
        watch.send(signal.SIGINT)
        watch.until("closing")
        watch.send(signal.SIGINT)
        code, _, err = watch.ends()
    assert (code, "Traceback" in err) == (130, False)


def test_a_domains_name_cannot_write_to_the_terminal(announced: dict[str, str]) -> None:
    with running("watch", "fake:///escapes", env=announced) as watch:
        line = watch.stdout.readline()
    assert line.endswith("  \\x1b[2Jevil\\nname  started        boo\\x07ted\n"), line


# -- what is not there


def test_without_libvirt_it_says_what_to_install_and_sim_goes_on(tmp_path: Path) -> None:
    with running("watch", "test:///default", SIM, env=environment(blocking(tmp_path, "libvirt"))) as watch:
        said = watch.until("test:///default", SIM)
        watch.shows(20)
        watch.send(signal.SIGTERM)
        assert watch.ends()[0] == 1
    assert len(said) == 2
    assert any(re.fullmatch(r"eventbridge: test:///default: .*pip install libvirt-python\n", line) for line in said)


@pytest.mark.parametrize("loop, modules", [("uvloop", ["uvloop"]), ("libuv", ["pyuv", "cffi"])])
def test_without_the_loops_library_it_says_what_to_install(loop: str, modules: list[str], tmp_path: Path) -> None:
    done = eventbridge("watch", SIM, "--loop", loop, env=environment(blocking(tmp_path, *modules)))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"eventbridge: .*pip install.*\n", done.stderr), done.stderr


# -- called wrongly


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "required: URI"),
        (["nonsense"], "'nonsense' is no URI"),
        (["quemu:///system"], "there are: bhyve, .* sim, test"),
        ([SIM, "--loop", "curio"], "there are: asyncio, libuv, select, .*uvloop"),
        *(([SIM, "--for", value], "above 0") for value in ("-1", "0", "nan", "inf", "soon", "1e300")),
    ],
)
def test_a_wrong_call_is_refused_with_what_would_be_right(arguments: list[str], said: str) -> None:
    done = eventbridge("watch", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stderr
