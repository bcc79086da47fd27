"""What a session can be asked, on libvirt's own test driver in this process: each operation, and each refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt.operations import CALLS
from eventbridge.adapters.hypervisors.libvirt.session import LibvirtSession
from eventbridge.errors import HypervisorError, NoSuchDomain
from eventbridge.hypervisor.model import DomainRef, State
from eventbridge.hypervisor.operations import OPERATIONS
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted
from tests.hypervisors.libvirt.calls_rig import Answer, ask, do
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN, Connect, Watch, Watched

URI = "test:///default"
NAME = "c"
XML = DOMAIN.format(NAME)


@pytest.fixture
def watched(watch: Watch, connect: Connect) -> Iterator[Watched]:
    """A session whose domain "c" nothing is left of in the end."""
    yield watch(URI)
    connection = connect(URI)
    for domain in connection.listAllDomains():
        if domain.name() in (NAME, "other"):
            if domain.isActive():
                domain.destroy()
            if domain in connection.listAllDomains() or domain.name() in connection.listDefinedDomains():
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)


@pytest.fixture
def session(watched: Watched) -> LibvirtSession:
    return watched.subscription


def test_it_can_do_what_libvirt_can_and_nothing_that_is_no_operation(session: LibvirtSession) -> None:
    assert session.operations == {name for name in OPERATIONS if not name.startswith("migrate_")}


def test_a_life_is_led_by_calls_and_each_step_is_one_event(session: LibvirtSession, watched: Watched) -> None:
    def state() -> State:
        return do(session, "info", NAME).state  # type: ignore[no-any-return]

    assert do(session, "define", definition=XML).name == NAME
    assert state() is State.STOPPED
    for operation, after in [
        ("start", State.RUNNING),
        ("suspend", State.PAUSED),
        ("resume", State.RUNNING),
        ("reboot", State.RUNNING),
        ("shutdown", State.STOPPED),
        ("start", State.RUNNING),
        ("destroy", State.STOPPED),
    ]:
        assert do(session, operation, NAME) is None
        assert state() is after, operation
    assert do(session, "undefine", NAME) is None
    with pytest.raises(NoSuchDomain):
        state()
    watched.wait_for(
        "c defined (added)",
        "c started (booted)",
        "c suspended (paused)",
        "c resumed (unpaused)",
        "c stopped (shutdown)",
        "c started (booted)",
        "c stopped (destroyed)",
        "c undefined (removed)",
    )


def test_info_has_the_definitions_numbers_in_kib_and_ns(session: LibvirtSession) -> None:
    definition = XML.replace("<memory>1024", "<vcpu>3</vcpu><currentMemory>512</currentMemory><memory>1024")
    known = do(session, "define", definition=definition)
    info = do(session, "info", NAME)
    assert (info.vcpus, info.memory, info.max_memory, info.persistent) == (3, 512, 1024, True)
    assert info.domain == known
    assert known.id is None
    do(session, "start", NAME)
    running = do(session, "info", NAME)
    assert running.domain.id > 0
    assert running.cpu_time > 0


def test_a_created_domain_runs_and_is_gone_when_it_ends(session: LibvirtSession) -> None:
    known = do(session, "create", definition=XML)
    info = do(session, "info", known)
    assert (info.domain, info.state, info.persistent) == (known, State.RUNNING, False)
    do(session, "destroy", known)
    with pytest.raises(NoSuchDomain) as refused:
        do(session, "info", known)
    assert (refused.value.code, refused.value.operation, refused.value.domain) == (
        libvirt.VIR_ERR_NO_DOMAIN,
        "info",
        NAME,
    )
    assert str(refused.value).startswith(f"{URI}: info of {NAME}: Domain not found")


def test_the_list_has_each_once_running_or_not_and_says_which_outlive_their_run(session: LibvirtSession) -> None:
    do(session, "define", definition=XML)
    do(session, "create", definition=DOMAIN.format("other"))
    listed = {info.domain.name: info for info in do(session, "list")}
    assert len(listed) == len(do(session, "list")) == 3
    assert {name: (info.state, info.persistent) for name, info in listed.items()} == {
        "test": (State.RUNNING, True),
        NAME: (State.STOPPED, True),
        "other": (State.RUNNING, False),
    }
    assert [info.domain.id is None for info in listed.values() if info.state is State.STOPPED] == [True]


# -- which domain


def test_a_domain_is_looked_up_by_uuid_before_name_before_id(session: LibvirtSession) -> None:
    known = do(session, "create", definition=XML)
    wrong = DomainRef("test", known.uuid, 1)
    for by in (wrong, DomainRef(NAME, None, 1), DomainRef(None, None, known.id)):
        assert do(session, "info", by).domain == known


def test_nobody_answers_for_another_that_has_gone(session: LibvirtSession, connect: Connect) -> None:
    """Not the id's next holder, not the name's."""
    first = do(session, "create", definition=XML)
    do(session, "destroy", first)
    second = do(session, "create", definition=XML)
    assert second.uuid != first.uuid
    for gone in (first, DomainRef(None, None, first.id)):
        with pytest.raises(NoSuchDomain):
            do(session, "info", gone)
    assert do(session, "info", DomainRef(NAME, None, first.id)).domain == second


def test_a_renamed_domain_answers_by_its_new_name(session: LibvirtSession, connect: Connect) -> None:
    known = do(session, "define", definition=XML)
    connect(URI).lookupByName(NAME).rename("other")
    assert do(session, "info", known).domain == DomainRef("other", known.uuid)
    with pytest.raises(NoSuchDomain):
        do(session, "info", NAME)


@pytest.mark.parametrize("nobody", [DomainRef("nobody"), DomainRef(None, None, 99999)])
@pytest.mark.parametrize("operation", sorted(name for name in CALLS if OPERATIONS[name].job))
def test_whatever_is_asked_of_nobody_is_no_such_domain(
    session: LibvirtSession, watched: Watched, operation: str, nobody: DomainRef
) -> None:
    given = {"path": "/nowhere", "to": URI, "bandwidth": 1, "downtime": 1}
    with pytest.raises(NoSuchDomain) as refused:
        do(session, operation, nobody, **given)
    assert refused.value.operation == operation
    assert refused.value.domain == (nobody.name or "id 99999")
    assert watched.events == []


# -- saving


def test_a_saved_domain_comes_back_as_itself(session: LibvirtSession, watched: Watched, tmp_path: Path) -> None:
    known = do(session, "create", definition=XML)
    assert do(session, "save", known, path=str(tmp_path / "saved")) is None
    with pytest.raises(NoSuchDomain):
        do(session, "info", known)
    again = do(session, "restore", path=str(tmp_path / "saved"))
    assert (again.name, again.uuid) == (known.name, known.uuid)
    assert again.id not in (None, known.id)
    assert do(session, "info", again).state is State.RUNNING
    watched.wait_for("c started (booted)", "c stopped (saved)", "c started (restored)")


def test_what_was_saved_for_it_a_start_brings_back_and_undefining_removes(
    session: LibvirtSession, connect: Connect
) -> None:
    known = do(session, "define", definition=XML)
    do(session, "start", known)
    do(session, "managed_save", known)
    domain = connect(URI).lookupByName(NAME)
    assert do(session, "info", known).state is State.STOPPED
    assert domain.hasManagedSaveImage()
    do(session, "start", known)
    assert not domain.hasManagedSaveImage()
    do(session, "managed_save", known)
    do(session, "undefine", known)
    with pytest.raises(NoSuchDomain):
        do(session, "info", known)


def test_what_is_aborted_before_it_has_begun_never_begins(session: LibvirtSession, tmp_path: Path) -> None:
    known = do(session, "create", definition=XML)
    answer = Answer()
    answer.request = Request("save", known, {"path": str(tmp_path / "saved")}, answer)
    answer.request.abort()
    session.begin(answer.request)
    with pytest.raises(JobAborted):
        answer.get()
    assert not (tmp_path / "saved").exists()
    assert do(session, "info", known).state is State.RUNNING


# -- consoles


def test_a_console_is_found_in_the_live_definition(session: LibvirtSession) -> None:
    devices = "<devices><serial type='unix'><source mode='bind' path='/tmp/x'/></serial></devices>"
    known = do(session, "create", definition=XML.replace("</domain>", devices + "</domain>"))
    info = do(session, "console_info", known)
    assert (info.kind, info.devid, info.connection, info.output, info.tty) == (
        "serial",
        0,
        "socket",
        "unix:/tmp/x",
        None,
    )
    assert info.frontend_domid == known.id
    with pytest.raises(HypervisorError, match="no such console: pv console 1; it has: serial 0"):
        do(session, "console_info", known, kind="pv", number=1)


# -- what is refused


RUNNING, OFF, EITHER = (True,), (False,), (True, False)
REFUSALS: list[tuple[str, dict[str, Any], tuple[bool, ...], int, str]] = [
    ("start", {}, RUNNING, libvirt.VIR_ERR_INTERNAL_ERROR, "Domain 'c' is already running"),
    ("start", {"paused": True}, EITHER, libvirt.VIR_ERR_INVALID_ARG, "unsupported flags"),
    ("create", {"definition": XML}, EITHER, libvirt.VIR_ERR_OPERATION_FAILED, "already exists"),
    ("create", {"definition": XML, "paused": True}, EITHER, libvirt.VIR_ERR_INVALID_ARG, "unsupported flags"),
    ("create", {"definition": "<x/>"}, EITHER, libvirt.VIR_ERR_XML_ERROR, "expecting root element"),
    ("define", {"definition": "<x"}, EITHER, libvirt.VIR_ERR_XML_DETAIL, "Couldn't find end of Start Tag"),
    ("define", {"definition": XML}, EITHER, libvirt.VIR_ERR_OPERATION_FAILED, "already exists"),
    ("suspend", {}, OFF, libvirt.VIR_ERR_INTERNAL_ERROR, "not running"),
    ("resume", {}, EITHER, libvirt.VIR_ERR_INTERNAL_ERROR, "not paused"),
    ("shutdown", {}, OFF, libvirt.VIR_ERR_INTERNAL_ERROR, "not running"),
    ("reboot", {}, OFF, libvirt.VIR_ERR_OPERATION_INVALID, "not running"),
    ("destroy", {}, OFF, libvirt.VIR_ERR_OPERATION_INVALID, "not running"),
    ("save", {"path": "/tmp/never"}, OFF, libvirt.VIR_ERR_OPERATION_INVALID, "not running"),
    ("save", {"path": "/nowhere/x"}, RUNNING, libvirt.VIR_ERR_SYSTEM_ERROR, "No such file or directory"),
    ("managed_save", {}, OFF, libvirt.VIR_ERR_OPERATION_INVALID, "not running"),
    ("restore", {"path": "/nowhere/x"}, EITHER, libvirt.VIR_ERR_SYSTEM_ERROR, "No such file or directory"),
    ("restore", {"path": "/etc/passwd"}, EITHER, libvirt.VIR_ERR_INTERNAL_ERROR, "mismatched header magic"),
    ("migrate", {"to": URI}, RUNNING, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "direct migration is not supported"),
    ("migrate", {"to": URI, "downtime": 5}, RUNNING, libvirt.VIR_ERR_NO_SUPPORT, "virDomainMigrateSetMaxDowntime"),
    ("set_bandwidth", {"bandwidth": 1}, EITHER, libvirt.VIR_ERR_NO_SUPPORT, "virDomainMigrateSetMaxSpeed"),
    ("set_downtime", {"downtime": 1}, EITHER, libvirt.VIR_ERR_NO_SUPPORT, "virDomainMigrateSetMaxDowntime"),
]


@pytest.mark.parametrize(
    ("operation", "given", "running", "code", "words"),
    [(operation, given, running, code, words) for operation, given, when, code, words in REFUSALS for running in when],
)
def test_what_libvirt_refuses_is_told_in_its_own_words_and_changes_nothing(
    session: LibvirtSession,
    watched: Watched,
    bridge: Bridge,
    operation: str,
    given: dict[str, Any],
    running: bool,
    code: int,
    words: str,
) -> None:
    do(session, "define", definition=XML.replace("<name>", "<title>first</title><name>"))
    if running:
        do(session, "start", NAME)
    before = do(session, "info", NAME)
    told = 1 + running
    bridge.run(until=lambda: len(watched.events) == told, timeout=PATIENCE)
    of = NAME if OPERATIONS[operation].job else None
    with pytest.raises(HypervisorError, match=words) as refused:
        do(session, operation, of, **given)
    assert (refused.value.code, refused.value.operation, refused.value.domain) == (code, operation, of)
    assert str(refused.value).startswith(f"{URI}: {operation}" + (" of c: " if of else ": "))
    assert "\n" not in str(refused.value)
    assert do(session, "info", NAME).state is before.state
    bridge.run(timeout=0.01)
    assert len(watched.events) == told


def test_a_refusal_that_is_kept_keeps_nothing_of_libvirts(
    bridge: Bridge, session: LibvirtSession, watched: Watched
) -> None:
    """An error's traceback holds the frames that it came through, they libvirt's objects, and those the connection."""
    do(session, "create", definition=XML)
    kept = [ask(session, operation, NAME, path="/nowhere/x", bandwidth=1) for operation in ("save", "set_bandwidth")]
    for answer in kept:
        with pytest.raises(HypervisorError):
            answer.get()
    do(session, "destroy", NAME)
    watched.close()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    assert all(error.__context__ is None and error.__cause__ is None for answer in kept for _, error in answer.ends)
