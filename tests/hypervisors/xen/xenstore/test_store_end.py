"""Connections to xenstored that cannot be made, or break: one clear error each, and nothing is left of them."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_rig import KINDS, Opened, code, next_watch, readable, wait_until

from eventbridge.adapters.hypervisors.xen.xenstore import multiplexer, open_store
from eventbridge.adapters.hypervisors.xen.xenstore.client import WireStore
from eventbridge.adapters.hypervisors.xen.xenstore.libxenstore import LibxenstoreStore
from eventbridge.adapters.hypervisors.xen.xenstore.store import Store, Watched
from eventbridge.adapters.hypervisors.xen.xenstore.transport import DEVICES, SOCKETS, DeviceLink, SocketLink, places
from eventbridge.errors import ConnectionLost, HypervisorError, HypervisorUnavailable
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE
from tests.support.xen.peers import HEADER, as_nobody, message, request, scripted_peer
from tests.support.xen.standin import XenStandIn

READ, WATCH, UNWATCH, TRANSACTION_START, WATCH_EVENT, ERROR, INTRODUCED, DIRECTORY_PART = 2, 4, 5, 6, 15, 16, 17, 22


@pytest.fixture
def socket_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where xenstored should be, and is not yet."""
    path = tmp_path / "socket"
    monkeypatch.setenv("XENSTORED_PATH", str(path))
    return path


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    fds, threads = open_fds(), threading.active_count()
    yield
    wait_until(lambda: open_fds() == fds and threading.active_count() == threads)


# -- no connection


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_there_is_one_clear_error(xen: XenStandIn, socket_path: Path, leaves_nothing: None, kind: str) -> None:
    with pytest.raises(HypervisorError, match="is xenstored running, and is this a Xen host") as caught:
        KINDS[kind]()
    assert (caught.value.code, caught.value.operation) == (errno.ENOENT, "open")
    assert str(socket_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_that_nobody_listens_at_is_one_clear_error(
    xen: XenStandIn, socket_path: Path, leaves_nothing: None, kind: str
) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(socket_path))
    with pytest.raises(HypervisorError, match="nobody listens there: is xenstored running") as caught:
        KINDS[kind]()
    assert caught.value.code == errno.ECONNREFUSED


@pytest.mark.parametrize("kind", KINDS)
def test_no_permission_says_what_to_do(xen: XenStandIn, kind: str) -> None:
    KINDS[kind]().close()  # whatever is loaded is loaded while it can be read
    fds = open_fds()
    with as_nobody(xen.socket), pytest.raises(HypervisorError, match="run as root, or as a member") as caught:
        KINDS[kind]()
    assert caught.value.code == errno.EACCES
    assert open_fds() == fds


def test_what_is_no_socket_is_one_clear_error(tmp_path: Path, leaves_nothing: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HypervisorError, match=r"/file: it is neither a socket nor a device"):
        WireStore.open(str(tmp_path / "file"))
    with pytest.raises(HypervisorError, match=r"too long"):
        WireStore.open(str(_long_socket(tmp_path)))


def _long_socket(above: Path) -> Path:
    """A socket whose path does not fit into a sockaddr_un."""
    deep = above / ("d" * 100)
    deep.mkdir()
    before = Path.cwd()
    os.chdir(deep)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("s")
    finally:
        os.chdir(before)
    return deep / "s"


def test_where_xenstored_is_comes_from_the_environment_as_for_libxenstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """tools/libs/store: XENSTORED_PATH is the whole of it, XENSTORED_RUNDIR a directory."""
    monkeypatch.delenv("XENSTORED_PATH", raising=False)
    monkeypatch.delenv("XENSTORED_RUNDIR", raising=False)
    assert places() == SOCKETS + DEVICES
    monkeypatch.setenv("XENSTORED_RUNDIR", "/somewhere")
    assert places() == ("/somewhere/socket", *DEVICES)
    monkeypatch.setenv("XENSTORED_PATH", "/here")
    assert places() == ("/here",)


def test_the_most_telling_of_several_refusals_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XENSTORED_PATH", raising=False)
    monkeypatch.setenv("XENSTORED_RUNDIR", str(tmp_path))
    (tmp_path / "socket").mkdir()
    with pytest.raises(HypervisorError, match=f"at {tmp_path}/socket: it is neither a socket nor a device"):
        WireStore.open()


def test_without_libxenstore_the_wire_is_spoken(xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with an address, for libxenstore takes none."""
    stores = [open_store(), open_store(str(xen.socket))]
    monkeypatch.setenv("EVENTBRIDGE_LIBXENSTORE", "/nonexistent")
    stores.append(open_store())
    assert [type(store) for store in stores] == [LibxenstoreStore, WireStore, WireStore]
    assert [store.read("/local/domain/0/name") for store in stores] == [b"Domain-0"] * 3
    for store in stores:
        store.close()
    with pytest.raises(HypervisorUnavailable, match="EVENTBRIDGE_LIBXENSTORE=/nonexistent"):
        LibxenstoreStore()


# -- a connection that breaks


def test_a_killed_xenstored_is_connection_lost_now_and_ever_after(opened: Opened) -> None:
    """Also for the calls that libxenstore answers with EBADF, EINVAL or EPIPE; what was told before is told."""
    store = opened()
    store.watch("/w", "token")
    assert readable(store, 20)
    opened.xen.kill()
    assert store.next_watch() == Watched("/w", "token")
    wait_until(lambda: _lost(store.next_watch))
    calls: list[Callable[[], object]] = [
        lambda: store.read("/"),
        lambda: store.write("/w", b""),
        lambda: store.watch("/x", "token"),
        lambda: store.is_introduced(0),
        lambda: store.end(1),
        store.begin,
        store.next_watch,
    ]
    assert all(map(_lost, calls * 2))
    opened.xen.restart()
    assert all(map(_lost, calls)), "a new xenstored is another's"
    assert opened().read("/local/domain/0/name") == b"Domain-0"
    store.close()
    assert code(store.next_watch) == errno.EBADF


def test_a_connection_without_watches_notices_at_the_next_call(opened: Opened) -> None:
    """libxenstore has no thread then."""
    store = opened()
    assert store.next_watch() is None
    opened.xen.kill()
    wait_until(lambda: _lost(lambda: store.read("/")))
    assert _lost(store.next_watch)
    assert _lost(lambda: store.is_introduced(0))


def test_threads_that_wait_are_told_when_xenstored_is_killed(opened: Opened) -> None:
    """Killed while it is frozen, with their requests unanswered."""
    store = opened()
    store.watch("/w", "token")
    opened.xen.freeze()
    lost: list[bool] = []
    threads = [threading.Thread(target=lambda: lost.append(_lost(lambda: store.read("/w")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    opened.xen.kill()
    for thread in threads:
        thread.join(PATIENCE)
    assert lost == [True] * 4


def test_closing_tells_who_waits_for_a_frozen_xenstored(xen: XenStandIn, leaves_nothing: None) -> None:
    """By the wire; of libxenstore nobody can take the connection away."""
    store = WireStore.open()
    inside, codes = threading.Event(), []

    def ask() -> None:
        inside.set()
        codes.append(code(lambda: store.read("/w")))

    xen.freeze()
    thread = threading.Thread(target=ask)
    thread.start()
    assert inside.wait(PATIENCE)
    store.close()
    thread.join(PATIENCE)
    assert codes == [errno.EBADF]
    xen.thaw()


def test_the_wire_notices_at_once_and_its_fd_is_readable(xen: XenStandIn, leaves_nothing: None) -> None:
    store = WireStore.open()
    assert not readable(store)
    xen.kill()
    assert readable(store, 20)
    assert _lost(store.next_watch)
    assert readable(store), "for whoever looks again"
    store.close()
    xen.restart()  # its own connection counts too


def _lost(call: Callable[[], object]) -> bool:
    try:
        call()
    except ConnectionLost as error:
        assert "is xenstored still running?" in str(error)
        assert "\n" not in str(error)
        return True
    except HypervisorError:
        return False
    return False


# -- peers that are not what they seem: scripted stand-ins


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [message(READ, 0)[:7], HEADER.pack(READ, 0, 0, 9) + b"trunc", b""])
def test_a_truncated_reply_is_connection_lost(
    xen: XenStandIn, socket_path: Path, leaves_nothing: None, kind: str, answer: bytes
) -> None:
    with scripted_peer(socket_path, [answer]):
        store = KINDS[kind]()
        assert _lost(lambda: store.read("/w"))
        assert _lost(lambda: store.read("/w"))
        store.close()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (message(READ, 1)[:7], "truncated: it ends within a message, after 7 of the header's 16 bytes"),
        (HEADER.pack(READ, 1, 0, 9) + b"trunc", "truncated: it ends within a message, after 5 of its 9 bytes"),
        (HEADER.pack(READ, 1, 0, 4097), "a message that claims 4097 bytes"),
        (message(77, 1), "a message of type 77, which there is not"),
        (message(WATCH, 1), "a reply of type WATCH to a request of type READ"),
        (message(READ, 2), "a reply of type READ to request 2, which nobody made"),
        (message(READ, 1) * 2, None),
        (message(ERROR, 1, b"\0"), "the name of an error was expected"),
        (message(WATCH_EVENT, 0, b"/path\0"), "a watch event of 1 texts instead of a path and a token"),
        (b"", "it closed the connection"),
    ],
)
def test_what_is_no_reply_ends_the_connection_and_says_so(
    socket_path: Path, leaves_nothing: None, answer: bytes, complaint: str | None
) -> None:
    with scripted_peer(socket_path, [answer]):
        store = WireStore.open()
        if complaint is None:
            assert store.read("/w") == b""
        else:
            with pytest.raises(ConnectionLost, match=complaint):
                store.read("/w")
        wait_until(lambda: _lost(store.next_watch))
        store.close()


@pytest.mark.parametrize(("type", "call"), [(TRANSACTION_START, Store.begin), (INTRODUCED, Store.is_introduced)])
def test_a_reply_without_a_meaning_ends_the_connection(
    socket_path: Path, leaves_nothing: None, type: int, call: Callable[..., object]
) -> None:
    with scripted_peer(socket_path, [message(type, 1, b"nonsense\0")]):
        store = WireStore.open()
        arguments = (7,) if type == INTRODUCED else ()
        with pytest.raises(ConnectionLost, match="its reply is garbage"):
            getattr(store, call.__name__)(*arguments)
        assert _lost(lambda: store.read("/"))
        store.close()


def test_an_error_that_nobody_knows_is_told_by_its_name(socket_path: Path, leaves_nothing: None) -> None:
    with scripted_peer(socket_path, [message(ERROR, 1, b"ENOTHANKS\0")]):
        store = WireStore.open()
        with pytest.raises(HypervisorError, match="cannot read /w: it says ENOTHANKS") as caught:
            store.read("/w")
        assert caught.value.code == errno.EINVAL
        store.close()


def test_a_long_directory_that_changes_meanwhile_is_listed_anew(socket_path: Path, leaves_nothing: None) -> None:
    """docs/misc/xenstore.txt, DIRECTORY_PART: the generation of each part."""
    parts = [b"1\0old\0", b"2\0lost\0", b"2\0new\0", b"2\0last\0\0"]
    answers = [message(DIRECTORY_PART, id, part) for id, part in enumerate(parts, 2)]
    with scripted_peer(socket_path, [message(ERROR, 1, b"E2BIG\0"), *answers]):
        store = WireStore.open()
        assert store.list("/many") == ["new", "last"]
        store.close()


def test_replies_may_come_in_another_order(leaves_nothing: None) -> None:
    """Matched by their ids."""
    ours, theirs = socket.socketpair()
    store = WireStore("a scripted peer (a stand-in)", SocketLink(ours))
    answers: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda path=path: answers.update({path: store.read(path)})) for path in "/a /b".split()
    ]
    with theirs:
        asked = []
        for thread in threads:
            thread.start()
            asked.append(request(theirs))
        for type, id, payload in reversed(asked):
            theirs.sendall(message(type, id, payload.rstrip(b"\0")))
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == {"/a": b"/a", "/b": b"/b"}
        store.close()


def test_linuxs_device_answers_watches_without_an_id(leaves_nothing: None) -> None:
    """drivers/xen/xenbus/xenbus_dev_frontend.c makes those replies itself; the device here is a stand-in."""
    ours, theirs = socket.socketpair()
    store = WireStore("a scripted /dev/xen/xenbus (a stand-in)", DeviceLink(ours.detach()))

    def serve() -> None:
        for _ in range(3):
            type, id, payload = request(theirs)
            event = message(WATCH_EVENT, 0, payload) if type == WATCH else b""
            theirs.sendall(message(type, id if type == READ else 0, b"OK\0") + event)

    with theirs:
        thread = threading.Thread(target=serve)
        thread.start()
        store.watch("/w", "token")
        assert store.read("/w") == b"OK\0"
        assert next_watch(store) == Watched("/w", "token")
        store.unwatch("/w", "token")
        thread.join(PATIENCE)
        store.close()


class _InterruptedOnce(queue.SimpleQueue[Any]):
    """A stand-in for where a reply is waited for: Ctrl-C comes to whoever waits first."""

    interrupted = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not _InterruptedOnce.interrupted:
            _InterruptedOnce.interrupted = True
            signal.raise_signal(signal.SIGINT)
        return super().get(block, timeout)


def test_a_request_that_was_interrupted_leaves_its_reply_to_nobody(
    leaves_nothing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a thread that waits: the connection lives on."""
    monkeypatch.setattr(_InterruptedOnce, "interrupted", False)
    monkeypatch.setattr(multiplexer, "queue", SimpleNamespace(SimpleQueue=_InterruptedOnce))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            for type, id, payload in (request(theirs), request(theirs)):  # both are asked before one is answered
                theirs.sendall(message(type, id, payload))

    thread = threading.Thread(target=serve)
    with contextlib.closing(WireStore("a scripted peer (a stand-in)", SocketLink(ours))) as store:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            store.read("/first")
        assert store.read("/second") == b"/second\0"
    thread.join(PATIENCE)
    assert not thread.is_alive()
