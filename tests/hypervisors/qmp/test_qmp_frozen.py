"""A QEMU that is stopped (SIGSTOP) costs nobody else anything: not the loop, not another QEMU, not a thread."""

from __future__ import annotations

import threading

import pytest

from eventbridge.adapters.hypervisors.qmp import QmpDriver
from eventbridge.errors import ConnectionLost, HypervisorError
from tests.support.qmp_qemu import NONE, Start
from tests.support.qmp_rig import Asked, Opened, Rig


def nothing_is_left(opened: Opened) -> bool:
    """Of requests, commands and scripts."""
    session = opened.session
    source = session._source
    return not session._under_way and not len(source.player) and not source.player._awaited and not source._link.waiting


def test_its_own_calls_wait_and_those_of_others_are_answered(each_rig: Rig, start: Start) -> None:
    qemu = start("frozen", *NONE)
    frozen, well = each_rig.open(qemu.uri), each_rig.open(start("well", *NONE).uri)
    threads = threading.active_count()
    qemu.freeze()
    asked = frozen.begin("info")
    for _ in range(20):
        assert well.ask("info").domain.name == "well"
        well.ask("suspend")
        well.ask("resume")
    assert not asked.done
    assert not frozen.events
    assert threading.active_count() == threads
    qemu.thaw()
    assert asked.value().domain.name == "frozen"
    each_rig.until(lambda: nothing_is_left(frozen))


def test_a_late_reply_to_what_was_given_up_is_dropped(rig: Rig, start: Start) -> None:
    """It is answered once, when QEMU is done with it; nothing more is sent for it, and nothing leaks."""
    qemu = start("a", *NONE)
    opened = rig.open(qemu.uri)
    qemu.freeze()
    info, suspend = opened.begin("info"), opened.begin("suspend")
    rig.passes()
    for asked in (info, suspend):
        opened.session.given_up(asked.request)
    rig.passes()
    assert not info.done and not suspend.done, "QEMU has both commands, and may yet obey"
    qemu.thaw()
    assert "given up" in str(info.error())
    assert suspend.value() is None
    assert nothing_is_left(opened)
    assert opened.ask("info").state == "paused"
    assert len(info.answers) == len(suspend.answers) == 1


def test_what_is_not_sent_yet_never_is_once_it_is_given_up(each_rig: Rig, start: Start) -> None:
    """Somebody polls a QEMU that hangs: when its socket takes no more, what is given up goes away at once."""
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    qemu.freeze()
    link = opened.session._source._link
    asked: list[Asked] = []
    while link.waiting < 1000:
        asked += [opened.begin("list") for _ in range(1000)]
        each_rig.passes()
    for each in asked:
        opened.session.given_up(each.request)
    each_rig.until(lambda: link.waiting <= 1)
    given_up = [each for each in asked if each.done]
    assert len(given_up) >= 999
    assert all(isinstance(each.answers[0][1], HypervisorError) for each in given_up)
    assert "before QEMU was told" in str(given_up[-1].answers[0][1])
    qemu.thaw()
    each_rig.until(lambda: all(each.done for each in asked))
    each_rig.until(lambda: nothing_is_left(opened))
    assert opened.ask("info").state == "running", "and it goes on as before"


def test_begin_returns_at_once_and_close_does_not_hang(each_rig: Rig, start: Start) -> None:
    """Everything under way is refused; nothing is told of a connection that was closed here."""
    qemu = start("a", *NONE)
    opened = each_rig.open(qemu.uri)
    qemu.freeze()
    asked = [opened.begin(operation) for operation in ("info", "suspend", "destroy", "migrate", "list")]
    each_rig.passes()
    unstarted = opened.begin("info")
    opened.session.close()
    for each in [*asked, unstarted]:
        assert isinstance(each.answers[0][1], ConnectionLost)
        assert len(each.answers) == 1
    assert isinstance(opened.begin("info").error(), ConnectionLost)
    assert not opened.events
    qemu.thaw()
    each_rig.passes()
    assert not opened.events


def test_opening_one_that_hangs_ends_at_its_deadline_and_says_so(rig: Rig, start: Start) -> None:
    qemu = start("a", *NONE)
    qemu.freeze()
    with pytest.raises(HypervisorError, match="its greeting did not come in time: another client has this monitor"):
        rig.open(qemu.uri, QmpDriver(open_seconds=0.2))
