"""A console's bytes, both ways: over a real pty whose master is the guest, and over a unix socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventbridge import Bridge, Events
from eventbridge.connection.console_session import BACKLOG, ConsoleStream, open_console
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import ConsoleInfo, ConsoleKind
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE


class Pty:
    """A pty; what is at its master is called the guest."""

    def __init__(self) -> None:
        self.guest, self._slave = os.openpty()
        self.path = os.ttyname(self._slave)
        os.set_blocking(self.guest, False)

    def hang_up(self) -> None:
        os.close(self.guest)
        self.guest = -1

    def close(self) -> None:
        os.close(self._slave)
        if self.guest >= 0:
            os.close(self.guest)


class Heard:
    """What a stream has told."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[OSError | None] = []

    def on_data(self, data: bytes) -> None:
        self.data += data


@pytest.fixture
def pty() -> Iterator[Pty]:
    pty = Pty()
    yield pty
    pty.close()


@pytest.fixture(params=["asyncio", "libuv", "select"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    with Bridge(request.param) as bridge:
        yield bridge


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def stream(bridge: Bridge, pty: Pty, heard: Heard) -> Iterator[ConsoleStream]:
    with ConsoleStream(bridge, pty.path, heard.on_data, heard.ends.append) as stream:
        yield stream
    bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert bridge.is_empty()


def run(bridge: Bridge, until: Callable[[], bool]) -> None:
    assert bridge.run(until=until, timeout=PATIENCE)


def read_all(guest: int) -> bytes:
    try:
        return os.read(guest, BACKLOG)
    except BlockingIOError:
        return b""


def test_what_the_guest_writes_arrives_as_it_was_written(
    bridge: Bridge, pty: Pty, stream: ConsoleStream, heard: Heard
) -> None:
    os.write(pty.guest, b"login: \r\n\x03\x04\xff")
    run(bridge, lambda: len(heard.data) == 12)
    assert heard.data == b"login: \r\n\x03\x04\xff"
    assert read_all(pty.guest) == b"", "the tty has echoed the guest's own words"
    assert heard.ends == []


def test_what_was_written_before_anybody_listened_is_not_lost(bridge: Bridge, pty: Pty, heard: Heard) -> None:
    """Setting a tty raw may flush it (tcsetattr(3), TCSAFLUSH), and with that the guest's first words."""
    os.write(pty.guest, b"booting\n")
    with ConsoleStream(bridge, pty.path, heard.on_data):
        run(bridge, lambda: heard.data == b"booting\n")


def test_what_is_written_reaches_the_guest_whole_and_in_order(bridge: Bridge, pty: Pty, stream: ConsoleStream) -> None:
    sent = b"".join(b"line %d\n" % n for n in range(20_000))  # many times what a pty holds
    for start in range(0, len(sent), 9_999):
        stream.write(sent[start : start + 9_999])
    got = bytearray()
    reading = bridge.add_handle(pty.guest, Events.READABLE, lambda id, fd, events, opaque: got.extend(read_all(fd)))
    run(bridge, lambda: len(got) >= len(sent))
    bridge.remove_handle(reading)
    assert got == sent
    assert stream.waiting == 0


def test_an_idle_console_costs_nothing_once_all_is_written(
    bridge: Bridge, pty: Pty, stream: ConsoleStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tty that can be written to is writable always: it must not be asked for then."""
    asked_for: list[int] = []
    update = bridge.update_handle

    def noted(id: int, events: int) -> None:
        asked_for.append(events)
        update(id, events)

    monkeypatch.setattr(bridge, "update_handle", noted)
    stream.write(b"x")
    run(bridge, lambda: stream.waiting == 0 and asked_for[-1:] == [Events.READABLE])
    assert asked_for == [Events.READABLE | Events.WRITABLE, Events.READABLE]


def test_a_guest_that_hangs_up_ends_the_stream_once(
    bridge: Bridge, pty: Pty, stream: ConsoleStream, heard: Heard
) -> None:
    os.write(pty.guest, b"last words")
    run(bridge, lambda: heard.data == b"last words")
    pty.hang_up()
    run(bridge, lambda: bool(heard.ends))
    bridge.run(timeout=0.01)
    assert heard.ends == [None]
    with pytest.raises(HypervisorError, match="closed"):
        stream.write(b"anybody?")


def test_nothing_is_told_after_close_and_the_fd_is_closed(
    bridge: Bridge, pty: Pty, stream: ConsoleStream, heard: Heard
) -> None:
    before = len(open_fds())
    os.write(pty.guest, b"too late")
    stream.close()
    stream.close()
    bridge.run(timeout=0.01)
    assert (heard.data, heard.ends) == (b"", [])
    assert len(open_fds()) == before - 1


def test_a_guest_that_does_not_read_is_not_written_to_without_end(stream: ConsoleStream) -> None:
    stream.write(b"x" * BACKLOG)
    with pytest.raises(BufferError, match="does not read"):
        stream.write(b"y")
    assert stream.waiting == BACKLOG


def test_a_console_may_be_a_unix_socket(bridge: Bridge, heard: Heard, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "console"))
        server.listen()
        with ConsoleStream(bridge, str(tmp_path / "console"), heard.on_data, heard.ends.append):
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"from a socket")
                run(bridge, lambda: heard.data == b"from a socket")
            run(bridge, lambda: heard.ends == [None])


def test_what_cannot_be_opened_is_one_clear_error_and_leaves_nothing(bridge: Bridge, tmp_path: Path) -> None:
    before = len(open_fds())
    with pytest.raises(HypervisorError, match=r"cannot open the console at .*nowhere: No such file") as caught:
        ConsoleStream(bridge, str(tmp_path / "nowhere"), lambda data: None)
    assert caught.value.code == errno.ENOENT
    assert bridge.is_empty()
    assert len(open_fds()) == before


def test_a_console_that_goes_to_a_file_is_refused_naming_it(bridge: Bridge) -> None:
    info = ConsoleInfo(ConsoleKind.PV, 1, "/local/domain/3/device/console/1", 3, output="file:/var/log/x")
    with pytest.raises(HypervisorError, match=r"pv console 1 has no tty; its output goes to file:/var/log/x"):
        open_console(bridge, info, lambda data: None)
