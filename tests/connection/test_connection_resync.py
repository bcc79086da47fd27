"""Nothing is lost: what the stream implies is what the hypervisor says, whatever happens behind its back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eventbridge import Backoff
from eventbridge.connection import connection
from eventbridge.connection.supervisor import LinkState
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from tests.support.desk import Desk
from tests.support.scripted_hypervisor import Scripted, uuid

D1, D2, D3, D4 = (uuid(number) for number in (1, 2, 3, 4))


def lose(desk: Desk) -> None:
    desk.hypervisor.opening.clear()
    desk.hypervisor.break_off()
    desk.until(lambda: desk.connection.state is LinkState.LOST)
    desk.events.clear()


def regain(desk: Desk) -> None:
    desk.hypervisor.opening.set()
    desk.until(lambda: any(event.kind is Kind.CONNECTION_RESTORED for event in desk.events))


def test_what_is_there_at_first_is_known_and_not_told(desk: Desk) -> None:
    assert desk.agrees()
    assert desk.events == []


def test_an_event_is_told_once_and_folded_in(desk: Desk) -> None:
    desk.hypervisor.happen(Kind.SUSPENDED, D1)
    desk.until(lambda: bool(desk.events))
    desk.settle()
    assert desk.told() == ["d1 suspended"]
    assert desk.agrees()


def test_a_loss_is_told_and_so_is_the_return(desk: Desk) -> None:
    desk.hypervisor.break_off()
    desk.until(lambda: len(desk.events) == 2)
    desk.settle()
    assert desk.told() == ["- connection_lost (eof)", "- connection_restored"]
    assert desk.events[1].raw["synthetic"] == 0
    assert desk.agrees()


def test_the_difference_is_told_before_the_return(desk: Desk) -> None:
    lose(desk)
    happen = desk.hypervisor.happen
    happen(Kind.SUSPENDED, D1)
    happen(Kind.RESUMED, D2)
    happen(Kind.STARTED, D3)
    happen(Kind.DEFINED, D4)
    regain(desk)
    desk.settle()
    assert desk.told() == [
        "d1 suspended (inferred) *",
        "d2 resumed (inferred) *",
        "d3 started (inferred) *",
        "d4 defined (inferred) *",
        "- connection_restored",
    ]
    assert desk.agrees()


def test_one_that_was_started_anew_has_stopped_before(desk: Desk) -> None:
    lose(desk)
    desk.hypervisor.happen(Kind.STOPPED, D1)
    desk.hypervisor.happen(Kind.STARTED, D1)
    regain(desk)
    assert desk.told() == ["d1 stopped (inferred) *", "d1 started (inferred) *", "- connection_restored"]


def test_one_that_has_gone_for_good_has_stopped_and_is_undefined(desk: Desk) -> None:
    lose(desk)
    desk.hypervisor.happen(Kind.UNDEFINED, D2)
    desk.hypervisor.happen(Kind.STOPPED, D2)
    regain(desk)
    assert desk.told() == ["d2 stopped (inferred) *", "d2 undefined (inferred) *", "- connection_restored"]
    assert desk.agrees()


def test_sequence_has_no_gap_over_all_of_it(desk: Desk) -> None:
    desk.hypervisor.happen(Kind.SUSPENDED, D1)
    for number in range(5):
        desk.hypervisor.break_off()
        desk.hypervisor.happen(Kind.STOPPED, D3, told=False)
        desk.until(lambda number=number: desk.told().count("- connection_restored") > number)  # type: ignore[misc]
    assert [event.sequence for event in desk.events] == list(range(1, len(desk.events) + 1))


def test_it_is_tried_again_until_it_opens(desk: Desk) -> None:
    desk.hypervisor.refusals = 3
    desk.hypervisor.break_off()
    desk.until(lambda: len(desk.events) == 2)
    assert desk.events[1].raw["tries"] == 4


def test_without_reconnecting_a_loss_is_the_end(scripted: Scripted, at: Callable[..., Desk]) -> None:
    desk = at(scripted, reconnect=None)
    desk.open()
    stream = desk.connection.events()
    scripted.break_off()
    desk.until(lambda: desk.connection.state is LinkState.FAILED)
    assert desk.told() == ["- connection_lost (eof)"]
    assert stream.take() is not None and stream.take() is None
    assert isinstance(desk.connection.domains().error, ConnectionLost)


def test_so_many_tries_and_no_more(scripted: Scripted, at: Callable[..., Desk]) -> None:
    desk = at(scripted, reconnect=Backoff(first=0.001, most=0.001, tries=2))
    desk.open()
    scripted.refusals = 99
    scripted.break_off()
    desk.until(lambda: desk.connection.state is LinkState.FAILED)
    assert scripted.refusals == 97


def test_one_that_cannot_be_opened_says_why_and_is_not_tried_again(scripted: Scripted, at: Callable[..., Desk]) -> None:
    scripted.refusals = 1
    desk = at(scripted)
    desk.until(lambda: desk.connection.opened.done)
    with pytest.raises(HypervisorError, match="as the script has it"):
        desk.connection.opened.result()
    assert desk.connection.state is LinkState.FAILED
    assert scripted.refusals == 0 and desk.events == []


def test_a_loss_between_opening_and_knowing_it_is_a_loss(desk: Desk) -> None:
    lose(desk)
    desk.hypervisor.holds_answers = True
    desk.hypervisor.opening.set()
    desk.until(lambda: bool(desk.hypervisor.held))
    desk.hypervisor.break_off()
    desk.until(lambda: bool(desk.events))
    assert desk.told() == ["- connection_lost (eof)"]
    desk.hypervisor.release_answers()
    desk.until(lambda: len(desk.events) == 2)
    assert desk.told()[1] == "- connection_restored"


# -- answers and events that overtake each other


def test_an_event_that_comes_while_the_list_is_on_its_way_is_not_undone_by_it(desk: Desk) -> None:
    """The list was made before."""
    lose(desk)
    hypervisor = desk.hypervisor
    hypervisor.holds_answers = True
    hypervisor.opening.set()
    desk.until(lambda: bool(hypervisor.held))
    asked = hypervisor.held.popleft()
    old = list(hypervisor.domains.values())
    hypervisor.happen(Kind.SUSPENDED, D1)
    asked.answer(old)
    desk.until(lambda: bool(hypervisor.held))  # d1 is asked about by itself
    assert [(held.operation, held.domain.name) for held in hypervisor.held] == [("info", "d1")]  # type: ignore[union-attr]
    hypervisor.release_answers()
    regain(desk)
    desk.settle()
    assert desk.told() == ["d1 suspended", "- connection_restored"]
    assert desk.agrees()


def test_an_event_that_was_told_before_the_list_is_delivered_before_it_is_compared(desk: Desk) -> None:
    """libvirt queues its events for the loop, and answers on the thread that asked."""
    lose(desk)
    hypervisor = desk.hypervisor
    hypervisor.holds_answers = True
    hypervisor.opening.set()
    desk.until(lambda: bool(hypervisor.held))
    # The answer's step goes into one mailbox, the event's into another: both are there before the next turn.
    hypervisor.happen(Kind.STARTED, D3)
    hypervisor.release_answers()
    regain(desk)
    desk.settle()
    assert desk.told() == ["d3 started", "- connection_restored"]
    assert desk.agrees()


def test_an_event_that_comes_late_and_says_the_same_is_told_once(desk: Desk) -> None:
    """Xen's come through a worker: an answer may overtake them by as much as it likes."""
    lose(desk)
    hypervisor = desk.hypervisor
    hypervisor.holds_events = hypervisor.holds_answers = True
    hypervisor.opening.set()
    desk.until(lambda: bool(hypervisor.held))
    hypervisor.happen(Kind.STARTED, D3)
    hypervisor.happen(Kind.SUSPENDED, D1)
    hypervisor.release_answers()
    regain(desk)
    hypervisor.release_events()
    desk.settle()
    assert sorted(desk.told()) == [
        "- connection_restored",
        "d1 suspended (inferred) *",
        "d3 started (inferred) *",
    ]
    hypervisor.happen(Kind.RESUMED, D1)
    hypervisor.happen(Kind.SUSPENDED, D1)
    desk.settle()
    assert desk.told()[-2:] == ["d1 resumed", "d1 suspended"]
    assert desk.agrees()


def test_a_domain_that_changes_all_the_time_does_not_hold_up_the_return(desk: Desk) -> None:
    lose(desk)
    hypervisor = desk.hypervisor
    hypervisor.holds_answers = True
    hypervisor.opening.set()
    kinds = [Kind.SUSPENDED, Kind.RESUMED]
    for number in range(100):
        desk.until(lambda: bool(hypervisor.held) or desk.told()[-1:] == ["- connection_restored"])
        if not hypervisor.held:
            break
        asked = hypervisor.held.popleft()
        hypervisor.happen(kinds[number % 2], D1)
        hypervisor.answer(asked)
        hypervisor.happen(kinds[(number + 1) % 2], D1)
    else:
        raise AssertionError("it was asked a hundred times")
    hypervisor.release_answers()
    desk.settle()
    assert desk.agrees()


def test_a_stale_session_is_heard_no_more(desk: Desk) -> None:
    old = desk.hypervisor.sessions[0]
    desk.hypervisor.break_off()
    desk.until(lambda: len(desk.events) == 2)
    old.closed = False
    old._emit(desk.events[0])
    desk.settle()
    assert len(desk.events) == 2


def test_a_hypervisor_that_will_not_say_how_its_domains_are_counts_as_lost(desk: Desk) -> None:
    lose(desk)
    hypervisor = desk.hypervisor
    hypervisor.holds_answers = True
    hypervisor.opening.set()
    desk.until(lambda: bool(hypervisor.held))
    hypervisor.held.popleft().refuse(HypervisorError("no"))
    hypervisor.holds_answers = False
    regain(desk)
    assert desk.told() == ["- connection_lost (resync)", "- connection_restored"]


def test_ten_thousand_domains_are_compared_in_small_steps(scripted: Scripted, at: Callable[..., Desk]) -> None:
    """D2: the loop has its turn in between."""
    for number in range(10_000):
        scripted.add(number + 1, State.RUNNING)
    desk = at(scripted)
    desk.open()
    assert len(desk.connection.known) == 10_000
    lose(desk)
    for number in range(10_000):
        scripted.happen(Kind.SUSPENDED, uuid(number + 1))
    passes = desk.bridge.stats().passes
    regain(desk)
    assert desk.bridge.stats().passes - passes > 20
    assert sum(event.synthetic for event in desk.events) == 10_000
    assert desk.agrees()


# -- what a hypervisor does not tell


def test_what_it_never_told_is_found_by_looking_now_and_then(scripted: Scripted, at: Callable[..., Desk]) -> None:
    scripted.add(1, State.RUNNING)
    desk = at(scripted, audit=0.01)
    desk.open()
    scripted.happen(Kind.SUSPENDED, D1, told=False)
    desk.until(lambda: bool(desk.events))
    assert desk.told() == ["d1 suspended (inferred) *"]
    asked = scripted.asked.count(("list", None))
    desk.until(lambda: scripted.asked.count(("list", None)) > asked + 2)
    assert len(desk.events) == 1 and desk.agrees()


def test_unless_that_is_not_wanted(desk: Desk) -> None:
    desk.hypervisor.happen(Kind.SUSPENDED, D1, told=False)
    desk.settle()
    assert desk.events == [] and desk.hypervisor.asked.count(("list", None)) == 1


def test_soon_after_a_return_it_is_looked_once_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirtd 9.0.0 says nothing of a guest that ends while it is on its way back to it."""
    monkeypatch.setattr(connection, "SECOND_LOOK_SECONDS", 0.01)
    desk.hypervisor.break_off()
    desk.until(lambda: len(desk.events) == 2)
    desk.hypervisor.happen(Kind.STOPPED, D1, told=False)
    desk.until(lambda: len(desk.events) == 3)
    assert desk.told()[2] == "d1 stopped (inferred) *"


def test_a_look_that_is_refused_loses_nothing(scripted: Scripted, at: Callable[..., Desk]) -> None:
    scripted.add(1, State.RUNNING)
    desk = at(scripted, audit=0.01)
    desk.open()
    scripted.holds_answers = True
    desk.until(lambda: bool(scripted.held))
    scripted.held.popleft().refuse(HypervisorError("not now"))
    scripted.holds_answers = False
    scripted.happen(Kind.SUSPENDED, D1, told=False)
    desk.until(lambda: bool(desk.events))
    assert desk.told() == ["d1 suspended (inferred) *"]
