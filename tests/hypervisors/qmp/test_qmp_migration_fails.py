"""Whatever fails in a migration, on either side and at each step: the domain runs on where it was, and nowhere else."""

from __future__ import annotations

import pytest
from qmp_pairs import Pair

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.jobs import JobAborted
from tests.support.qmp_proxy import CuttingProxy
from tests.support.qmp_qemu import Start
from tests.support.qmp_rig import Rig


def runs_on(pair: Pair, error: BaseException) -> None:
    """Here, and the error says so; there it does not run."""
    assert isinstance(error, HypervisorError | JobAborted)
    assert str(error).startswith("cannot migrate here to ")
    assert str(error).endswith("; it runs on here")
    assert pair.here.side.status == "running"
    assert not any(words.startswith("stopped") for words in pair.source.story)
    assert "resumed migrated" not in pair.destination.story
    assert pair.source.ask("info").state == "running"


def ends_there(rig: Rig, pair: Pair) -> None:
    """The destination is of no use, and has told that once."""
    pair.destination.ask("migrate_cancel")
    pair.destination.told("connection_lost eof")
    assert [words for words in pair.destination.story if words.startswith("stopped")] == ["stopped failed"]


@pytest.fixture
def pair(rig: Rig, start: Start) -> Pair:
    return Pair(rig, start)


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("tcp:127.0.0.1:1", "Connection refused"),
        ("unix:/no/such/socket", "No such file or directory"),
        ("carrier-pigeon:1", "QEMU refused migrate: "),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_nobody_is_there(rig: Rig, start: Start, to: str, why: str, live: bool) -> None:
    opened = rig.open(start().uri)
    opened.ask("start")
    error = opened.begin("migrate", to=to, live=live).error()
    assert isinstance(error, HypervisorError)
    assert why in str(error)
    assert str(error).endswith("it runs on here")
    assert opened.ask("info").state == "running"
    assert opened.said == ["started booted"] + ["suspended migrated", "resumed migrated"] * (not live)


def test_a_paused_domain_stays_paused_when_nobody_is_there(rig: Rig, start: Start) -> None:
    opened = rig.open(start().uri)
    assert str(opened.begin("migrate", to="tcp:127.0.0.1:1").error()).endswith("it stays, paused, here")
    assert opened.ask("info").state == "paused"


@pytest.mark.parametrize("live", [True, False])
def test_the_destination_is_another_machine(rig: Rig, start: Start, live: bool) -> None:
    pair = Pair(rig, start, "-m", "32")
    runs_on(pair, pair.source.begin("migrate", to=pair.prepare(), live=live, confirm=True).error())
    ends_there(rig, pair)
    assert isinstance(pair.destination.begin("migrate_finish").error(), ConnectionLost)


def test_the_destination_is_killed_once_it_is_prepared(rig: Rig, pair: Pair) -> None:
    to = pair.prepare()
    pair.there.kill()
    runs_on(pair, pair.source.begin("migrate", to=to, live=True, confirm=True).error())
    pair.destination.told("stopped crashed")
    assert pair.destination.ask("migrate_cancel") is None


def test_the_destination_is_killed_on_the_way(each_rig: Rig, start: Start) -> None:
    pair = Pair(each_rig, start)
    moving = pair.begin_slowly(pair.prepare())
    pair.there.kill()
    runs_on(pair, moving.error())
    assert pair.destination.ask("migrate_cancel") is None


def test_the_destination_is_killed_when_it_has_arrived(rig: Rig, pair: Pair) -> None:
    """Between the last byte and the first instruction there: what was not confirmed can be taken back."""
    pair.source.ask("migrate", to=pair.prepare(), live=True, confirm=True)
    pair.there.kill()
    assert isinstance(pair.destination.begin("migrate_finish").error(), ConnectionLost)
    pair.source.ask("migrate_confirm", succeeded=False)
    assert pair.here.side.status == "running"
    assert pair.source.said == ["started booted", "suspended migrated", "resumed migrated"]


def test_the_destination_hangs_and_the_migration_is_aborted(rig: Rig, pair: Pair) -> None:
    """From its beginning: nobody there takes what is sent."""
    to = pair.prepare()
    pair.there.freeze()
    moving = pair.source.begin("migrate", to=to, live=True, confirm=True)
    rig.until(lambda: bool(moving.progress))
    moving.request.abort()
    runs_on(pair, moving.error())


def test_the_destination_hangs_on_the_way_and_the_migration_is_aborted(rig: Rig, pair: Pair) -> None:
    moving = pair.begin_slowly(pair.prepare())
    pair.there.freeze()
    pair.source.ask("set_bandwidth", bandwidth=1 << 30)
    moving.request.abort()
    runs_on(pair, moving.error())


def test_the_source_is_killed_on_the_way(rig: Rig, pair: Pair) -> None:
    """Then it is dead, and its domain with it: that is told once on either side."""
    moving = pair.begin_slowly(pair.prepare())
    finishing = pair.destination.begin("migrate_finish")
    pair.here.kill()
    assert isinstance(moving.error(), ConnectionLost)
    pair.source.told("connection_lost eof")
    assert [words for words in pair.source.said if words.startswith("stopped")] == ["stopped crashed"]
    assert isinstance(finishing.error(), EventBridgeError)
    ends_there(rig, pair)


def test_the_source_hangs_and_comes_back(rig: Rig, pair: Pair) -> None:
    """Nothing is lost by that but time."""
    moving = pair.begin_slowly(pair.prepare())
    pair.here.freeze()
    pair.source.begin("set_bandwidth", bandwidth=1 << 30)
    assert pair.destination.ask("info").state == "no_machine"
    assert not moving.done
    pair.here.thaw()
    moving.value()
    assert pair.destination.ask("migrate_finish").state == "running"


@pytest.mark.parametrize("forth", [1, 100, 5_000, 100_000, 300_000])
def test_the_network_is_cut_on_the_way(rig: Rig, pair: Pair, forth: int) -> None:
    """After so many of the 380,000 bytes and more."""
    port = int(pair.prepare(listen="tcp:127.0.0.1:0").rpartition(":")[2])
    with CuttingProxy(port, forth=forth) as proxy:
        runs_on(pair, pair.source.begin("migrate", to=proxy.to, live=True, confirm=True).error())
        assert proxy.passed[0] == forth
    ends_there(rig, pair)


def test_the_network_is_cut_when_all_is_over_but_the_acknowledgement(rig: Rig, pair: Pair) -> None:
    """The one that could run twice: the destination has all of it, and the source cannot know."""
    port = int(pair.prepare(listen="tcp:127.0.0.1:0").rpartition(":")[2])
    with CuttingProxy(port, swallow=True) as proxy:
        moving = pair.source.begin("migrate", to=proxy.to, live=True, confirm=True)
        pair.destination.told("job_ended completed")
        proxy.cut()
        runs_on(pair, moving.error())
    assert pair.there.side.status == "paused"
    assert "resumed migrated" not in pair.destination.story
    ends_there(rig, pair)


def test_another_migration_is_under_way(rig: Rig, pair: Pair) -> None:
    """Begun by somebody else: that one goes on."""
    pair.here.side.ask("migrate-set-parameters", max_bandwidth=1000)
    pair.here.side.ask("migrate", uri=pair.prepare())
    error = pair.source.begin("migrate", to="tcp:127.0.0.1:1", live=True).error()
    assert "QEMU refused" in str(error) and "migration process" in str(error)
    assert pair.here.side.ask("query-migrate")["status"] in ("setup", "active")
    pair.destination.ask("migrate_cancel")
