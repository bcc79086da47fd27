"""What other threads leave for the loop's: in order, on its thread, each once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from eventbridge import Bridge
from eventbridge.core.dispatcher import BUDGET_CALLBACKS
from eventbridge.core.mailbox import Mailbox
from eventbridge.testing import SteppingHost


@pytest.fixture
def host() -> SteppingHost:
    return SteppingHost()


@pytest.fixture
def bridge(host: SteppingHost) -> Iterator[Bridge]:
    with Bridge(host) as bridge:
        yield bridge


@pytest.fixture
def mailbox(bridge: Bridge) -> Iterator[Mailbox]:
    mailbox = Mailbox(bridge)
    yield mailbox
    mailbox.close()


def on_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_steps_are_taken_in_the_order_in_which_they_were_put(host: SteppingHost, mailbox: Mailbox) -> None:
    taken: list[int] = []
    on_another_thread(lambda: [mailbox.put(lambda n=n: taken.append(n)) for n in range(10)])  # type: ignore[misc]  # a default argument binds n now
    assert taken == []
    host.step_until_idle()
    assert taken == list(range(10))


def test_nothing_put_costs_nothing(host: SteppingHost, mailbox: Mailbox) -> None:
    mailbox.put(lambda: None)
    assert host.step_until_idle() >= 1
    assert host.step() is False


def test_a_step_put_by_a_step_comes_after_those_that_were_there(host: SteppingHost, mailbox: Mailbox) -> None:
    taken: list[str] = []
    mailbox.put(lambda: (taken.append("first"), mailbox.put(lambda: taken.append("third"))))
    mailbox.put(lambda: taken.append("second"))
    host.step_until_idle()
    assert taken == ["first", "second", "third"]


def test_a_step_that_raises_is_reported_and_the_others_are_taken(host: SteppingHost, mailbox: Mailbox) -> None:
    """D4."""
    taken: list[str] = []
    mailbox.put(lambda: 1 // 0)
    mailbox.put(lambda: taken.append("after"))
    host.step_until_idle()
    assert taken == ["after"]
    assert [type(error) for error, _ in host.reported] == [ZeroDivisionError]


def test_more_than_a_budget_is_taken_in_several_passes(host: SteppingHost, bridge: Bridge, mailbox: Mailbox) -> None:
    """D2."""
    taken: list[int] = []
    for n in range(3 * BUDGET_CALLBACKS):
        mailbox.put(lambda n=n: taken.append(n))  # type: ignore[misc]  # as above
    host.step()
    assert 0 < len(taken) <= BUDGET_CALLBACKS
    host.step_until_idle()
    assert taken == list(range(3 * BUDGET_CALLBACKS))


def test_what_is_put_while_collecting_is_taken_at_its_end_and_not_before(host: SteppingHost, mailbox: Mailbox) -> None:
    taken: list[str] = []
    with mailbox.collecting():
        mailbox.put(lambda: taken.append("a"))
        with mailbox.collecting():  # a library that calls back into itself
            mailbox.put(lambda: taken.append("b"))
        assert taken == []
    assert taken == ["a", "b"]
    assert host.step() is False


def test_another_thread_is_not_collected_for(host: SteppingHost, mailbox: Mailbox) -> None:
    """It may put after the collector's last look: the loop is woken for it."""
    taken: list[str] = []
    with mailbox.collecting():
        pass
    on_another_thread(lambda: mailbox.put(lambda: taken.append("late")))
    host.step_until_idle()
    assert taken == ["late"]


def test_a_closed_mailbox_takes_nothing_and_leaves_nothing(host: SteppingHost, bridge: Bridge) -> None:
    mailbox = Mailbox(bridge)
    taken: list[str] = []
    mailbox.put(lambda: taken.append("never"))
    mailbox.close()
    mailbox.close()
    assert mailbox.put(lambda: taken.append("never")) is False
    host.step_until_idle()
    assert taken == []
    assert bridge.is_empty()


def test_a_mailbox_of_a_closed_bridge_says_so(bridge: Bridge, mailbox: Mailbox) -> None:
    bridge.close()
    assert mailbox.put(lambda: None) is False


def test_a_mailbox_that_finishes_takes_what_was_put_first(host: SteppingHost, bridge: Bridge) -> None:
    """Also what is put behind the step that finishes it, in the same pass."""
    mailbox = Mailbox(bridge)
    taken: list[str] = []
    mailbox.put(mailbox.finish)
    assert mailbox.put(lambda: taken.append("behind it"))
    host.step_until_idle()
    assert taken == ["behind it"]
    assert mailbox.put(lambda: taken.append("never")) is False
    host.step_until_idle()
    assert taken == ["behind it"]
    assert bridge.is_empty()


def test_while_a_mailbox_finishes_a_step_is_refused_or_taken_once(host: SteppingHost, bridge: Bridge) -> None:
    mailbox = Mailbox(bridge)
    taken: list[str] = []
    refused: list[bool] = []

    def puts() -> None:
        refused.append(not mailbox.put(lambda: taken.append("late")))

    mailbox.put(puts)
    mailbox.finish()
    assert (refused, taken) == ([True], [])
    assert bridge.is_empty()


def test_a_step_that_raises_keeps_no_other_from_its_turn_when_a_mailbox_finishes(bridge: Bridge) -> None:
    mailbox = Mailbox(bridge)
    taken: list[str] = []
    mailbox.put(lambda: 1 / 0)
    mailbox.put(lambda: taken.append("the next"))
    with pytest.raises(ZeroDivisionError):
        mailbox.finish()
    assert taken == ["the next"]
