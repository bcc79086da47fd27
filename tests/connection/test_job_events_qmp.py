"""The end of a lone QEMU in every order of its answer, its events and its end of file, and of the user's `close`: what
the stream has before it ends.  The QEMU is a scripted one; see test_job_events_qemu.py for a true one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eventbridge
from eventbridge import Connection, Domain, EventStream
from eventbridge.errors import ConnectionLost
from tests.support import qmp_qemu
from tests.support.patience import patience
from tests.support.qmp_peer import Peer, line

THERE = "tcp:127.0.0.1:1"  # nobody connects to it
EOF = "eof"
CLOSE = "close"
ANSWER = "answer"
BEGUN = {"event": "JOB_STATUS_CHANGE", "data": {"id": "copy", "status": "created"}}
CONCLUDED = {"event": "JOB_STATUS_CHANGE", "data": {"id": "copy", "status": "concluded"}}
QUIT = {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}}
GUEST = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}
FOUND = {"query-migrate": {"status": "completed"}, "query-status": {"status": "running"}}


def migration(status: str) -> dict[str, Any]:
    return {"event": "MIGRATION", "data": {"status": status}}


class Scene:
    """What the peer does when it is sent one command: it answers, tells events, hangs up, and the user closes, each
    where the list has it.
    """

    def __init__(self, peer: Peer, **acts: list[Any]) -> None:
        self._peer = peer
        self._acts = {name.replace("_", "-"): act for name, act in acts.items()}
        self.close: Callable[[], object] = lambda: None
        peer.on_command = self._on_command

    def _on_command(self, command: dict[str, Any]) -> bytes | None:
        if self._peer.commands[-1] == "query-migrate" and "query-migrate" not in self._acts:
            return line({"return": FOUND["query-migrate"], "id": command["id"]})
        acts = self._acts.get(self._peer.commands[-1])
        if acts is None:
            return None
        for act in acts:
            if act == EOF:
                self._peer.hang_up()
            elif act == CLOSE:
                self.close()
            elif act == ANSWER:
                self._peer.say(line({"return": FOUND.get(self._peer.commands[-1], {}), "id": command["id"]}))
            else:
                self._peer.say(line(act))
        return b""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with qmp_qemu.directory() as directory, Peer(Path(directory)) as peer:
        yield peer


def told(peer: Peer, scene: Scene, ask: Callable[[Domain], eventbridge.Call[Any]]) -> tuple[list[str], Any]:
    """The stream to its end, and how the call ended."""

    async def main() -> tuple[list[str], Any]:
        async with patience(), eventbridge.connect(peer.uri, reconnect=None) as hv:
            scene.close = hv.close
            (domain,) = await hv.domains()
            stream: EventStream = hv.events()
            call = ask(domain)
            events = [str(event) async for event in stream]
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
            return events, outcome

    return asyncio.run(main())


def jobs(events: list[str]) -> list[str]:
    return [event.partition(" ")[2] for event in events if " job_" in event and "progress" not in event]


LAST = ["stand-in stopped (migrated)", "- connection_lost (eof)"]


@pytest.mark.parametrize(
    "at_quit",
    [
        [ANSWER, EOF],
        [EOF],
        [QUIT, EOF],
        [ANSWER, QUIT, EOF],
        [QUIT, ANSWER, EOF],
        [migration("completed"), ANSWER, EOF],
        [ANSWER, migration("completed"), EOF],
        [migration("setup"), migration("completed"), EOF],
    ],
    ids=str,
)
def test_a_qemu_that_is_left_has_told_everything_before_its_stream_ends(peer: Peer, at_quit: list[Any]) -> None:
    events, outcome = told(peer, Scene(peer, quit=at_quit), lambda domain: domain.migrate(THERE))
    assert outcome is None
    assert jobs(events) == ["job_started (migrate)", "job_ended (completed)"]
    assert [event for event in events if event in LAST] == LAST


@pytest.mark.parametrize("act", [[EOF], [migration("completed"), EOF], [migration("failed"), EOF]], ids=str)
@pytest.mark.parametrize("command", ["migrate", "query_migrate"])
def test_a_qemu_that_ends_on_the_way_leaves_its_job_lost(peer: Peer, command: str, act: list[Any]) -> None:
    """It may have sent the domain or not: nobody can know."""
    events, outcome = told(peer, Scene(peer, **{command: act}), lambda domain: domain.migrate(THERE))
    assert isinstance(outcome, ConnectionLost)
    assert jobs(events) == ["job_started (migrate)", "job_ended (lost)"]
    assert [event for event in events if "stopped" in event or "lost (eof" in event][-1] == "- connection_lost (eof)"
    assert sum("stopped" in event for event in events) == 1


@pytest.mark.parametrize("command", ["migrate", "query_migrate", "quit"])
@pytest.mark.parametrize("acts", [[CLOSE], [CLOSE, ANSWER], [ANSWER, CLOSE], [CLOSE, EOF], [EOF, CLOSE]], ids=str)
def test_whoever_closes_has_the_end_of_each_job_first(peer: Peer, command: str, acts: list[str]) -> None:
    events, outcome = told(peer, Scene(peer, **{command: acts}), lambda domain: domain.migrate(THERE))
    began, ended = jobs(events)
    assert began == "job_started (migrate)"
    assert ended == "job_ended (lost)" or (ended == "job_ended (completed)" and outcome is None)


def test_a_job_of_somebody_elses_ends_with_its_qemu(peer: Peer) -> None:
    events, _ = told(peer, Scene(peer, quit=[BEGUN, ANSWER, EOF]), lambda domain: domain.destroy())
    assert events == [
        "stand-in job_started (created)",
        "stand-in job_ended (lost)",
        "stand-in stopped (crashed)",
        "- connection_lost (eof)",
    ]


def test_a_job_of_somebody_elses_ends_once_also_beside_one_of_ours(peer: Peer) -> None:
    """It began before ours did: its end is not that of ours."""
    peer_says = Scene(peer, migrate=[CONCLUDED, ANSWER], quit=[ANSWER, EOF])

    def ask(domain: Domain) -> eventbridge.Call[Any]:
        peer.say(line(BEGUN))
        return began(domain.connection, lambda: domain.migrate(THERE))

    events, _ = told(peer, peer_says, ask)
    assert jobs(events) == [
        "job_started (created)",
        "job_started (migrate)",
        "job_ended (concluded)",
        "job_ended (completed)",
    ]


def test_a_job_of_somebody_elses_is_told_also_while_one_of_ours_goes_on(peer: Peer) -> None:
    scene = Scene(peer, migrate=[migration("setup"), BEGUN, ANSWER, CONCLUDED, migration("completed")], quit=[EOF])
    events, outcome = told(peer, scene, lambda domain: domain.migrate(THERE))
    assert outcome is None
    assert jobs(events) == [
        "job_started (migrate)",
        "job_started (created)",
        "job_ended (concluded)",
        "job_ended (completed)",
    ]


def began(hv: Connection, then: Callable[[], Any]) -> Any:
    """The call that is made when the next event has come."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()

    def on_event(event: object) -> None:
        unsubscribe()
        then().on_done(lambda call: ended.set_result(None) if call.error is None else ended.set_exception(call.error))

    unsubscribe = hv.subscribe(on_event)
    return ended


def test_what_a_qemu_says_while_it_is_opened_comes_before_its_end(peer: Peer) -> None:
    """Its guest shuts down while it answers the first questions, and it has gone before the loop knows of it."""
    Scene(peer, query_status=[GUEST, ANSWER, EOF])

    async def main() -> list[str]:
        async with patience():
            hv = eventbridge.connect(peer.uri, reconnect=None)
            stream = hv.events()
            with contextlib.suppress(ConnectionLost):
                await hv.opened
            events = [str(event) async for event in stream]
            await hv.close()
            return events

    assert asyncio.run(main()) == [
        "stand-in shutdown (guest)",
        "stand-in stopped (shutdown)",
        "- connection_lost (eof)",
    ]
