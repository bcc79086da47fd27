"""Scripts without a socket or a clock: commands and replies, time, waking, giving up and the end, in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbridge.adapters.hypervisors.qmp.codec import Failure, Return, WireError
from eventbridge.adapters.hypervisors.qmp.scripts import (
    Command,
    CommandFailed,
    GivenUp,
    Player,
    QemuEnded,
    Script,
    Wait,
)


class Stage:
    """A player whose commands are noted; its clock is set, and the first ``taken`` commands are on their way."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: dict[int, Command] = {}
        self.gone: set[int] = set()
        self.results: list[tuple[Any, BaseException | None]] = []
        self.player = Player(self.sent.__setitem__, self._unsend, lambda: self.now)

    def _unsend(self, id: int) -> bool:
        return id not in self.gone and self.sent.pop(id, None) is not None

    def play(self, script: Script) -> Any:
        return self.player.play(script, lambda value, error: self.results.append((value, error)))

    @property
    def names(self) -> list[str]:
        return [command.name for command in self.sent.values()]


def two() -> Script:
    first = yield Command("one")
    try:
        second = yield Command("two", {"of": first})
    except CommandFailed as error:
        second = error.description
    return first, second


def test_a_script_is_sent_the_replies_to_its_commands() -> None:
    stage = Stage()
    stage.play(two())
    stage.player.reply(Return(1, "a"))
    assert stage.names == ["one", "two"]
    assert stage.sent[2].arguments == {"of": "a"}
    assert not stage.results
    stage.player.reply(Failure(2, "GenericError", "no"))
    assert stage.results == [(("a", "no"), None)]
    assert len(stage.player) == 0


def test_an_error_that_a_script_does_not_take_is_what_it_raised() -> None:
    stage = Stage()
    stage.play(two())
    stage.player.reply(Failure(1, "CommandNotFound", "no such thing"))
    ((value, error),) = stage.results
    assert value is None
    assert isinstance(error, CommandFailed)
    assert (error.command, error.error_class, error.description) == ("one", "CommandNotFound", "no such thing")


@pytest.mark.parametrize("id", [None, 1])
def test_a_reply_that_nobody_waits_for_is_no_qmp(id: Any) -> None:
    stage = Stage()
    stage.play(two())
    stage.player.reply(Return(1, "a"))
    with pytest.raises(WireError, match="which nobody waits for"):
        stage.player.reply(Return(id, {}))
    assert not stage.results


@pytest.mark.parametrize("id", [3, 0, "1", [1], {"a": 1}, 1.5])
def test_a_reply_to_another_clients_command_is_skipped(id: Any) -> None:
    stage = Stage()
    stage.play(two())
    stage.player.reply(Return(id, "not ours"))
    stage.player.reply(Failure(id, "GenericError", "nor this"))
    stage.player.reply(Return(1, "a"))
    stage.player.reply(Return(2, "b"))
    assert stage.results == [(("a", "b"), None)]


def waiting(seconds: float | None) -> Script:
    yield Wait(seconds)
    return "over"


def test_a_wait_ends_at_its_time_and_not_before() -> None:
    stage = Stage()
    stage.play(waiting(2.5))
    stage.play(waiting(None))
    assert stage.player.deadline() == 102.5
    stage.now = 102.4
    stage.player.tick()
    assert not stage.results
    stage.now = 102.5
    stage.player.tick()
    assert stage.results == [("over", None)]
    assert stage.player.deadline() is None, "the other waits for what happens"
    stage.player.wake()
    assert stage.results == [("over", None)] * 2


def test_what_happens_before_the_wait_ends_it_too_but_once() -> None:
    """Between a question and the wait for its answer to change: that is not slept through."""

    def script() -> Script:
        yield Command("look")
        yield Wait(None)
        yield Command("look again")
        yield Wait(None)

    stage = Stage()
    stage.play(script())
    stage.player.wake()
    stage.player.reply(Return(1, {}))
    assert stage.names == ["look", "look again"]
    stage.player.reply(Return(2, {}))
    assert not stage.results
    stage.player.wake()
    assert stage.results == [(None, None)]


def test_given_up_before_it_is_sent_it_never_is() -> None:
    stage = Stage()
    stage.player.give_up(stage.play(two()))
    assert not stage.sent
    assert isinstance(stage.results[0][1], GivenUp)
    assert len(stage.player) == 0


def test_given_up_on_its_way_it_is_done_with_the_reply_and_sends_no_more() -> None:
    stage = Stage()
    running = stage.play(two())
    stage.gone.add(1)
    stage.player.give_up(running)
    assert not stage.results
    stage.player.reply(Return(1, "late"))
    assert stage.names == ["one"]
    assert isinstance(stage.results[0][1], GivenUp)


def test_at_the_end_everybody_is_told_and_may_make_something_of_it() -> None:
    def quits() -> Script:
        try:
            yield Command("quit")
        except QemuEnded:
            return "as it should"

    stage = Stage()
    for script in (quits(), two(), waiting(None), waiting(5)):
        stage.play(script)
    end = QemuEnded("it has ended")
    stage.player.end(end)
    assert stage.results == [("as it should", None), (None, end), (None, end), (None, end)]
    stage.play(two())
    assert stage.results[-1] == (None, end)
    assert (len(stage.player), stage.player.deadline()) == (0, None)


def test_a_script_that_goes_on_after_the_end_is_told_again() -> None:
    def stubborn() -> Script:
        for _ in range(3):
            try:
                yield Command("once more")
            except QemuEnded:
                continue
        return "enough"

    stage = Stage()
    stage.play(stubborn())
    stage.player.end(QemuEnded("it has ended"))
    assert stage.results == [("enough", None)]
    assert stage.names == ["once more"]


def test_the_end_that_comes_while_a_script_is_at_something_is_told_it_after_that() -> None:
    """Whom it tells of its progress runs the loop, which finds the end of file."""
    stage = Stage()

    def busy() -> Script:
        yield Command("one")
        stage.player.end(QemuEnded("it has ended"))
        yield Command("two")

    stage.play(busy())
    stage.player.reply(Return(1, {}))
    assert stage.names == ["one"]
    ((_, error),) = stage.results
    assert isinstance(error, QemuEnded)


acts = st.lists(st.tuples(st.sampled_from("play reply fail wake tick give_up gone".split()), st.integers(0, 99)))


@given(acts)
def test_whatever_happens_each_script_is_done_once_and_nothing_is_left(done: list[tuple[str, int]]) -> None:
    stage = Stage()
    scripts = [two, lambda: waiting(None), lambda: waiting(1.0)]
    running: list[Any] = []
    for act, number in done:
        pending = [id for id in stage.sent if id in stage.player._awaited]
        if act == "play":
            running.append(stage.play(scripts[number % 3]()))
        elif act == "reply" and pending:
            stage.player.reply(Return(pending[number % len(pending)], number))
        elif act == "fail" and pending:
            stage.player.reply(Failure(pending[number % len(pending)], "GenericError", "no"))
        elif act == "give_up" and running:
            stage.player.give_up(running[number % len(running)])
        elif act == "gone" and pending:
            stage.gone.add(pending[number % len(pending)])
        elif act == "wake":
            stage.player.wake()
        elif act == "tick":
            stage.now += number / 50
            stage.player.tick()
        assert len(stage.results) + len(stage.player) == len(running)
    stage.player.end(QemuEnded("it has ended"))
    assert len(stage.results) == len(running)
    assert not stage.player._awaited and not stage.player._waiting
