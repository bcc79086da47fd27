"""What watches a call that takes long, what each call goes over, and how that is opened: with stand-ins for objects of
libvirt's where libvirt cannot be brought to it.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt.connection_pool import CLOSED, OneEach, Shared
from eventbridge.adapters.hypervisors.libvirt.job_monitor import Overseer
from eventbridge.adapters.hypervisors.libvirt.opening import Opener
from eventbridge.errors import ConnectionLost
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import Progress
from tests.hypervisors.libvirt.calls_rig import Answer, Refusal, do
from tests.support.libvirtd import Libvirtd
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN, Watch

NO_SUPPORT = Refusal(libvirt.VIR_ERR_NO_SUPPORT)


# -- the overseer


class JobDomain:
    """A stand-in for a domain whose job in libvirt is scripted: the answers to each call, the last for ever."""

    def __init__(self, stats: list[Any], info: list[Any] | None = None, aborts: list[Any] | None = None) -> None:
        self._script = {"jobStats": stats, "jobInfo": info or [NO_SUPPORT], "abortJob": aborts or [0]}
        self.asked: list[str] = []
        self._last = 0
        self.polled_thrice = threading.Event()
        """The last answer was given three times."""

    def _next(self, name: str) -> Any:
        self.asked.append(name)
        script = self._script[name]
        self._last += len(script) == 1 and not isinstance(script[0], Exception) and name != "abortJob"
        if self._last == 3:
            self.polled_thrice.set()
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def jobStats(self) -> Any:
        return self._next("jobStats")

    def jobInfo(self) -> Any:
        return self._next("jobInfo")

    def abortJob(self) -> Any:
        return self._next("abortJob")

    # of a connection, which it stands in for, too

    def lookupByName(self, name: str) -> JobDomain:
        return self


def _stats(processed: int) -> dict[str, int]:
    return {"type": 1, "data_total": 100, "data_processed": processed, "data_remaining": 100 - processed, "x": 1}


def _watched(domain: JobDomain) -> tuple[Overseer, Answer]:
    answer = Answer()
    answer.request = Request("save", DomainRef("web"), {}, answer)
    return Overseer(Shared(domain), "x:///", DomainRef("web"), answer.request), answer


def test_progress_is_told_as_it_changes_and_never_twice() -> None:
    none = {"type": libvirt.VIR_DOMAIN_JOB_NONE}
    domain = JobDomain([none, {**_stats(0), "data_total": 0, "data_remaining": 0}, _stats(1), _stats(1), _stats(60)])
    overseer, answer = _watched(domain)
    with overseer.watching():
        assert domain.polled_thrice.wait(PATIENCE)
    assert answer.progresses == [Progress(100, 1, 99), Progress(100, 60, 40)]
    assert not overseer.aborted
    _ends(overseer)


def test_a_driver_without_statistics_of_jobs_has_their_info_perhaps() -> None:
    domain = JobDomain([NO_SUPPORT], info=[[1, 10, 0, 100, 40, 60, 0, 0, 0, 0, 0, 0]])
    overseer, answer = _watched(domain)
    with overseer.watching():
        assert domain.polled_thrice.wait(PATIENCE)
    assert answer.progresses == [Progress(100, 40, 60)]
    assert domain.asked.count("jobStats") == 1


def test_a_driver_that_tells_no_progress_is_not_asked_for_ever() -> None:
    domain = JobDomain([NO_SUPPORT])
    overseer, answer = _watched(domain)
    with overseer.watching():
        while domain.asked != ["jobStats", "jobInfo"]:
            threading.Event().wait(0.001)
        answer.request.abort()
        while not overseer.aborted:
            threading.Event().wait(0.001)
    assert answer.progresses == []
    assert domain.asked == ["jobStats", "jobInfo", "abortJob"]


def test_an_abort_is_tried_until_libvirt_takes_it_and_then_no_more() -> None:
    not_yet = Refusal(libvirt.VIR_ERR_OPERATION_INVALID, "no job is active on the domain")
    domain = JobDomain([_stats(1)], aborts=[not_yet, not_yet, 0])
    overseer, answer = _watched(domain)
    with overseer.watching():
        answer.request.abort()
        assert domain.polled_thrice.wait(PATIENCE)
    assert overseer.aborted
    assert domain.asked.count("abortJob") == 3


def _ends(overseer: Overseer) -> None:
    while any(thread.name == "overseer of x:///" for thread in threading.enumerate()):
        threading.Event().wait(0.001)


# -- the connections


class Line:
    """A stand-in for a connection."""

    def __init__(self, alive: int = 1) -> None:
        self.alive = alive
        self.closed = 0

    def isAlive(self) -> int:
        return self.alive

    def close(self) -> None:
        self.closed += 1


def test_each_call_of_a_daemon_has_a_connection_to_itself() -> None:
    opened: list[Line] = []

    def opener() -> Line:
        opened.append(Line())
        return opened[-1]

    first = Line()
    connections = OneEach(first, opener)
    with connections.inside("a") as a, connections.inside("b") as b:
        assert len({id(first), id(a), id(b)}) == 3
    with connections.inside("c") as c:
        assert c in opened
    assert len(opened) == 2, "what is idle is used again"
    b.alive = a.alive = 0
    with connections.inside("d") as d:
        assert d not in (a, b), "but not what has died"
    connections.close(CLOSED)
    connections.wait_until_empty()
    assert (d.closed, first.closed) == (1, 0)
    with pytest.raises(ConnectionLost, match="e: the connection was closed"), connections.inside("e"):
        pytest.fail("inside")


def test_no_more_connections_are_kept_than_a_few() -> None:
    opened: list[Line] = []

    def opener() -> Line:
        opened.append(Line())
        return opened[-1]

    connections = OneEach(Line(), opener)
    with contextlib.ExitStack() as calls:
        for _ in range(10):
            calls.enter_context(connections.inside("a"))
    assert (len(opened), sum(line.closed for line in opened)) == (10, 6)


def test_nobody_is_let_in_once_the_daemon_is_lost() -> None:
    first = Line()
    connections = OneEach(first, lambda: pytest.fail("opened"))
    first.alive = 0
    with pytest.raises(ConnectionLost, match="a: the connection was lost"), connections.inside("a"):
        pytest.fail("inside")


def test_what_each_connection_has_alone_is_asked_over_the_one_that_tells(
    daemon: Libvirtd, watch: Watch, tmp_path: Path
) -> None:
    """A test driver's node of one's own: another connection would have another."""
    (tmp_path / "node.xml").write_text("<node/>")
    uri = f"test+unix://{tmp_path}/node.xml?socket={daemon.socket}"
    watched = watch(uri)
    do(watched.subscription, "create", definition=DOMAIN.format("alone"))
    watched.wait_for("alone started (booted)")
    assert [each.domain.name for each in do(watched.subscription, "list")] == ["alone"]
    do(watched.subscription, "destroy", "alone")
    watched.wait_for("alone started (booted)", "alone stopped (destroyed)")


# -- opening


def test_an_opening_that_a_silent_daemon_holds_is_given_up(bridge: Bridge, daemon: Libvirtd) -> None:
    daemon.freeze()
    opener = Opener(daemon.unix_uri, (5, 3))
    failed: list[BaseException] = []
    noted = threading.Event()
    note = opener._note

    def noting(fd: int, sockets: list[Any]) -> None:
        note(fd, sockets)
        noted.set()

    opener._note = noting  # type: ignore[method-assign]

    def open_it() -> None:
        try:
            opener()
        except libvirt.libvirtError as error:
            failed.append(error)

    thread = threading.Thread(target=open_it)
    thread.start()
    assert noted.wait(PATIENCE)
    opener.give_up()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with pytest.raises(libvirt.libvirtError):
        opener()
    assert len(failed) == 1
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


def test_an_opening_that_a_silent_daemon_holds_ends_by_itself(bridge: Bridge, daemon: Libvirtd) -> None:
    daemon.freeze()
    with pytest.raises(libvirt.libvirtError):
        Opener(daemon.unix_uri, (1, 0))()
    assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
