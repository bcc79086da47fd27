"""What is asked of libvirt's QEMU driver: private daemons, real guests, saved and migrated while others live."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from eventbridge.adapters.hypervisors.libvirt.session import LibvirtSession
from eventbridge.errors import HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import DomainRef, State
from eventbridge.jobs import JobAborted
from tests.hypervisors.libvirt.calls_rig import Answer, ask, do, soon
from tests.support import freezing
from tests.support.libvirtd_qemu import HOSTS, QemuLibvirtd, heavy_guest, private_qemu_libvirtd
from tests.support.patience import PATIENCE
from tests.support.qemu import guest
from tests.support.watched import Watch, Watched

# What is shown here depends on QEMU and its daemon; test_libvirt_calls*.py show the same calls on every host.
pytestmark = pytest.mark.parametrize("bridge", ["asyncio"], indirect=True)

MIB = 1 << 20
SLOWLY = MIB  # bytes/s: a heavy guest takes a minute


@pytest.fixture(scope="module")
def red() -> Iterator[QemuLibvirtd]:
    """A daemon; it looks at its QEMU for some seconds when it is first asked for a guest, and once."""
    with private_qemu_libvirtd(HOSTS[0]) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def blue() -> Iterator[QemuLibvirtd]:
    """Another, on what it takes for another host."""
    with private_qemu_libvirtd(HOSTS[1]) as daemon:
        yield daemon


@pytest.fixture
def watched(red: QemuLibvirtd, watch: Watch) -> Iterator[Watched]:
    """A session with the first, which has no domain before nor after."""
    with _emptied(red):
        yield watch(red.unix_uri)


@pytest.fixture
def session(watched: Watched) -> LibvirtSession:
    return watched.subscription


@pytest.fixture
def there(blue: QemuLibvirtd, watch: Watch) -> Iterator[LibvirtSession]:
    """A session with the second, which has no domain before nor after."""
    with _emptied(blue):
        yield watch(blue.unix_uri).subscription


@contextlib.contextmanager
def _emptied(daemon: QemuLibvirtd) -> Iterator[None]:
    yield
    with libvirt.open(daemon.unix_uri) as connection:
        for domain in connection.listAllDomains():
            _remove(domain)
        domain = None  # a domain's object keeps its connection open


def _remove(domain: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # it has ended
        domain.destroy()
    with contextlib.suppress(libvirt.libvirtError):  # it was transient
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)


def _heavy(session: LibvirtSession, daemon: QemuLibvirtd, name: str = "g") -> DomainRef:
    """A guest that takes a minute to move at a MiB/s."""
    known: DomainRef = do(session, "create", definition=heavy_guest(name), paused=True)
    daemon.fill(name)
    return known


def test_a_guests_life_is_led_by_calls(session: LibvirtSession, watched: Watched) -> None:
    def state() -> State:
        return do(session, "info", known).state  # type: ignore[no-any-return]

    known = do(session, "define", definition=guest("g"))
    assert state() is State.STOPPED
    for operation, given, after in [
        ("start", {"paused": True}, State.PAUSED),
        ("resume", {}, State.RUNNING),
        ("suspend", {}, State.PAUSED),
        ("destroy", {}, State.STOPPED),
        ("start", {}, State.RUNNING),
        ("shutdown", {}, State.RUNNING),  # asked, and deaf: no system runs in it
        ("destroy", {}, State.STOPPED),
    ]:
        assert do(session, operation, known, **given) is None
        assert state() is after, operation
    do(session, "undefine", known)
    with pytest.raises(NoSuchDomain):
        state()
    assert watched.bridge.run(until=lambda: "g undefined (removed)" in watched.told(), timeout=PATIENCE)
    # QEMU says that its host had it shut down when it has the time to, as it is destroyed.
    assert [told for told in watched.told() if told != "g shutdown (host)"] == [
        "g defined (added)",
        "g started (booted)",
        "g suspended (paused)",
        "g resumed (unpaused)",
        "g suspended (paused)",
        "g stopped (destroyed)",
        "g resumed (unpaused)",
        "g started (booted)",
        "g stopped (destroyed)",
        "g undefined (removed)",
    ]


def test_info_and_the_list_tell_of_a_guest_what_libvirt_knows(session: LibvirtSession) -> None:
    known = do(session, "create", definition=guest("g"), paused=True)
    info = do(session, "info", known)
    assert (info.domain, info.state, info.persistent) == (known, State.PAUSED, False)
    assert (info.vcpus, info.memory, info.max_memory) == (1, 16 * 1024, 16 * 1024)
    assert info.cpu_time > 0
    do(session, "define", definition=guest("off"))
    assert {each.domain.name: (each.state, each.persistent) for each in do(session, "list")} == {
        "g": (State.PAUSED, False),
        "off": (State.STOPPED, True),
    }


def test_a_console_is_a_terminal_of_the_hosts(session: LibvirtSession) -> None:
    definition = guest("g").replace("</devices>", "<serial type='pty'/><console type='pty'/></devices>")
    known = do(session, "create", definition=definition, paused=True)
    info = do(session, "console_info", known)
    assert (info.kind, info.devid, info.connection, info.output) == ("serial", 0, "pty", "pty")
    assert stat.S_ISCHR(os.stat(info.tty).st_mode)
    assert do(session, "console_info", known, kind="serial", number=0) == info
    with pytest.raises(HypervisorError, match="pv console; it has: serial 0"):
        do(session, "console_info", known, kind="pv")


# -- saving


@pytest.mark.parametrize(("paused", "after"), [(True, State.PAUSED), (False, State.RUNNING)])
def test_a_saved_guest_comes_back_as_itself(
    session: LibvirtSession, watched: Watched, tmp_path: Path, paused: bool, after: State
) -> None:
    known = do(session, "create", definition=guest("g"))
    do(session, "save", known, path=str(tmp_path / "saved"))
    with pytest.raises(NoSuchDomain):
        do(session, "info", known)
    again = do(session, "restore", path=str(tmp_path / "saved"), paused=paused)
    assert (again.name, again.uuid) == (known.name, known.uuid)
    assert do(session, "info", again).state is after
    assert watched.bridge.run(until=lambda: "g started (restored)" in watched.told(), timeout=PATIENCE)
    assert [told for told in watched.told() if "stopped" in told] == ["g stopped (saved)"]


def test_what_was_saved_for_it_a_start_brings_back(session: LibvirtSession, watched: Watched) -> None:
    known = do(session, "define", definition=guest("g"))
    do(session, "start", known, paused=True)
    do(session, "managed_save", known)
    assert do(session, "info", known).state is State.STOPPED
    do(session, "start", known)
    assert do(session, "info", known).state is State.PAUSED, "as it was saved"
    do(session, "managed_save", known)
    do(session, "undefine", known)
    assert do(session, "list") == []
    assert watched.bridge.run(until=lambda: "g undefined (removed)" in watched.told(), timeout=PATIENCE)
    assert [told for told in watched.told() if "stopped" in told] == ["g stopped (saved)"] * 2


def test_a_save_that_is_aborted_leaves_the_guest_running(
    session: LibvirtSession, watched: Watched, red: QemuLibvirtd, tmp_path: Path
) -> None:
    """Into a pipe, which is read so slowly that it does not end by itself."""
    known = _heavy(session, red)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        saving = ask(session, "save", known, path=str(tmp_path / "pipe"))
        assert saving.progressing.wait(PATIENCE)
        saving.request.abort()
        while not saving.wait(0.001):  # libvirt waits until what it has written is read
            with contextlib.suppress(BlockingIOError):  # it is empty just now
                os.read(reader, 4096)
        with pytest.raises(JobAborted, match="save of g"):
            saving.get()
    finally:
        os.close(reader)
    assert do(session, "info", known).state is State.PAUSED
    watched.bridge.run(timeout=0.05)
    assert not any("stopped" in told for told in watched.told())


def test_a_save_that_fails_leaves_the_guest_running(session: LibvirtSession) -> None:
    known = do(session, "create", definition=guest("g"), paused=True)
    with pytest.raises(HypervisorError, match=r"save of g: .*'/nowhere/x'"):
        do(session, "save", known, path="/nowhere/x")
    with pytest.raises(HypervisorError, match="restore: "):
        do(session, "restore", path="/nowhere/x")
    assert do(session, "info", known).state is State.PAUSED


# -- migrating


def test_while_one_guest_migrates_it_and_the_others_are_asked_and_an_abort_leaves_it_running(
    session: LibvirtSession, watched: Watched, red: QemuLibvirtd, blue: QemuLibvirtd, there: LibvirtSession
) -> None:
    known = _heavy(session, red)
    do(session, "create", definition=guest("b"), paused=True)
    do(session, "define", definition=guest("c"))
    moving = ask(session, "migrate", known, to=blue.tcp_uri, live=True, bandwidth=SLOWLY)
    assert moving.progressing.wait(PATIENCE)
    assert do(session, "info", known).state is State.PAUSED
    assert do(session, "info", "b").state is State.PAUSED
    do(session, "start", "c", paused=True)
    do(session, "destroy", "b")
    assert {each.domain.name for each in do(session, "list")} == {"g", "c"}
    do(session, "set_bandwidth", known, bandwidth=2 * SLOWLY)
    do(session, "set_downtime", known, downtime=100)
    with pytest.raises(HypervisorError, match="another migration job is already running"):
        do(session, "migrate", known, to=blue.tcp_uri)
    assert not moving.done
    moving.request.abort()
    with pytest.raises(JobAborted, match="migrate of g: operation aborted"):
        moving.get()
    assert do(session, "info", known).state is State.PAUSED
    assert do(there, "list") == []
    last = moving.progresses[-1]
    assert last.total >= 64 * MIB > last.remaining > 0
    assert len(moving.progresses) == len(set(moving.progresses))
    watched.bridge.run(timeout=0.05)
    assert [told for told in watched.told() if "g stopped" in told] == []


def test_a_migrated_guest_runs_there_and_no_more_here(
    session: LibvirtSession, watched: Watched, red: QemuLibvirtd, blue: QemuLibvirtd, there: LibvirtSession
) -> None:
    known = _heavy(session, red)
    assert do(session, "migrate", known, to=blue.tcp_uri, live=True, downtime=50) is None
    with pytest.raises(NoSuchDomain):
        do(session, "info", known)
    info = do(there, "info", known)
    assert (info.domain.uuid, info.state, info.persistent) == (known.uuid, State.PAUSED, False)
    assert watched.bridge.run(until=lambda: "g stopped (migrated)" in watched.told(), timeout=PATIENCE)
    assert [told for told in watched.told() if "stopped" in told] == ["g stopped (migrated)"]


def test_a_definition_moves_along_where_that_is_asked(
    session: LibvirtSession, blue: QemuLibvirtd, there: LibvirtSession
) -> None:
    known = do(session, "define", definition=guest("g"))
    do(session, "start", known, paused=True)
    do(session, "migrate", known, to=blue.tcp_uri, persistent=True, undefine=True)
    assert do(session, "list") == []
    assert do(there, "info", known).persistent is True


def test_an_abort_that_comes_first_of_all_is_not_lost(
    session: LibvirtSession, red: QemuLibvirtd, blue: QemuLibvirtd, there: LibvirtSession
) -> None:
    """libvirt has no job to abort yet, and says so: it is told again."""
    known = _heavy(session, red)
    moving = ask(session, "migrate", known, to=blue.tcp_uri, live=True, bandwidth=SLOWLY)
    moving.request.abort()
    with pytest.raises(JobAborted):
        moving.get()
    assert do(session, "info", known).state is State.PAUSED
    assert do(there, "list") == []


def test_a_destination_that_is_not_there_is_no_lost_connection_of_ours(session: LibvirtSession) -> None:
    known = do(session, "create", definition=guest("g"), paused=True)
    for nowhere in ("qemu+tcp://127.0.0.1:1/system", "qemu+unix:///system?socket=/nowhere/x", "no uri"):
        with pytest.raises(HypervisorError, match="migrate of g: "):
            do(session, "migrate", known, to=nowhere, live=True)
    assert do(session, "info", known).state is State.PAUSED


def test_a_destination_that_dies_leaves_the_guest_here(
    session: LibvirtSession, watched: Watched, red: QemuLibvirtd
) -> None:
    known = _heavy(session, red)
    with private_qemu_libvirtd(HOSTS[1]) as third:
        moving = ask(session, "migrate", known, to=third.tcp_uri, live=True, bandwidth=SLOWLY)
        assert moving.progressing.wait(PATIENCE)
        third.end()
        with pytest.raises(HypervisorError, match="migrate of g: "):
            moving.get()
    assert do(session, "info", known).state is State.PAUSED
    watched.bridge.run(timeout=0.05)
    assert not any("stopped" in told for told in watched.told())


# -- what hangs


def test_a_guest_that_hangs_costs_its_own_calls_and_no_others(session: LibvirtSession, red: QemuLibvirtd) -> None:
    """More calls of it than the daemon takes of one connection at a time, and all that the session has threads for."""
    hung = do(session, "create", definition=guest("g"), paused=True)
    do(session, "create", definition=guest("b"), paused=True)
    guest_process = freezing.freeze(red.guest_pid("g"))
    stuck = [ask(session, "resume", hung, deadline=time.monotonic()) for _ in range(8)]
    for answer in stuck:
        session.given_up(answer.request)
    assert soon(lambda: session.workers.stats()["hung"] == 8)
    for _ in range(3):
        assert do(session, "info", "b").state is State.PAUSED
        assert do(session, "info", hung).state is State.PAUSED, "that takes no monitor"
        assert len(do(session, "list")) == 2
    do(session, "resume", "b")
    assert not any(answer.done for answer in stuck)
    guest_process.thaw()
    for answer in stuck:
        _ended(answer)
    assert do(session, "info", hung).state is State.RUNNING
    assert {len(answer.ends) for answer in stuck} == {1}


def test_guests_outlive_their_daemon(watch: Watch) -> None:
    """The helper's own promise: one that is started again finds what was there."""
    with private_qemu_libvirtd() as daemon:
        watched = watch(daemon.unix_uri)
        known = do(watched.subscription, "create", definition=guest("g"), paused=True)
        pid = daemon.guest_pid("g")
        daemon.kill()
        assert watched.bridge.run(until=lambda: "- connection_lost (eof)" in watched.told(), timeout=PATIENCE)
        watched.close()
        daemon.restart()
        again = watch(daemon.unix_uri).subscription
        assert do(again, "info", known).state is State.PAUSED
        assert daemon.guest_pid("g") == pid


def _ended(answer: Answer) -> Any:
    """However it ended."""
    with contextlib.suppress(HypervisorError):
        return answer.get()
