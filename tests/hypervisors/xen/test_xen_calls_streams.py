"""What keeps libxl alive around a stream, and a guest whole: the files, the pipes, and the word that stops a guest.

The rest of save, restore and migration needs a guest: it is tested in a real Xen (tests/e2e/xen/dom0/calls_in_dom0.py).
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import migration_in
from eventbridge.adapters.hypervisors.xen.libxl.migration_in import Incoming
from eventbridge.adapters.hypervisors.xen.libxl.relay import Relay
from eventbridge.adapters.hypervisors.xen.libxl.save_file import NewFile, definition_beside, opened
from eventbridge.adapters.hypervisors.xen.libxl.shutdown_watch import Stopping
from eventbridge.adapters.hypervisors.xen.libxl.streams import HEAD, begins_well, offset
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainRef
from tests.support.patience import PATIENCE
from tests.support.xen.asking import Asking
from tests.support.xen.standin import XenStandIn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guest"


def names(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


# -- files


def test_a_saved_guest_is_there_when_it_is_whole_and_nobody_elses(path: Path) -> None:
    with NewFile(str(path)) as file:
        os.write(file.fd, b"memory")
        assert names(path) == ["guest.partial"]
        file.keep('{"c_info": {}}')
    assert names(path) == ["guest", "guest.json"]
    assert (path.read_bytes(), definition_beside(str(path))) == (b"memory", '{"c_info": {}}')
    assert {found.stat().st_mode & 0o777 for found in path.parent.iterdir()} == {0o600}


def test_one_that_fails_leaves_nothing_of_its_own_and_an_older_one_as_it_was(path: Path) -> None:
    path.write_bytes(b"older")

    def fail() -> None:
        with NewFile(str(path)) as file:
            os.write(file.fd, b"memory")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert (names(path), path.read_bytes()) == (["guest"], b"older")


def test_an_older_definition_is_not_taken_for_the_new_guests(path: Path) -> None:
    Path(f"{path}.json").write_text("older")
    with NewFile(str(path)) as file:
        os.write(file.fd, b"memory")
        file.keep(None)
    assert (names(path), definition_beside(str(path))) == (["guest"], None)


def test_two_at_once_are_refused_and_the_first_is_left_to_itself(path: Path) -> None:
    with NewFile(str(path)) as file:
        with pytest.raises(HypervisorError, match=r"somebody is at it, or left .*guest\.partial behind"):
            NewFile(str(path)).__enter__()
        file.keep(None)
    assert names(path) == ["guest"]


def test_what_is_no_regular_file_is_neither_saved_to_nor_restored_from(path: Path) -> None:
    """H9: of anything else how far it is cannot be told, and libxl may not be aborted."""
    os.mkfifo(path)
    with pytest.raises(HypervisorError, match="no regular file"), NewFile(str(path)):
        pass
    with pytest.raises(HypervisorError, match="no regular file"), opened(str(path)):
        pass
    assert names(path) == ["guest"]


def test_a_place_that_is_not_there_is_refused_with_the_systems_word(path: Path) -> None:
    with pytest.raises(HypervisorError, match="cannot save to /nowhere/guest: No such file") as caught:
        NewFile("/nowhere/guest").__enter__()
    assert caught.value.code == errno.ENOENT
    with (
        pytest.raises(HypervisorError, match="cannot restore from /nowhere/guest: No such file"),
        opened("/nowhere/guest"),
    ):
        pass


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_noticed_before_libxl_is_which_would_not_survive_it(path: Path, full_disk: None) -> None:
    with pytest.raises(HypervisorError, match=r"cannot save to .*guest: File too large"):
        NewFile(str(path)).__enter__()
    assert names(path) == []


@pytest.mark.parametrize(
    ("content", "well"), [(HEAD, True), (HEAD + b"more", True), (HEAD[:-1], False), (b"", False), (bytes(64), False)]
)
def test_only_a_stream_whose_head_is_whole_is_given_to_libxl(path: Path, content: bytes, well: bool) -> None:
    path.write_bytes(content)
    with opened(str(path)) as fd:
        assert begins_well(fd) is well
        assert offset(fd)() == 0, "nothing of it was taken"


# -- pipes


class Pipe:
    """A relay, what is read at its far end, and a thread that reads it."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.relay = Relay(writer)

    def all(self) -> bytes:
        with os.fdopen(self.reader, "rb") as file:
            return file.read()


@pytest.mark.parametrize("size", [0, 10, 24, 100_000])
def test_who_reads_gets_every_byte_and_a_whole_head_at_least(size: int) -> None:
    stream = (HEAD + bytes(100_000))[:size]
    pipe = Pipe()

    def write() -> None:
        written = 0
        while written < size:
            written += os.write(pipe.relay.fd, stream[written:])
        pipe.relay.close()
        pipe.relay.close()

    writing = threading.Thread(target=write)
    writing.start()
    assert pipe.all() == (stream if size >= len(HEAD) else HEAD)
    writing.join(PATIENCE)
    assert pipe.relay.position() == size


def test_who_writes_gets_rid_of_a_whole_head_though_nobody_reads() -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    assert os.write(pipe.relay.fd, HEAD[:16]) == 16
    assert os.write(pipe.relay.fd, HEAD[16:]) == 8
    with pytest.raises(BrokenPipeError):
        while True:  # the relay's end is closed soon
            os.write(pipe.relay.fd, bytes(4096))
    pipe.relay.close()


def test_a_guest_that_is_not_coming_after_all_has_begun_well() -> None:
    coming = Incoming(None, DomainRef("web", "u", 1))  # type: ignore[arg-type]
    coming.hang_up()
    coming.hang_up()
    with os.fdopen(coming.reader, "rb") as file:
        assert file.read() == HEAD


def test_a_guest_comes_in_once_at_a_time_and_is_found_by_word_and_by_whoever_expects_it() -> None:
    source = DomainRef("web", "u-1", 1)
    here, there = object(), object()
    first, second = Incoming(here, source), Incoming(there, source)  # type: ignore[arg-type]
    assert migration_in.expect(first)
    assert not migration_in.expect(second)
    assert migration_in.find(first.word) is first
    assert migration_in.of(here, DomainRef("web", "U-1")) is first  # type: ignore[arg-type]
    assert migration_in.of(there, source) is None  # type: ignore[arg-type]
    migration_in.forget(second)
    assert migration_in.find(first.word) is first, "it is not another's to forget"
    migration_in.forget(first)
    assert migration_in.find(first.word) is None
    for coming in (first, second):
        assert coming.take_writer() is not None
        assert coming.take_writer() is None


# -- the word that stops a guest

CONTROL = "/local/domain/1/control/shutdown"


@pytest.mark.parametrize(
    ("happens", "called_off", "left"),
    [
        ([], True, None),
        (["suspend"], True, ""),
        (["suspend", ""], False, ""),
    ],
    ids=["it was not asked", "it has not heard it", "it has heard it"],
)
def test_a_guest_that_has_heard_that_it_is_to_stop_will(
    xen: XenStandIn, happens: list[str], called_off: bool, left: str | None
) -> None:
    xen.create(1)
    with Stopping(1) as stopping:
        for value in happens:
            xen.write(CONTROL, value)
        assert stopping.called_off() is called_off
    assert xen.read(CONTROL) == left


# -- definitions


@pytest.fixture
def asking(xen: XenStandIn) -> Iterator[Asking]:
    xen.create(1, "web")
    with Bridge("select") as bridge:
        asking = Asking(bridge)
        yield asking
        asking.session.close()
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (None, "without a definition"),
        ("{", "a definition is a libxl_domain_config as JSON"),
        ({"c_info": {"type": "no such type"}}, "a definition is a libxl_domain_config as JSON"),
        ({"c_info": object()}, "that JSON can say"),
        ({"c_info": {"type": "pv", "name": "new"}, "b_info": {"max_memkb": 8192, "type.pv": {}}}, "cannot create"),
    ],
    ids=["none", "no JSON", "another's", "unspeakable", "that Xen refuses"],
)
def test_a_domain_that_cannot_be_made_is_refused_with_why(asking: Asking, definition: object, said: str) -> None:
    error = asking.refused("create", definition=definition)
    assert isinstance(error, HypervisorError)
    assert said in str(error)
    assert [info.domain.name for info in asking.ask("list")] == ["Domain-0", "web"]


def test_a_save_that_cannot_begin_leaves_the_guest_and_no_file(xen: XenStandIn, asking: Asking, path: Path) -> None:
    refusals: list[tuple[Callable[[], object], dict[str, object], str]] = [
        (lambda: None, {}, "a path of a file is needed"),
        (lambda: None, {"path": str(path / "deeper")}, "No such file or directory"),
        (lambda: asking.ask("suspend", "web"), {"path": str(path)}, "it is paused"),
        (lambda: xen.shutdown(1), {"path": str(path)}, "its guest has stopped already"),
    ]
    for happens, arguments, said in refusals:
        happens()
        assert said in str(asking.refused("save", "web", **arguments))
    assert names(path) == []
    assert xen.table.present(1)


def test_a_restore_without_a_definition_says_where_it_would_be(asking: Asking, path: Path) -> None:
    path.write_bytes(HEAD)
    assert "guest.json beside it: give its definition" in str(asking.refused("restore", path=str(path)))
    path.write_bytes(b"nothing that was saved")
    definition = {"c_info": {"type": "pv", "name": "new"}}
    assert "does not begin like one" in str(asking.refused("restore", path=str(path), definition=definition))


def test_a_migration_wants_to_know_who_and_where_to(asking: Asking) -> None:
    assert "as source" in str(asking.refused("migrate_prepare"))
    assert "no mail is coming in" in str(asking.refused("migrate_finish", source=DomainRef("mail")))
    assert "nobody listens at 'pipe:x'" in str(asking.refused("migrate", "web", to="pipe:x"))
    assert "limits neither" in str(asking.refused("migrate", "web", to="pipe:x", bandwidth=1))
    assert "does not know its definition" in str(asking.refused("migrate_prepare", source=DomainRef("web")))
