"""What ``libxl:///`` is asked for, in a real Xen: guests made, paused, saved, restored, and let be meanwhile."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventbridge import Bridge
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import DomainRef, State
from eventbridge.jobs import JobAborted
from tests.e2e.xen.dom0 import guests
from tests.e2e.xen.dom0.counting import counted
from tests.e2e.xen.dom0.typed import Typed
from tests.support.patience import PATIENCE
from tests.support.xen.asking import Asked, Asking


@pytest.fixture
def asking(bridge: Bridge) -> Iterator[Asking]:
    """``libxl:///`` on a bridge; what is left of the test's guests is destroyed in the end."""
    asking = Asking(bridge)
    yield asking
    for info in asking.ask("list"):
        if info.domain.id and info.domain.name != guests.Linux.NAME:
            with contextlib.suppress(NoSuchDomain):
                asking.ask("destroy", info.domain)
    asking.session.close()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), "something is still registered"


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a guest can be saved to, in domain 0's memory."""
    path = Path("/tmp/saved.xen")
    yield path
    for left in path.parent.glob("saved.xen*"):
        left.unlink()


on_one_host = pytest.mark.parametrize("bridge", ["select"], indirect=True)
on_asyncio = pytest.mark.parametrize("bridge", ["asyncio"], indirect=True)


def kinds(asking: Asking, ref: DomainRef) -> list[tuple[str, str | None]]:
    return [(event.kind, event.reason) for event in asking.events if event.domain and event.domain.id == ref.id]


def ends(asking: Asking, ref: DomainRef, count: int) -> bool:
    return len(kinds(asking, ref)) >= count


def goes_on(typed: Typed, more: int = 2) -> None:
    """It counts on, in the same boot."""
    boot, so_far = counted(bytes(typed.data))[-1]
    typed.until(lambda console: counted(console)[-1][1] >= so_far + more)
    assert counted(bytes(typed.data))[-1][0] == boot


def left(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob("saved.xen*"))


def test_a_guest_is_made_looked_at_paused_let_go_and_destroyed(asking: Asking) -> None:
    definition = guests.small("made")
    ref = asking.ask("create", definition=definition)
    assert (ref.name, ref.uuid) == ("made", definition["c_info"]["uuid"])
    info = asking.ask("info", "made")
    assert (info.domain, info.vcpus) == (ref, 1)
    assert info.max_memory is not None and guests.SMALL_KB <= info.max_memory <= guests.SMALL_KB + 1024
    typed = Typed(asking.bridge, ref.id)
    typed.until(lambda written: written.endswith(b"\n"))
    asking.ask("suspend", ref)
    assert asking.ask("info", ref).state is State.PAUSED
    typed.stream.write(b"while it stands still")
    asking.bridge.run(timeout=0.2)
    assert not typed.data.endswith(b"still")
    asking.ask("resume", ref)
    typed.until(lambda written: written.endswith(b"while it stands still"))
    asking.ask("destroy", ref)
    asking.until(lambda: len(kinds(asking, ref)) == 4)
    assert [str(event) for event in asking.events] == [
        "made started",
        "made suspended (paused)",
        "made resumed",
        "made stopped (destroyed)",
    ]
    assert isinstance(asking.refused("info", ref), NoSuchDomain)


@on_one_host
def test_a_guest_is_shut_down_and_rebooted_by_asking_it(asking: Asking) -> None:
    for operation, kind in (("shutdown", "shutdown"), ("reboot", "rebooted")):
        ref = asking.ask("create", definition=json.dumps(guests.small(f"to-{operation}")))
        Typed(asking.bridge, ref.id).until(lambda written: written.endswith(b"\n"))
        asking.ask(operation, ref)
        asking.until(functools.partial(ends, asking, ref, 2))
        assert [told for told, _ in kinds(asking, ref)] == ["started", kind]


@on_one_host
def test_a_definition_that_is_none_makes_nothing(asking: Asking) -> None:
    assert "a definition is" in str(asking.refused("create", definition="{"))
    bad = guests.small("bad")
    bad["b_info"]["kernel"] = "/nowhere"
    for definition in ({"no_info": {}}, bad):
        error = asking.refused("create", definition=definition)
        assert isinstance(error, HypervisorError)
        assert "cannot create" in str(error)
    ref = asking.ask("create", definition=guests.small("twice"), paused=True)
    assert asking.ask("info", ref).state is State.PAUSED
    assert isinstance(asking.refused("create", definition=guests.small("twice")), HypervisorError)
    assert {info.domain.name for info in asking.ask("list")} - {guests.Linux.NAME} == {"Domain-0", "twice"}


@on_asyncio
def test_a_guest_is_saved_to_a_file_and_restored_where_it_was(linux: guests.Linux, asking: Asking, path: Path) -> None:
    """H9: libxl registers the file itself, which epoll refuses."""
    saved = linux.ref
    before = Typed(asking.bridge, linux.domid)
    before.until(lambda console: len(counted(console)) >= 3)
    save = asking.begin("save", saved, path=str(path))
    asking.wait(save)
    asking.until(lambda: ("stopped", "saved") in kinds(asking, saved))
    assert kinds(asking, saved) == [("suspended", "guest"), ("stopped", "saved")]
    assert left(path) == ["saved.xen", "saved.xen.json"]
    assert path.stat().st_mode & 0o77 == 0
    with open(path, "rb") as file, select.epoll() as epoll, pytest.raises(PermissionError):
        epoll.register(file.fileno(), select.EPOLLIN)
    check_progress(save)
    check_restores_that_fail(asking, path)

    restored = asking.ask("restore", path=str(path))
    assert (restored.name, restored.uuid) == (saved.name, saved.uuid)
    assert restored.id != saved.id
    after = Typed(asking.bridge, restored.id)
    after.until(lambda console: len(counted(console)) >= 3)
    boots = counted(bytes(before.data)) + counted(bytes(after.data))
    assert len({boot for boot, _ in boots}) == 1, "it was not booted anew"
    assert [count for _, count in boots] == sorted({count for _, count in boots})
    after.stream.close()


def check_progress(save: Asked) -> None:
    total = guests.LINUX_KB << 10
    assert all(progress.total is not None and abs(progress.total - total) < 8 << 20 for progress in save.progress)
    done = [progress.processed or 0 for progress in save.progress]
    assert done == sorted(done)
    assert done[-1] > 1 << 20
    assert all(
        progress.remaining == max(0, (progress.total or 0) - (progress.processed or 0)) for progress in save.progress
    )


def check_restores_that_fail(asking: Asking, path: Path) -> None:
    """No domain is left of them; libxl itself would not survive the second and the third."""
    before = [info.domain.id for info in asking.ask("list")]
    restore = asking.begin("restore", path=str(path))
    asking.until(lambda: bool(restore.progress))
    restore.request.abort()
    asking.until(restore.done.is_set)
    assert isinstance(restore.error, JobAborted), restore.ends
    broken = path.with_name("saved.xen.broken")
    Path(f"{broken}.json").write_bytes(Path(f"{path}.json").read_bytes())
    for nothing in (b"", b"LibxlFmt" + bytes(40)):
        broken.write_bytes(nothing)
        assert "does not begin like one" in str(asking.refused("restore", path=str(broken)))
    with open(path, "rb") as file:
        broken.write_bytes(file.read(1 << 20))
    assert "cannot restore" in str(asking.refused("restore", path=str(broken)))
    os.unlink(f"{broken}.json")
    assert "saved.xen.broken.json beside it: give its definition" in str(asking.refused("restore", path=str(broken)))
    assert [info.domain.id for info in asking.ask("list")] == before


@on_asyncio
def test_a_save_that_is_cut_short_at_any_time_leaves_the_guest_running_and_no_file(
    linux: guests.Linux, bridge: Bridge, path: Path
) -> None:
    """By an abort, or by the end of the session."""
    domid = linux.domid
    typed = Typed(bridge, domid)
    typed.until(counted)
    asking = Asking(bridge)
    moments: list[Callable[[Asked], object]] = [
        lambda save: path.with_name("saved.xen.partial").exists(),  # libxl would not survive that yet
        lambda save: len(save.progress) >= 1,
        lambda save: len(save.progress) >= 4,
    ]
    for moment in moments:
        save = asking.begin("save", domid, path=str(path))
        asking.until(functools.partial(moment, save))
        save.request.abort()
        asking.until(save.done.is_set)
        assert isinstance(save.error, JobAborted), save.ends
        assert "its guest goes on" in str(save.error)
        goes_on(typed)
        assert left(path) == []
    save = asking.begin("save", domid, path=str(path))
    asking.until(lambda: bool(save.progress))
    closing = threading.Thread(target=asking.session.close)
    closing.start()
    asking.until(lambda: not closing.is_alive())
    assert isinstance(save.error, ConnectionLost), save.ends
    goes_on(typed)
    assert left(path) == []
    assert {str(event.kind) for event in asking.events} <= {"suspended", "resumed"}
    typed.stream.close()


@on_asyncio
def test_a_guest_moves_to_another_session_or_stays_where_that_is_cut_short(asking: Asking, linux: guests.Linux) -> None:
    """Through a pipe, within the host."""
    ref = linux.ref
    typed = Typed(asking.bridge, linux.domid)
    typed.until(lambda console: len(counted(console)) >= 3)
    there = Asking(asking.bridge)
    there.ask("migrate_prepare", source=ref)
    there.ask("migrate_cancel", source=ref)
    check_aborted_migration(asking, there, ref)
    goes_on(typed)
    assert [info.domain.name for info in asking.ask("list")] == ["Domain-0", linux.NAME]

    unfinished = there.ask("migrate_prepare", source=ref)
    asking.ask("migrate", ref, to=unfinished, confirm=True)
    there.ask("migrate_cancel", source=ref)
    asking.ask("migrate_confirm", ref, succeeded=False)
    goes_on(typed)

    migrate = asking.begin("migrate", ref, to=there.ask("migrate_prepare", source=ref), confirm=True)
    asking.until(lambda: bool(migrate.progress))
    meanwhile = asking.begin("info", ref)
    asking.until(lambda: meanwhile.done.is_set() or migrate.done.is_set())
    assert meanwhile.done.is_set()
    assert meanwhile.value().domain == ref
    asking.wait(migrate)
    info = there.ask("migrate_finish", source=ref)
    assert (info.domain.name, info.domain.uuid) == (ref.name, ref.uuid)
    assert info.domain.id != ref.id
    asking.ask("migrate_confirm", ref, succeeded=True)
    after = Typed(asking.bridge, info.domain.id)
    after.until(lambda console: len(counted(console)) >= 3)
    boots = counted(bytes(typed.data)) + counted(bytes(after.data))
    assert len({boot for boot, _ in boots}) == 1, "it was not booted anew"
    for told in (asking, there):
        asking.until(functools.partial(lambda told: ("stopped", "migrated") in kinds(told, ref), told))
        asking.until(functools.partial(lambda told: kinds(told, info.domain) == [("started", None)], told))
    assert there.ask("info", linux.NAME).domain == info.domain
    there.session.close()
    after.stream.close()


def check_aborted_migration(asking: Asking, there: Asking, ref: DomainRef) -> None:
    migrate = asking.begin("migrate", ref, to=there.ask("migrate_prepare", source=ref))
    asking.until(lambda: len(migrate.progress) >= 2)
    migrate.request.abort()
    asking.until(migrate.done.is_set)
    assert isinstance(migrate.error, JobAborted), migrate.ends
    there.ask("migrate_cancel", source=ref)
    assert "nobody listens" in str(asking.refused("migrate", ref, to="pipe:nowhere"))
