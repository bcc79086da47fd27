"""A domain moves from one real QEMU to another: step by step as whoever migrates asks for it, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from qmp_pairs import SLOW, Pair

from eventbridge.adapters.hypervisors.qmp import migration_common
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import DomainRef, State
from eventbridge.jobs import JobAborted, Progress
from tests.support.qmp_qemu import INCOMING, MACHINE, Start
from tests.support.qmp_rig import Rig


@pytest.fixture
def pair(rig: Rig, start: Start) -> Pair:
    return Pair(rig, start)


def test_a_running_domain_moves_live(each_rig: Rig, start: Start) -> None:
    """Of its own two ends each tells once: one `stopped` (migrated) here, one `started` (migrated) there."""
    pair = Pair(each_rig, start)
    to = pair.prepare()
    assert to == f"unix:{pair.there.path}.incoming"
    assert pair.source.begin("migrate", to=to, live=True, confirm=False).value() is None
    info = pair.destination.ask("migrate_finish", source=DomainRef("here"))
    assert (info.state, info.domain.name) == (State.RUNNING, "there")
    assert pair.there.side.status == "running"
    pair.source.told("connection_lost eof")
    assert pair.source.said == [
        "started booted", "suspended migrated", "shutdown host", "stopped migrated", "connection_lost eof",
    ]  # fmt: skip
    assert pair.destination.said == ["started migrated", "suspended migrated", "resumed migrated"]
    assert not Path(f"{pair.there.path}.incoming").exists()


def test_the_source_stands_still_until_it_is_confirmed(rig: Rig, pair: Pair) -> None:
    """With ``confirm`` it ends when it is told that the domain runs there, and not before."""
    pair.source.ask("migrate", to=pair.prepare(), live=True, confirm=True)
    assert pair.here.side.status == "postmigrate"
    pair.destination.ask("migrate_finish")
    assert pair.source.story[-1] == "job_ended completed"
    assert pair.source.ask("migrate_confirm", succeeded=True) is None
    assert pair.source.story[-2:] == ["stopped migrated", "connection_lost eof"]
    assert pair.source.story.count("stopped migrated") == 1


def test_the_source_takes_back_what_is_not_confirmed(rig: Rig, pair: Pair) -> None:
    """The destination is told to forget it first: the domain never runs twice."""
    pair.source.ask("migrate", to=pair.prepare(), live=True, confirm=True)
    assert pair.there.side.status == "paused", "it does not run before it is told to"
    assert pair.destination.ask("migrate_cancel") is None
    assert pair.destination.story[-3:] == ["shutdown host", "stopped failed", "connection_lost eof"]
    assert pair.source.ask("migrate_confirm", succeeded=False) is None
    assert pair.here.side.status == "running"
    assert pair.source.said == ["started booted", "suspended migrated", "resumed migrated"]


def test_a_domain_that_nobody_comes_to_is_not_called_off(rig: Rig, pair: Pair) -> None:
    """Cancelling ends a QEMU that waits, or holds what its source still has: never one that runs by itself."""
    assert "nothing is on its way to it" in str(pair.source.begin("migrate_cancel").error())
    pair.source.ask("migrate", to=pair.prepare(), live=True)
    pair.destination.ask("migrate_finish")
    assert "nothing is on its way to it" in str(pair.destination.begin("migrate_cancel").error())
    assert pair.there.side.status == "running"
    assert "stopped failed" not in pair.destination.story


def test_confirming_what_has_not_gone_changes_nothing(rig: Rig, pair: Pair) -> None:
    pair.source.ask("migrate_confirm", succeeded=False)
    assert "it has not gone over" in str(pair.source.begin("migrate_confirm", succeeded=True).error())
    assert pair.here.side.status == "running"
    assert pair.source.said == ["started booted"]


@pytest.mark.parametrize("runs", [True, False])
def test_not_live_it_stands_still_first_and_goes_on_there_as_it_was(rig: Rig, start: Start, runs: bool) -> None:
    pair = Pair(rig, start, runs=runs)
    pair.source.ask("migrate", to=pair.prepare(), live=False)
    info = pair.destination.ask("migrate_finish")
    assert info.state is (State.RUNNING if runs else State.PAUSED)
    assert pair.there.side.status == ("running" if runs else "prelaunch")
    assert pair.destination.said == ["started migrated", "suspended migrated"] + ["resumed migrated"] * runs


def test_a_paused_domain_stays_paused(rig: Rig, pair: Pair) -> None:
    pair.source.ask("suspend")
    pair.source.ask("migrate", to=pair.prepare(), live=True)
    assert pair.destination.ask("migrate_finish").state is State.PAUSED
    assert pair.there.side.status == "paused"
    assert "resumed migrated" not in pair.destination.said


def test_a_domain_from_elsewhere_is_made_to_run(rig: Rig, pair: Pair) -> None:
    """Nobody here knows how it was: its source is told by somebody else."""
    to = pair.prepare()
    pair.here.side.ask("migrate", uri=to)
    assert pair.destination.ask("migrate_finish").state is State.RUNNING
    pair.source.told("job_ended completed")
    assert "suspended migrated" in pair.source.story, "a migration is one, whoever began it"
    assert "connection_lost eof" not in pair.source.story


def test_it_moves_over_tcp_to_the_port_that_there_is(rig: Rig, pair: Pair) -> None:
    to = pair.prepare(listen="tcp:127.0.0.1:0")
    host, _, port = to.rpartition(":")
    assert (host, int(port) > 0) == ("tcp:127.0.0.1", True)
    pair.source.ask("migrate", to=to, live=True)
    assert pair.destination.ask("migrate_finish").state is State.RUNNING


def test_where_it_listens_at_every_interface_the_host_is_named(rig: Rig, pair: Pair) -> None:
    """0.0.0.0 is nowhere that a source could reach."""
    to = pair.prepare(listen="tcp:0.0.0.0:0")
    assert to.startswith("tcp:") and "0.0.0.0" not in to
    pair.destination.ask("migrate_cancel")


def test_progress_is_told_and_both_sides_answer_meanwhile(rig: Rig, pair: Pair) -> None:
    """While A migrates A can be asked about, and its limits changed; B too."""
    moving = pair.source.begin("migrate", to=pair.prepare(), live=True, bandwidth=SLOW)
    rig.until(lambda: any(progress.total for progress in moving.progress))
    assert pair.source.ask("info").state is State.RUNNING
    assert pair.destination.ask("info").state is State.NO_MACHINE
    assert not moving.done
    assert pair.here.side.ask("query-migrate-parameters")["max-bandwidth"] == SLOW
    assert pair.source.ask("set_downtime", downtime=250) is None
    assert pair.source.ask("set_bandwidth", bandwidth=1 << 30) is None
    limits = pair.here.side.ask("query-migrate-parameters")
    assert (limits["max-bandwidth"], limits["downtime-limit"]) == (1 << 30, 250)
    moving.value()
    told = [progress for progress in moving.progress if progress.total]
    assert all(isinstance(progress, Progress) for progress in told)
    assert told[0].remaining > told[-1].remaining == 0
    assert told[-1].downtime is not None
    assert pair.destination.ask("migrate_finish").state is State.RUNNING


def test_an_abort_leaves_it_running_here(each_rig: Rig, start: Start) -> None:
    """And the next attempt succeeds, at its own pace again."""
    pair = Pair(each_rig, start)
    before = pair.here.side.ask("query-migrate-parameters")["max-bandwidth"]
    moving = pair.source.begin("migrate", to=pair.prepare(), live=True, bandwidth=SLOW, downtime=1)
    each_rig.until(lambda: any(progress.total for progress in moving.progress))
    pair.source.ask("set_bandwidth", bandwidth=SLOW + 1)
    moving.request.abort()
    error = moving.error()
    assert isinstance(error, JobAborted)
    assert str(error).startswith("cannot migrate here to unix:")
    assert str(error).endswith("it was aborted; it runs on here")
    assert pair.here.side.status == "running"
    assert pair.source.said == ["started booted"]
    assert pair.here.side.ask("query-migrate-parameters")["max-bandwidth"] == before
    assert pair.destination.ask("migrate_cancel") is None, "also where it has ended by itself"
    assert [words for words in pair.destination.said if words.startswith("stopped")] == ["stopped failed"]
    other = start("other", *MACHINE, *INCOMING)
    destination = each_rig.open(other.uri)
    pair.source.ask("migrate", to=destination.ask("migrate_prepare"), live=True)
    assert destination.ask("migrate_finish").state is State.RUNNING


def test_aborted_before_it_begins_it_never_does(rig: Rig, pair: Pair) -> None:
    moving = pair.source.begin("migrate", to=pair.prepare(), live=False)
    moving.request.abort()
    assert isinstance(moving.error(), JobAborted)
    assert pair.here.side.status == "running"
    assert pair.here.side.ask("query-migrate") == {}
    pair.destination.ask("migrate_cancel")


def test_given_up_is_aborted(rig: Rig, pair: Pair) -> None:
    moving = pair.source.begin("migrate", to=pair.prepare(), live=True, bandwidth=SLOW)
    rig.until(lambda: any(progress.total for progress in moving.progress))
    pair.source.session.given_up(moving.request)
    assert isinstance(moving.error(), JobAborted)
    assert pair.here.side.status == "running"
    pair.destination.ask("migrate_cancel")


def test_suspended_on_the_way_it_arrives_paused(rig: Rig, pair: Pair) -> None:
    """SUSPEND is let in while it migrates, and is no part of the migration."""
    moving = pair.source.begin("migrate", to=pair.prepare(), live=True, bandwidth=SLOW)
    rig.until(lambda: any(progress.total for progress in moving.progress))
    pair.source.ask("suspend")
    assert "suspended" in pair.source.story and "suspended migrated" not in pair.source.story
    pair.source.ask("set_bandwidth", bandwidth=1 << 30)
    moving.value()
    assert pair.destination.ask("migrate_finish").state is State.PAUSED


def test_who_does_not_wait_for_one_cannot_be_prepared(rig: Rig, start: Start) -> None:
    opened = rig.open(start().uri)
    error = opened.begin("migrate_prepare").error()
    assert isinstance(error, HypervisorError)
    assert "start QEMU with -incoming defer" in str(error)


def test_where_it_cannot_listen_it_says_so(rig: Rig, pair: Pair) -> None:
    error = pair.destination.begin("migrate_prepare", listen="unix:/no/such/place").error()
    assert "cannot listen at unix:/no/such/place" in str(error)
    assert not migration_common.AWAITED
    if "start this QEMU anew" in str(error):  # QEMU from 9.1 on
        again = pair.destination.begin("migrate_prepare").error()
        assert "cannot listen at" in str(again)
        assert not migration_common.AWAITED
    else:
        assert pair.prepare(), "and elsewhere it can"
    pair.destination.ask("migrate_cancel")


def test_who_listens_already_cannot_be_prepared_again(rig: Rig, pair: Pair) -> None:
    to = pair.prepare()
    error = str(pair.destination.begin("migrate_prepare").error())
    assert "cannot listen at" in error
    assert "start this QEMU anew" not in error
    assert list(migration_common.AWAITED) == [to]
    pair.destination.ask("migrate_cancel")


def test_a_path_that_is_too_long_is_made_elsewhere_and_removed(rig: Rig, directory: Path, start: Start) -> None:
    """A unix socket's path has 107 bytes at most, and ".incoming" would be too many."""
    name = "n" * (107 - len(f"{directory}/.side"))
    qemu = start(name, *MACHINE, *INCOMING)
    destination = rig.open(qemu.uri)
    to = destination.ask("migrate_prepare")
    path = Path(to.removeprefix("unix:"))
    assert path.is_socket() and path.parent != directory
    destination.ask("migrate_cancel")
    assert not path.parent.exists()


def test_what_is_persistent_cannot_be_asked_for(rig: Rig, pair: Pair) -> None:
    assert "keeps no definition" in str(pair.source.begin("migrate", to="tcp:127.0.0.1:1", persistent=True).error())
