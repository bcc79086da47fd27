"""Opening: what may be asked for, and what is said where it cannot be had; it ends, and leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from pathlib import Path

import pytest

from eventbridge.adapters.hypervisors.qmp import QmpDriver
from eventbridge.adapters.hypervisors.qmp.scripts import Command, Script
from eventbridge.adapters.hypervisors.qmp.transport import Address
from eventbridge.errors import HypervisorError
from tests.support.qmp_peer import GREETING, Peer, line
from tests.support.qmp_qemu import MACHINE, NONE, Start
from tests.support.qmp_rig import Rig


@pytest.mark.parametrize(
    ("uri", "address", "stem"),
    [
        ("qmp+unix:///run/vm/mail.qmp", Address("/run/vm/mail.qmp"), "mail"),
        ("qmp+unix:///run/a%20b%2Fc", Address("/run/a b/c"), "c"),
        ("qmp+tcp://localhost:4444", Address(None, "localhost", 4444), "localhost:4444"),
        ("qmp+tcp://[::1]:4444/", Address(None, "::1", 4444), "::1:4444"),
    ],
)
def test_a_uri_is_a_path_or_a_host_and_a_port(uri: str, address: Address, stem: str) -> None:
    assert Address.parse(uri) == address
    assert address.stem == stem


@pytest.mark.parametrize(
    "uri",
    [
        "qmp:///run/a", "qmp+unix://host/run/a", "qmp+unix:run/a", "qmp+unix:///", "qmp+unix:///run/", "qmp+unix:///a%00b",
        "qmp+unix:///a?b=c", "qmp+unix:///a#b", "qmp+tcp://host", "qmp+tcp://:4444", "qmp+tcp://host:0", "qmp+tcp://h:1/x",
        "qmp+tcp://host:70000", "qmp+tcp://host:port", "qmp+tcp://me@host:4444", "qmp+ssh://host:22", "qmp+tcp://[::1:4",
    ],
)  # fmt: skip
def test_what_is_no_such_uri_is_one_clear_error(rig: Rig, uri: str) -> None:
    with pytest.raises(HypervisorError) as caught:
        rig.open(uri)
    assert str(caught.value).startswith(f"{uri}: ")
    assert str(caught.value).endswith(
        "write qmp+unix:///path/to/the/socket or qmp+tcp://host:port, as QEMU's -qmp was given"
    )
    assert caught.value.operation == "open"
    assert "\n" not in str(caught.value)


def test_where_nobody_is_it_says_what_to_look_for(rig: Rig, directory: Path) -> None:
    (directory / "file").touch()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(directory / "bound"))
        for path, code, words in (
            (directory / "nothing", errno.ENOENT, "nobody is there"),
            (directory / "file", errno.ECONNREFUSED, "nobody listens there"),
            (directory / "bound", errno.ECONNREFUSED, "nobody listens there"),
            (directory / ("x" * 120), errno.ENAMETOOLONG, "too long"),
        ):
            with pytest.raises(HypervisorError, match=words) as caught:
                rig.open(f"qmp+unix://{path}")
            assert caught.value.code == code
    with pytest.raises(HypervisorError, match="nobody listens there"):
        rig.open("qmp+tcp://127.0.0.1:1")


def test_a_monitor_serves_one_client_and_the_others_are_told(rig: Rig, start: Start) -> None:
    """The second waits in the queue until its deadline; when that is full, the next is refused at once."""
    qemu = start("a", *NONE)
    first = rig.open(qemu.uri)
    with pytest.raises(HypervisorError, match="another client has this monitor, which serves one at a time"):
        rig.open(qemu.uri, QmpDriver(open_seconds=0.2))
    with contextlib.ExitStack() as stack, pytest.raises(HypervisorError, match="its queue is full"):
        for _ in range(20):
            waiting = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            waiting.setblocking(False)
            try:
                waiting.connect(str(qemu.path))
            except BlockingIOError:
                rig.open(qemu.uri)
    assert first.ask("info").domain.name == "a"


def test_when_the_first_has_gone_the_second_gets_in(rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    for _ in range(5):
        opened = rig.open(qemu.uri)
        assert opened.ask("info").domain.name == "a"
        opened.session.close()
        rig.passes()
        assert not opened.events


def test_over_tcp_it_is_the_same(each_rig: Rig, start: Start) -> None:
    qemu = start("a", *MACHINE, "-qmp", "tcp:127.0.0.1:0,server=on,wait=off", "-name", "mail")
    opened = each_rig.open(qemu.tcp_uri)
    opened.ask("start")
    info = opened.ask("info")
    assert (info.domain.name, info.domain.id, info.state) == ("mail", None, "running")
    opened.ask("destroy")
    assert opened.story == ["started booted", "shutdown host", "stopped destroyed", "connection_lost eof"]


def test_out_of_band_is_enabled_where_it_is_offered(rig: Rig, start: Start, directory: Path) -> None:
    """And a command can be sent past those that wait: QEMU answers it before the one before."""
    opened = rig.open(start("a", *NONE).uri)
    source = opened.session._source
    order: list[str] = []

    def plain() -> Script:
        yield Command("query-qmp-schema")
        order.append("plain")

    def oob() -> Script:
        found = yield Command("yank", {"instances": []}, oob=True)
        order.append(f"oob {found}")

    for script in (plain(), oob()):
        source.play(script, lambda value, error: error and order.append(repr(error)))
    rig.until(lambda: len(order) == 2)
    assert sorted(order) == ["oob {}", "plain"]


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "garbage: no JSON"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "garbage: no JSON"),
        (b"{\r\n", "pretty=on"),
        (b"[]\r\n", "no message of QMP's"),
        (b"\x80\r\n", "garbage: no JSON"),
        (line(GREETING) * 2, "a second greeting"),
        (line({"return": {}}), "a reply to command None, which nobody waits for"),
        (line({"error": {"class": "GenericError", "desc": "JSON parse error"}}), "JSON parse error"),
    ],
)
def test_who_speaks_something_else_is_refused(rig: Rig, directory: Path, greeting: bytes, words: str) -> None:
    with Peer(directory, greeting) as peer, pytest.raises(HypervisorError) as caught:
        rig.open(peer.uri)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{peer.uri}: cannot be opened: ")


def test_answers_to_the_client_before_us_are_skipped(each_rig: Rig, directory: Path) -> None:
    """A QEMU that was stopped while it was asked answers when it goes on, whoever is connected by then."""
    refusal = {"class": "GenericError", "desc": "not for us"}
    late = b"".join(line({"return": {"status": "shutdown"}, "id": id}) for id in (1, 2, "3", [4]))
    with Peer(directory, line(GREETING) + late + line({"error": refusal, "id": 5})) as peer:
        opened = each_rig.open(peer.uri)
        peer.say(late)
        assert opened.ask("info").domain.name == "stand-in"
        assert not opened.story


def test_two_connections_count_their_commands_apart(rig: Rig, directory: Path) -> None:
    ids: list[object] = []

    def note(command: dict[str, object]) -> None:
        ids.append(command["id"])

    for _ in range(2):
        with Peer(directory) as peer:
            peer.on_command = note
            rig.open(peer.uri)
    assert len(ids) > 2
    assert len(set(ids)) == len(ids)


def test_who_hangs_up_is_refused(rig: Rig, directory: Path) -> None:
    with Peer(directory, b"") as peer:
        peer.hang_up()
        with pytest.raises(HypervisorError, match=r"cannot be opened|nobody listens"):
            rig.open(peer.uri)


def test_who_refuses_the_first_questions_is_refused(rig: Rig, directory: Path) -> None:
    refusal = {"class": "GenericError", "desc": "not today"}
    with Peer(directory, answers={"qmp_capabilities": refusal}) as peer:
        with pytest.raises(HypervisorError, match="cannot be opened: not today"):
            rig.open(peer.uri)
        assert peer.commands == ["qmp_capabilities"]


@pytest.mark.parametrize("answer", [[], None, "running", 7])
def test_answers_of_another_shape_are_one_clear_error(rig: Rig, directory: Path, answer: object) -> None:
    """At the first questions, and later."""
    with (
        Peer(directory, answers={"query-name": answer}) as peer,
        pytest.raises(HypervisorError, match="its first answers are not QEMU's"),
    ):
        rig.open(peer.uri)
    with Peer(directory, answers={"query-cpus-fast": 7, "query-chardev": answer, "query-migrate": answer}) as peer:
        opened = rig.open(peer.uri)
        for operation in ("info", "console_info", "migrate"):
            error = opened.begin(operation, to="tcp:127.0.0.1:1", path="/tmp/x").error()
            assert isinstance(error, HypervisorError)
            assert str(error).startswith(f"cannot {operation.replace('_', ' ')} stand-in: ")
        assert not opened.events


def test_an_older_qemu_that_knows_no_migration_events_is_opened(rig: Rig, directory: Path) -> None:
    refusal = {"class": "CommandNotFound", "desc": "The command migrate-set-capabilities has not been found"}
    with Peer(directory, answers={"migrate-set-capabilities": refusal}) as peer:
        opened = rig.open(peer.uri)
        assert opened.ask("info").domain.name == "stand-in"
        error = opened.begin("migrate", to="tcp:127.0.0.1:1").error()
        assert "QEMU refused migrate-set-capabilities" in str(error)


def test_events_that_come_while_it_is_opened_are_told(each_rig: Rig, directory: Path) -> None:
    """On the loop, first, in order."""
    with Peer(directory) as peer:

        def on_command(command: dict[str, object]) -> bytes | None:
            if command["execute"] == "query-status":
                peer.say(line({"event": "STOP", "timestamp": {}}) + line({"event": "RESUME", "timestamp": {}}))
            return None

        peer.on_command = on_command
        opened = each_rig.open(peer.uri)
        assert not opened.events
        peer.say(line({"event": "STOP", "timestamp": {}}))
        each_rig.until(lambda: len(opened.events) == 3)
        assert opened.story == ["suspended", "resumed", "suspended"]


@pytest.mark.parametrize("garbage", [b"what?\r\n", line({"return": 1}), line(GREETING), b"\xff\xff\n"])
def test_garbage_later_ends_the_connection_and_not_the_domain(each_rig: Rig, directory: Path, garbage: bytes) -> None:
    """One clear error; nobody knows what has become of QEMU, so nothing is said of that."""
    with Peer(directory) as peer:
        opened = each_rig.open(peer.uri)
        peer.on_command = lambda command: b""
        asked = opened.begin("info")
        each_rig.until(lambda: len(peer.commands) > 5)
        peer.say(line({"event": "STOP"}) + garbage + line({"event": "RESUME"}))
        assert "what it sends is garbage" in str(asked.error())
        each_rig.passes()
        assert opened.story == ["suspended", "connection_lost garbage"]


def test_a_line_of_ten_mebibytes_is_refused(each_rig: Rig, directory: Path) -> None:
    with Peer(directory) as peer:
        opened = each_rig.open(peer.uri)

        pouring = threading.Thread(target=peer.say, args=(b'{"return": "' + b"x" * (10 << 20) + b'"}\n',), daemon=True)
        pouring.start()
        opened.told("connection_lost garbage")
        assert opened.story == ["connection_lost garbage"]
        assert "a line of more than 8388608 bytes" in opened.events[0].raw["error"]
        opened.session.close()
        each_rig.until(lambda: not pouring.is_alive())


def test_a_lower_bound_is_kept_too(rig: Rig, directory: Path) -> None:
    with Peer(directory) as peer:
        opened = rig.open(peer.uri, QmpDriver(line_limit=1000))
        peer.say(b"x" * 1001)
        opened.told("connection_lost garbage")
        assert "a line of more than 1000 bytes" in opened.events[0].raw["error"]


def test_a_burst_is_told_over_several_passes(each_rig: Rig, directory: Path) -> None:
    """10,000 events at once: no pass tells more than its budget, and each is told once."""
    with Peer(directory) as peer:
        opened = each_rig.open(peer.uri)
        in_pass: dict[int, int] = {}

        def on_event(event: object) -> None:
            number = each_rig.bridge.stats().passes
            in_pass[number] = in_pass.get(number, 0) + 1

        opened.on_event = on_event
        each_rig.beside(lambda: peer.say((line({"event": "STOP"}) + line({"event": "RESUME"})) * 5000))
        each_rig.until(lambda: len(opened.events) == 10_000)
        assert opened.story == ["suspended", "resumed"] * 5000
        assert max(in_pass.values()) <= 2 * 256
