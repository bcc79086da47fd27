"""Calls on gevent: a greenlet waits for ``result()`` while the hub goes on; the hub itself may not, a thread may."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from eventbridge import Bridge, Connection
from eventbridge.adapters.hypervisors.sim import simulation as control
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobAborted
from tests.support import wanted
from tests.support.command import run
from tests.support.patience import PATIENCE

gevent = wanted.module("gevent")
wanted.adapter("gevent")

S0 = "simulated-0"

_numbers = itertools.count()


@pytest.fixture
def hv() -> Iterator[Connection]:
    """On this thread's hub, which is gone afterwards: `attach()` takes it for what runs here, wherever there is one."""
    name = f"gevent-{next(_numbers)}"
    with Bridge("gevent") as bridge:
        connection = Connection(f"sim:///default?world={name}&events=0&domains=4", bridge)
        connection.opened.result(PATIENCE)
        yield connection
        connection.close().result(PATIENCE)
    gevent.get_hub().destroy(destroy_loop=True)
    control.forget(name)


def started(*what: Any) -> Any:
    """A greenlet, known to run."""
    greenlet = gevent.spawn(*what)
    gevent.sleep(0)
    return greenlet


def test_a_greenlet_waits_and_others_go_on(hv: Connection) -> None:
    domain = hv.domain(S0).result(PATIENCE)
    simulation = control.simulation_of(hv.uri)
    simulation.freeze(S0)
    waiting = started(domain.start().result, PATIENCE)
    turns = itertools.count(1)
    while next(turns) < 10 or not simulation.hung:
        gevent.sleep(0)
    assert not waiting.dead
    simulation.thaw()
    waiting.get(timeout=PATIENCE)
    assert domain.info().result(PATIENCE).state is State.RUNNING


def test_a_timeout_leaves_the_call_and_a_kill_gives_it_up(hv: Connection) -> None:
    domain = hv.domain(S0).result(PATIENCE)
    simulation = control.simulation_of(hv.uri)
    simulation.freeze(S0)
    call = domain.start()
    with pytest.raises(TimeoutError):
        call.result(0.01)
    assert not call.done
    greenlet = started(call.result)
    greenlet.kill()
    assert isinstance(call.error, JobAborted)
    simulation.thaw()


def test_in_the_hub_itself_it_refuses_at_once(hv: Connection) -> None:
    refused: list[BaseException] = []

    def ask(call: Any) -> None:
        try:
            hv.domains().result()
        except HypervisorError as error:
            refused.append(error)

    hv.domains().on_done(ask)
    while not refused:
        gevent.sleep(0)
    assert "runs the loop" in str(refused[0])


def test_a_thread_of_its_own_waits_as_on_any_host(hv: Connection) -> None:
    call = hv.domains()
    pool = gevent.get_hub().threadpool
    assert len(pool.spawn(call.result, PATIENCE).get(timeout=PATIENCE)) == 4


def test_so_it_is_when_all_but_threads_is_patched() -> None:
    done = run(sys.executable, "-c", textwrap.dedent(PATCHED))
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["4 domains", "4 domains", "refused in the hub", "closed"]


PATCHED = """
    import gevent.monkey; gevent.monkey.patch_all(thread=False)
    import gevent, gevent.event, eventbridge
    from tests.support.patience import PATIENCE
    with eventbridge.Bridge("gevent") as bridge:
        hv = eventbridge.open("sim:///default?domains=4&events=0", bridge)
        hv.opened.result(PATIENCE)
        def ask():
            print(len(hv.domains().result(PATIENCE)), "domains")
        gevent.joinall([gevent.spawn(ask), gevent.spawn(ask)], raise_error=True)
        ended = gevent.event.Event()
        def in_hub(call):
            try:
                hv.domains().result(PATIENCE)
            except eventbridge.HypervisorError:
                print("refused in the hub")
            ended.set()
        hv.domains().on_done(in_hub)
        ended.wait()
        hv.close().result(PATIENCE)
        print("closed")
    """
