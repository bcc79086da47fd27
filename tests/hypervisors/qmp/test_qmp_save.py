"""A domain is put into a file: complete, or not at all, and then it runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from qmp_pairs import SLOW

from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.jobs import JobAborted
from tests.support.patience import PATIENCE
from tests.support.qmp_qemu import INCOMING, MACHINE, Start, wait_until
from tests.support.qmp_rig import Rig

MAGIC = b"QEVM"
"""What QEMU's migration stream begins with (migration/savevm.h)."""
SAVED = ["started booted", "suspended saved", "shutdown host", "stopped saved", "connection_lost eof"]


def restore(start: Start, path: Path) -> str:
    """The run state of a QEMU that has taken it in."""
    qemu = start("restored", *MACHINE, *INCOMING)
    qemu.side.ask("migrate-incoming", uri=f"exec:cat {path}")
    wait_until(lambda: qemu.side.status != "inmigrate")
    return qemu.side.status


@pytest.mark.parametrize("name", ["saved", 'it\'s $HOME; "quoted" `echo` & spaced\n'])
def test_a_saved_domain_is_in_the_file_and_has_ended(each_rig: Rig, start: Start, directory: Path, name: str) -> None:
    qemu, path = start(), directory / name
    opened = each_rig.open(qemu.uri)
    opened.ask("start")
    saving = opened.begin("save", path=str(path))
    assert saving.value() is None
    assert opened.said == SAVED
    assert any(progress.total for progress in saving.progress)
    assert path.read_bytes().startswith(MAGIC)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(directory.glob("*.partial"))
    qemu.process.wait(PATIENCE)
    plain = directory / "plain"
    path.rename(plain)
    assert restore(start, plain) == "paused"


def test_an_earlier_file_is_replaced_by_a_complete_one(rig: Rig, start: Start, directory: Path) -> None:
    path = directory / "saved"
    path.write_bytes(b"of yesterday")
    opened = rig.open(start().uri)
    opened.ask("save", path=str(path))
    assert path.read_bytes().startswith(MAGIC)


def test_an_abort_leaves_no_file_and_the_domain_running(each_rig: Rig, start: Start, directory: Path) -> None:
    qemu, path = start(), directory / "saved"
    path.write_bytes(b"of yesterday")
    opened = each_rig.open(qemu.uri)
    opened.ask("start")
    qemu.side.ask("migrate-set-parameters", max_bandwidth=SLOW)
    saving = opened.begin("save", path=str(path))
    each_rig.until(lambda: any(progress.total for progress in saving.progress))
    assert qemu.side.status == "paused"
    saving.request.abort()
    error = saving.error()
    assert isinstance(error, JobAborted)
    assert str(error) == "cannot save a: it was aborted; it runs on here"
    assert qemu.side.status == "running"
    assert opened.said == ["started booted", "suspended saved", "resumed saved"]
    assert path.read_bytes() == b"of yesterday"
    assert not list(directory.glob("*.partial"))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/no/such/directory/saved", "No such file or directory"),
        ("saved", "must be absolute"),
        ("/tmp/a\0b", "must be absolute"),
        ("/proc/saved", "cannot be written"),
    ],
)
def test_where_it_cannot_be_written_nothing_is_done(rig: Rig, start: Start, path: str, why: str) -> None:
    opened = rig.open(start("a", *MACHINE).uri)
    opened.ask("start")
    error = opened.begin("save", path=path).error()
    assert isinstance(error, HypervisorError)
    assert why in str(error)
    assert opened.said == ["started booted"], "it was not even stopped"


def test_a_file_that_is_a_directory_by_then_leaves_it_running(rig: Rig, start: Start, directory: Path) -> None:
    """All is written, and cannot be called by its name."""
    (directory / "saved").mkdir()
    qemu = start()
    opened = rig.open(qemu.uri)
    opened.ask("start")
    error = opened.begin("save", path=str(directory / "saved")).error()
    assert "Is a directory" in str(error)
    assert str(error).endswith("it runs on here")
    assert qemu.side.status == "running"
    assert not list(directory.glob("*.partial"))


def test_killed_meanwhile_it_leaves_no_file(rig: Rig, start: Start, directory: Path) -> None:
    qemu, path = start(), directory / "saved"
    opened = rig.open(qemu.uri)
    qemu.side.ask("migrate-set-parameters", max_bandwidth=SLOW)
    saving = opened.begin("save", path=str(path))
    rig.until(lambda: any(progress.total for progress in saving.progress))
    qemu.kill()
    assert isinstance(saving.error(), ConnectionLost)
    opened.told("connection_lost eof")
    assert opened.story[-2] == "stopped crashed"
    assert not os.listdir(directory) or not list(directory.glob("saved*"))


def test_a_session_that_is_closed_meanwhile_leaves_qemu_to_it(rig: Rig, start: Start, directory: Path) -> None:
    """QEMU writes on, and what it writes is kept, under the name of what is not complete."""
    qemu, path = start(), directory / "saved"
    opened = rig.open(qemu.uri)
    qemu.side.ask("migrate-set-parameters", max_bandwidth=SLOW)
    saving = opened.begin("save", path=str(path))
    rig.until(lambda: any(progress.total for progress in saving.progress))
    opened.session.close()
    assert isinstance(saving.answers[0][1], ConnectionLost)
    rig.passes()
    qemu.side.ask("migrate-set-parameters", max_bandwidth=1 << 30)
    wait_until(lambda: qemu.side.status == "postmigrate")
    (partial,) = directory.glob("saved.*.partial")
    assert partial.read_bytes().startswith(MAGIC)
    assert not path.exists()


def test_over_tcp_a_shell_of_qemus_writes_it(rig: Rig, start: Start, directory: Path) -> None:
    """The file is QEMU's host's; its name is the shell's affair as little as over a unix socket."""
    qemu = start("a", *MACHINE, "-qmp", "tcp:127.0.0.1:0,server=on,wait=off")
    opened = rig.open(qemu.tcp_uri)
    assert opened.ask("info").domain.id is None, "who is at the other end of a network is not seen"
    path = directory / "it's $HOME; `echo`"
    opened.ask("save", path=str(path))
    assert opened.said[-2:] == ["stopped saved", "connection_lost eof"]
    wait_until(lambda: path.exists() and path.read_bytes().startswith(MAGIC))
