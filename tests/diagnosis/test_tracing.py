"""`Bridge.trace`: what it records of passes, callbacks, calls, jobs and connections, in the Trace Event Format."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import stat
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventbridge
from eventbridge import Bridge, Events, Job, Kind
from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hypervisors.sim.simulation import Simulation, forget, simulation_of
from eventbridge.core.dispatcher import Dispatcher
from eventbridge.diagnosis.process_wide import traced
from eventbridge.diagnosis.pulse import NO_LAG
from eventbridge.diagnosis.tracing import Trace
from eventbridge.jobs import Jobs
from eventbridge.testing import FakeClock, SteppingHost
from tests.support.patience import PATIENCE
from tests.support.trace_format import Picture, end, ns, read

R = Events.READABLE
SIM = "sim:///default?domains=2&seed=1&rate=1"
WORLD = f"{SIM}&world=traced"


def picture(*traces: Trace) -> Picture:
    """As a reader of the file sees it: by way of JSON."""
    from eventbridge.diagnosis import trace_format

    return Picture(json.loads(json.dumps(trace_format.document(traces))))


def once(bridge: Bridge) -> Any:
    return lambda id, opaque: bridge.remove_timeout(id)


def test_a_callback_is_within_its_pass_with_its_id_fd_and_events(stepping: SteppingHost, clock: FakeClock) -> None:
    fd = os.eventfd(1)

    def ready(id: int, fd: int, events: int, opaque: object) -> None:
        os.eventfd_read(fd)
        clock.advance(us=5)

    with Bridge(stepping) as bridge, bridge.trace() as trace:
        handle = bridge.add_handle(fd, R | Events.WRITABLE, ready)
        timeout = bridge.add_timeout(10, once(bridge))
        clock.advance(ms=12)
        stepping.step()
        seen = picture(trace)
    os.close(fd)
    (a_pass,) = seen.spans("pass")
    called, due = sorted(seen.spans("callback"), key=lambda event: "timeout" in event["args"])
    assert called["args"]["handle"] == handle and called["args"]["fd"] == fd
    assert called["args"]["events"] == "READABLE|WRITABLE"
    assert ns(called["dur"]) == 5_000
    assert due["args"]["timeout"] == timeout
    assert due["args"]["late_us"] == 2_000
    assert all(seen.within(callback, a_pass) for callback in (called, due))
    assert seen.spans("callback", "application: ") == seen.spans("callback"), "named by owner and callback"
    assert called["name"].endswith("ready")


def test_the_host_s_time_is_what_is_between_two_passes(stepping: SteppingHost, clock: FakeClock) -> None:
    with Bridge(stepping) as bridge, bridge.trace(pulse_seconds=None) as trace:
        bridge.add_timeout(10, lambda id, opaque: clock.advance(ms=1))
        for _ in range(3):
            clock.advance(ms=20)
            stepping.step()
        seen = picture(trace)
    passes, waits = seen.spans("pass"), seen.spans("host")
    assert len(passes) == 3 and len(waits) == 2
    assert [ns(wait["dur"]) for wait in waits] == [20_000_000] * 2
    assert {seen.track(wait) for wait in waits} & {seen.track(each) for each in passes} == set()


def test_an_exception_and_the_host_s_lag_are_marks_and_a_curve(stepping: SteppingHost, clock: FakeClock) -> None:
    def fails(id: int, opaque: object) -> None:
        bridge.remove_timeout(id)
        raise ZeroDivisionError("by nothing")

    with Bridge(stepping) as bridge, bridge.trace(pulse_seconds=0.01) as trace:
        bridge.add_timeout(0, fails)
        stepping.step()
        clock.advance(ms=13)
        stepping.step()
        seen = picture(trace)
    (error,) = seen.marks("error")
    assert error["name"] == "exception: ZeroDivisionError: by nothing"
    assert error["args"]["in"].startswith("timeout 1 of application (")
    (beat,) = seen.counts("host lag (ms)")
    assert beat["args"] == {"late": 3.0}


def test_no_more_is_kept_than_was_asked_for_and_what_was_dropped_is_counted(stepping: SteppingHost) -> None:
    with Bridge(stepping) as bridge, bridge.trace(limit=10, pulse_seconds=None) as trace:
        bridge.add_timeout(0, lambda id, opaque: None)
        for _ in range(20):
            stepping.step()
        seen = picture(trace)
    assert len(seen.spans("pass")) + len(seen.spans("callback")) == 10, "20 of each there were"
    assert seen.dropped == trace.dropped == 30


def test_after_its_end_nothing_is_recorded_and_the_bridge_is_as_before(stepping: SteppingHost) -> None:
    with Bridge(stepping) as bridge:
        with bridge.trace() as trace:
            bridge.add_timeout(0, once(bridge))
            stepping.step()
        before = trace.to_json()
        trace.stop()
        bridge.add_timeout(0, once(bridge))
        stepping.step()
        assert trace.to_json() == before
        assert (type(bridge._dispatcher), bridge.observers, bridge.stats().host_lag) == (Dispatcher, (), NO_LAG)


def test_a_handle_and_what_it_holds_may_go_though_they_are_in_a_trace(stepping: SteppingHost) -> None:
    """H7: whoever records must not keep alive what the application has let go of."""

    class Held:
        def callback(self, id: int, opaque: object) -> None:
            bridge.remove_timeout(id)

    with Bridge(stepping) as bridge, bridge.trace() as trace:
        held = Held()
        bridge.add_timeout(0, held.callback)
        gone = weakref.ref(held)
        stepping.step_until_idle()
        del held
        gc.collect()
        assert gone() is None
        assert picture(trace).spans("callback", "Held.callback")


def test_two_traces_of_one_bridge_do_not_disturb_each_other(stepping: SteppingHost) -> None:
    with Bridge(stepping) as bridge, bridge.trace() as outer:
        with bridge.trace() as inner:
            bridge.add_timeout(0, once(bridge))
            stepping.step()
        bridge.add_timeout(0, once(bridge))
        stepping.step()
        assert len(picture(inner).spans("callback")) == 1
        assert len(picture(outer).spans("callback")) == 2


def test_every_bridge_that_is_made_meanwhile_is_a_process_of_the_picture() -> None:
    with Bridge(SteppingHost()) as before, traced(100) as traces, Bridge(SteppingHost()) as bridge:
        for each in (before, bridge):
            each.add_timeout(0, once(each))
            each.host.step()  # type: ignore[attr-defined]
        assert len({event["pid"] for event in picture(*traces).spans("callback")}) == 2
    assert before.observers == bridge.observers == ()


def test_a_bridge_whose_loop_was_closed_under_it_keeps_no_other_from_being_traced() -> None:
    """There is nothing to be seen of it any more, and it is left in peace."""
    loop = asyncio.new_event_loop()
    left = Bridge(AsyncioHost(loop))
    loop.close()
    with Bridge(SteppingHost()) as bridge, traced(100) as traces:
        bridge.add_timeout(0, once(bridge))
        bridge.host.step()  # type: ignore[attr-defined]
        assert len(picture(*traces).spans("callback")) == 1
    left.close()
    assert left.observers == bridge.observers == ()


# -- the file


def test_it_is_written_whole_or_not_at_all(stepping: SteppingHost, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("what was there")
    with Bridge(stepping) as bridge, bridge.trace() as trace:
        stepping.step_until_idle()
        trace.stop()
        trace.to_json = lambda: {"traceEvents": [object()]}  # type: ignore[method-assign,dict-item]  # cannot be JSON
        with pytest.raises(TypeError):
            trace.write(path)
        assert path.read_text() == "what was there"
        del trace.to_json  # type: ignore[attr-defined]
        trace.write(path)
    assert read(path).dropped == 0
    assert os.listdir(tmp_path) == ["trace.json"], "nothing is left beside it"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_an_empty_trace_is_a_file_too(stepping: SteppingHost, tmp_path: Path) -> None:
    with Bridge(stepping) as bridge, bridge.trace() as trace:
        trace.write(tmp_path / "trace.json")
    assert read(tmp_path / "trace.json").spans("pass") == []


# -- calls, jobs, connections


@pytest.fixture
def bridge() -> Any:
    with Bridge("select") as made:
        yield made


def until(bridge: Bridge, *calls: Any) -> None:
    for call in calls:
        assert bridge.run(until=lambda call=call: call.done, timeout=PATIENCE), call  # type: ignore[misc]


def test_a_call_its_wait_its_job_and_the_hypervisor_s_time_are_on_the_domain_s_tracks(bridge: Bridge) -> None:
    with bridge.trace() as trace:
        connection = eventbridge.open(SIM, bridge)
        until(bridge, connection.opened)
        found = connection.domain("simulated-0")
        until(bridge, found)
        domain = found.result()
        holder = connection.jobs.hold(connection.known.key(domain.ref), Job.MODIFY, nowait=True)
        info = domain.info()
        bridge.run(timeout=0.01)
        assert not info.done
        holder.end()
        until(bridge, info)
        closing = connection.close()
        until(bridge, closing)
    seen = picture(trace)
    (call,) = seen.spans("call", "info of simulated-0")
    (wait,) = seen.spans("wait", "query")
    (job,) = seen.spans("job", "job: query")
    (held,) = seen.spans("job", "job: modify")
    (hypervisor,) = seen.spans("hypervisor", "info")
    assert end(wait) == ns(job["ts"]), "the job begins when the wait is over"
    assert all(seen.within(inner, call) for inner in (wait, job, hypervisor))
    assert seen.within(hypervisor, job)
    assert seen.within(wait, {**held, "dur": held["dur"] + 1000}), "as long as the other job was held, about"
    assert seen.track(call) == f"simulated-0 of {SIM}: calls"
    assert seen.track(job) == f"simulated-0 of {SIM}: jobs"
    assert not any("unfinished" in event["args"] for event in (call, wait, job, held, hypervisor))
    states = [mark["args"]["state"] for mark in seen.marks("connection")]
    assert states == ["opening", "open", "closed"]


def test_a_connection_that_was_there_before_is_traced_as_well_and_left_as_it_was(bridge: Bridge) -> None:
    connection = eventbridge.open(SIM, bridge)
    until(bridge, connection.opened)
    with bridge.trace() as trace:
        listed = connection.domains()
        until(bridge, listed)
        info = listed.result()[1].info()
        until(bridge, info)
    seen = picture(trace)
    assert len(seen.spans("job", "job: query")) == 1
    assert [mark["args"]["state"] for mark in seen.marks("connection")] == ["open"], "how it was found"
    assert type(connection.jobs) is Jobs
    until(bridge, connection.close())
    assert len(seen.spans("call")) == 2


def test_what_has_not_ended_yet_is_drawn_up_to_now_and_says_so(bridge: Bridge) -> None:
    connection = eventbridge.open(SIM, bridge)
    until(bridge, connection.opened)
    found = connection.domain("simulated-1")
    until(bridge, found)
    key = connection.known.key(found.result().ref)
    with bridge.trace() as trace:
        holder = connection.jobs.hold(key, Job.MODIFY, nowait=True)
        info = found.result().info()
        seen = picture(trace)
        (call,) = seen.spans("call", "info")
        (held,) = seen.spans("job", "modify")
        (wait,) = seen.spans("wait", "query")
        assert call["args"]["unfinished"] and held["args"]["unfinished"] and wait["args"]["unfinished"]
        assert seen.spans("hypervisor") == [], "it was not handed over"
        info.cancel()
        holder.end()
    seen = picture(trace)
    (wait,) = seen.spans("wait", "query")
    assert wait["args"]["end"] == "cancelled"
    (call,) = seen.spans("call", "info")
    assert "given up" in call["args"]["error"]
    until(bridge, connection.close())


def test_a_call_that_is_refused_ends_with_its_error(bridge: Bridge) -> None:
    connection = eventbridge.open(SIM, bridge)
    until(bridge, connection.opened, connection.close())
    with bridge.trace() as trace:
        until(bridge, connection.domains())
        (call,) = picture(trace).spans("call", "list")
    assert call["args"]["error"].startswith("ConnectionLost: ")


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    yield simulation_of(WORLD)
    forget("traced")


def test_a_connection_that_is_lost_is_a_mark_that_says_why_and_so_is_its_return(
    bridge: Bridge, simulation: Simulation
) -> None:
    connection = eventbridge.open(WORLD, bridge)
    until(bridge, connection.opened)
    kinds: list[Kind] = []
    connection.subscribe(lambda event: kinds.append(event.kind))
    with bridge.trace() as trace:
        assert simulation.break_connections() == 1
        assert bridge.run(until=lambda: Kind.CONNECTION_RESTORED in kinds, timeout=PATIENCE)
    marks = picture(trace).marks("connection")
    assert [mark["args"]["state"] for mark in marks] == ["open", "lost", "open"]
    assert marks[1]["args"]["why"], "the hypervisor's own words"
    until(bridge, connection.close())


def test_a_call_that_hangs_ends_at_its_deadline_and_its_job_and_the_hypervisor_go_on(
    bridge: Bridge, simulation: Simulation
) -> None:
    connection = eventbridge.open(WORLD, bridge)
    until(bridge, connection.opened)
    found = connection.domain("simulated-0")
    until(bridge, found)
    simulation.freeze("simulated-0")
    with bridge.trace() as trace:
        info = found.result().info(timeout=0.02)
        until(bridge, info)
        seen = picture(trace)
        (call,), (job,), (hypervisor,) = seen.spans("call"), seen.spans("job"), seen.spans("hypervisor")
        assert call["args"]["error"].startswith("JobTimeout: ")
        assert "unfinished" not in call["args"]
        assert hypervisor["args"]["unfinished"] and job["args"]["unfinished"]
        assert [mark["name"] for mark in seen.marks("job")] == ["abandoned"]
        simulation.thaw()
        assert bridge.run(until=lambda: not len(connection.jobs), timeout=PATIENCE)
        seen = picture(trace)
        (hypervisor,) = seen.spans("hypervisor")
        assert "unfinished" not in hypervisor["args"]
        assert end(hypervisor) > end(call)
    until(bridge, connection.close())


def test_a_table_of_one_s_own_can_be_followed(stepping: SteppingHost) -> None:
    jobs = Jobs()
    with Bridge(stepping) as bridge, bridge.trace() as trace:
        trace.follow(jobs, "farm")
        first = jobs.hold("web", Job.MODIFY)
        threads = [threading.Thread(target=lambda: jobs.hold("web", Job.MODIFY).end()) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(jobs._machine("web").waiters()) < 2:
            pass
        refused = jobs.request("web", Job.QUERY, "somebody", nowait=True)
        first.abandon()
        first.end()
        for thread in threads:
            thread.join(PATIENCE)
        seen = picture(trace)
    assert refused.error is not None
    assert len(seen.spans("job", "modify")) == 3
    waits = seen.spans("wait")
    assert sorted(wait["args"].get("end", "granted") for wait in waits) == ["granted", "granted", "refused"]
    assert {seen.track(event).split(" +")[0] for event in waits} == {"web of farm: jobs"}
    assert [mark["name"] for mark in seen.marks("job")] == ["abandoned"]
    assert type(jobs) is Jobs, "and is followed no more"
