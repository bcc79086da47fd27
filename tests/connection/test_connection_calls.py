"""Calls: each ends once, in time, and costs its own domain at most."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from eventbridge import Bridge, Connection, Domain, Job
from eventbridge.errors import ConnectionLost, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobAborted, JobBusy, JobTimeout
from tests.support.desk import Desk
from tests.support.patience import PATIENCE
from tests.support.scripted_hypervisor import Scripted, uuid


def domain(desk: Desk, name: str) -> Domain:
    call = desk.connection.domain(name)
    desk.until(lambda: call.done)
    return call.result()


def test_domains_are_looked_up_by_name_and_by_uuid(desk: Desk) -> None:
    assert domain(desk, "d1") == domain(desk, uuid(1)) != domain(desk, "d2")
    assert (domain(desk, "d1").uuid, domain(desk, "d1").id) == (uuid(1), 1)
    listed = desk.connection.domains()
    desk.until(lambda: listed.done)
    assert sorted(str(each.name) for each in listed.result()) == ["d1", "d2", "d3"]


def test_one_that_is_not_there_is_one_clear_error(desk: Desk) -> None:
    call = desk.connection.domain("nobody")
    desk.until(lambda: call.done)
    with pytest.raises(NoSuchDomain, match="no domain 'nobody'"):
        call.result()


def test_one_that_has_just_been_made_is_found_before_its_event_comes(desk: Desk) -> None:
    desk.hypervisor.add(9)
    assert domain(desk, "d9").name == "d9"


def test_an_answer_ends_the_call_and_frees_the_domain(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    call = d1.suspend()
    job = d1.job
    assert not call.done and job is not None and (job.job, job.holder) == (Job.SUSPEND, "suspend of d1")
    desk.hypervisor.release_answers()
    desk.until(lambda: call.done)
    assert d1.job is None
    desk.settle()
    assert desk.told() == ["d1 suspended"]


def test_one_domains_call_never_makes_another_domains_wait(desk: Desk) -> None:
    d1, d2 = domain(desk, "d1"), domain(desk, "d2")
    desk.hypervisor.holds_answers = True
    hanging = d1.suspend()
    desk.hypervisor.holds_answers = False
    other = d2.resume()
    desk.until(lambda: other.done)
    assert other.error is None and not hanging.done
    desk.hypervisor.release_answers()


def test_a_second_call_of_a_domain_waits_and_a_monitors_does_not(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    first, second, monitor = d1.suspend(), d1.info(), d1.info(nowait=True)
    desk.until(lambda: monitor.done)
    with pytest.raises(JobBusy, match=r"info of d1: .* suspend of d1 holds it with suspend for"):
        monitor.result()
    assert [request.operation for request in desk.hypervisor.held] == ["suspend"]
    desk.hypervisor.release_answers()
    desk.until(lambda: second.done)
    assert first.error is None and second.result().state.value == "paused"


def test_a_deadline_covers_the_wait_and_names_who_is_in_the_way(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    first, second = d1.suspend(), d1.info(timeout=0.01)
    desk.until(lambda: second.done)
    with pytest.raises(JobTimeout, match=r"info of d1: .*not let in within .*suspend of d1 holds it"):
        second.result()
    assert not first.done
    desk.hypervisor.release_answers()
    desk.settle()
    assert ("info", "d1") not in desk.hypervisor.asked


def test_a_deadline_covers_the_answer_and_names_the_call(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    hanging = d1.suspend(timeout=0.01)
    desk.until(lambda: hanging.done)
    with pytest.raises(JobTimeout, match=r"suspend of d1: no answer from scripted:///one within \d"):
        hanging.result()
    assert desk.hypervisor.given_up == ["suspend"]
    job = d1.job
    assert job is not None and [held.job for held in job.abandoned] == [Job.SUSPEND]


def test_a_hung_call_holds_its_domain_and_lets_it_be_destroyed(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    hanging, waiting = d1.suspend(timeout=0.01), d1.info(timeout=0.05)
    desk.until(lambda: hanging.done)
    desk.hypervisor.holds_answers = False
    destroyed = d1.destroy()
    desk.until(lambda: destroyed.done)
    assert destroyed.error is None
    desk.until(lambda: waiting.done)
    assert isinstance(waiting.error, JobTimeout)
    desk.hypervisor.release_answers()
    desk.settle()
    assert d1.job is None  # the late answer has let go of it


def test_a_late_answer_is_heard_by_nobody(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    hanging = d1.suspend(timeout=0.01)
    ended: list[object] = []
    hanging.on_done(ended.append)
    desk.until(lambda: bool(ended))
    desk.hypervisor.release_answers()
    desk.settle()
    assert ended == [hanging] and isinstance(hanging.error, JobTimeout)


def test_a_call_given_up_in_the_queue_never_begins(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    first, second = d1.suspend(), d1.destroy()
    second.cancel()
    assert isinstance(second.error, JobAborted)
    desk.hypervisor.release_answers()
    desk.until(lambda: first.done)
    desk.settle()
    assert ("destroy", "d1") not in desk.hypervisor.asked
    assert d1.job is None


def test_a_call_given_up_on_its_way_ends_at_once_and_its_job_with_the_answer(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    call = d1.suspend()
    call.cancel()
    assert isinstance(call.error, JobAborted) and d1.job is not None
    desk.hypervisor.release_answers()
    desk.settle()
    assert d1.job is None


def test_what_a_hypervisor_refuses_is_the_calls_error(desk: Desk) -> None:
    call = domain(desk, "d3").suspend()
    desk.until(lambda: call.done)
    with pytest.raises(HypervisorError, match="it is stopped") as refused:
        call.result()
    assert refused.value.code == 55


def test_what_a_hypervisor_cannot_do_says_what_it_can(desk: Desk) -> None:
    call = domain(desk, "d1").reboot()
    with pytest.raises(HypervisorError, match=r"reboot of d1: scripted:///one cannot do that; it can: define, destroy"):
        call.result()


def test_a_destination_that_is_none_is_refused_at_once_and_nothing_is_held(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    with pytest.raises(TypeError, match=r"a destination is a URI .*; found 7"):
        d1.migrate(7)  # type: ignore[arg-type]  # that is what is tried
    assert d1.job is None


def test_a_loss_ends_what_is_under_way_and_frees_its_domains(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    first, second = d1.suspend(), d1.info()
    desk.hypervisor.opening.clear()
    desk.hypervisor.break_off()
    desk.until(lambda: first.done and second.done)
    for call in (first, second):
        with pytest.raises(ConnectionLost, match="scripted:///one is lost since"):
            call.result()
    assert d1.job is None and len(desk.connection.jobs) == 0
    desk.hypervisor.opening.set()


def test_a_domain_goes_on_working_after_a_return(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.break_off()
    desk.until(lambda: len(desk.events) == 2)
    call = d1.suspend()
    desk.until(lambda: call.done)
    assert call.error is None


def test_a_call_that_finds_the_hypervisor_gone_makes_it_count_as_lost(desk: Desk) -> None:
    """Where it does not say so itself."""
    desk.hypervisor.sessions[0].gone = True
    call = domain(desk, "d1").info()
    desk.until(lambda: call.done)
    assert isinstance(call.error, ConnectionLost)
    desk.until(lambda: len(desk.events) == 2)
    assert desk.told() == ["- connection_lost (unexplained)", "- connection_restored"]


def test_who_waits_for_a_domain_that_ends_for_good_is_told_so(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    first, second = d1.suspend(), d1.info()
    desk.hypervisor.happen(Kind.UNDEFINED, uuid(1))
    desk.hypervisor.happen(Kind.STOPPED, uuid(1))
    desk.until(lambda: second.done)
    with pytest.raises(HypervisorError, match="has ended"):
        second.result()
    assert not first.done and d1.state is None
    desk.hypervisor.release_answers()
    desk.until(lambda: first.done)


def test_callers_that_wait_are_told_on_the_loops_thread_and_threads_wherever_they_are(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    call = d1.suspend()
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call.result(PATIENCE)))
    thread.start()
    threads: list[int] = []
    call.on_done(lambda call: threads.append(threading.get_ident()))
    answering = threading.Thread(target=desk.hypervisor.release_answers)
    answering.start()
    answering.join(PATIENCE)
    thread.join(PATIENCE)
    assert results == [None] and threads == []
    desk.settle()
    assert threads == [threading.get_ident()]


def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_call_goes_on(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    call = d1.suspend()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            call.result(0.001)
        except TimeoutError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(PATIENCE)
    assert "suspend of d1: goes on" in str(errors[0]) and not call.done
    desk.hypervisor.release_answers()


def test_a_consumer_that_raises_keeps_the_event_from_nobody(desk: Desk) -> None:
    """D4."""
    later: list[object] = []

    def broken(event: object) -> None:
        raise ZeroDivisionError("a consumer's bug")

    end = desk.connection.subscribe(broken)
    desk.connection.subscribe(later.append)
    desk.hypervisor.happen(Kind.SUSPENDED, uuid(1))
    desk.until(lambda: bool(later))
    assert [str(error) for error, _ in desk.host.reported] == ["a consumer's bug"]
    desk.host.reported.clear()
    end()
    desk.hypervisor.happen(Kind.RESUMED, uuid(1))
    desk.until(lambda: len(later) == 2)


def test_closing_ends_everything_once(desk: Desk) -> None:
    d1 = domain(desk, "d1")
    desk.hypervisor.holds_answers = True
    call = d1.suspend()
    stream = desk.connection.events()
    first, second = desk.connection.close(), desk.connection.close()
    desk.until(lambda: first.done)
    assert first is second
    assert isinstance(call.error, ConnectionLost)
    assert isinstance(d1.info().error, ConnectionLost)
    assert stream.take() is None
    desk.settle()
    assert desk.events == []


def test_closing_while_it_opens_ends_that_too(scripted: object, at: Callable[..., Desk]) -> None:
    desk = at(scripted)
    desk.hypervisor.opening.clear()
    closed = desk.connection.close()
    desk.until(lambda: closed.done)
    assert isinstance(desk.connection.opened.error, ConnectionLost)
    desk.hypervisor.opening.set()
    desk.until(lambda: not desk.hypervisor.sessions)


def test_a_loop_that_runs_until_a_call_is_done_is_woken_by_its_end(script: Callable[..., Scripted]) -> None:
    """`Bridge.run` looks after every pass: there is to be one, though nobody is called."""
    hypervisor = script("woken")
    hypervisor.add(1, State.RUNNING)
    with Bridge("select") as bridge:
        connection = Connection(hypervisor.uri, bridge)
        assert bridge.run(until=lambda: connection.opened.done, timeout=PATIENCE)
        hypervisor.holds_answers = True
        call = connection.domains()
        threading.Timer(0.01, hypervisor.release_answers).start()
        passes = bridge.stats().passes
        assert bridge.run(until=lambda: call.done, timeout=PATIENCE)
        assert bridge.stats().passes - passes < 10
        closed = connection.close()
        assert bridge.run(until=lambda: closed.done, timeout=PATIENCE)
