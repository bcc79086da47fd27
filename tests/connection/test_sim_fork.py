"""A forked child finds its parent's connection refusing, with one clear error, and the parent notices nothing (D7)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.connection.sim_rig import HOSTS
from tests.support.command import ROOT, environment
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow

PROGRAM = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, on Python 3.12
import eventbridge
from eventbridge.adapters.hypervisors.sim.simulation import simulation_of
from tests.support.patience import PATIENCE

URI = "sim:///default?world=fork&events=0&domains=4"
simulation = simulation_of(URI)
simulation.do("start", "simulated-0")
bridge = eventbridge.Bridge(sys.argv[1])
hv = eventbridge.open(URI, bridge)
events = []
hv.subscribe(events.append)

def ok(call):
    assert bridge.run(until=lambda: call.done, timeout=PATIENCE), call
    return call.result()

def refused(call):
    assert call.done and isinstance(call.error, eventbridge.BridgeForked), (call, call.error)
    assert "make one of its own" in str(call.error), call.error
    told = []
    call.on_done(told.append)
    assert told == [call]

def child():
    for call in (hv.domains(), domain.info(), domain.suspend(), hv.create({"name": "a"}), hv.domain("nobody")):
        refused(call)
    for call in (domain.save("/a"), domain.managed_save(), hv.restore("/a"), domain.migrate(other)):
        refused(call)
    try:
        under_way.result(PATIENCE)
    except eventbridge.BridgeForked as error:
        assert "info of simulated-1" in str(error)
    else:
        raise AssertionError("it came")
    stream = hv.events()
    assert stream.take() is None and stream._ended
    assert domain.name == "simulated-0" and domain.state == "running"
    closed = hv.close()
    assert closed.done and closed.error is None
    mine = eventbridge.Bridge("select")
    again = eventbridge.open("sim:///default?events=0", mine)
    assert mine.run(until=lambda: again.opened.done, timeout=PATIENCE)
    assert len(again.known) == 10
    os._exit(7)

ok(hv.opened)
other = eventbridge.open("sim:///default?world=there&events=0", bridge)
ok(other.opened)
domain, hanging = ok(hv.domain("simulated-0")), ok(hv.domain("simulated-1"))
stream = hv.events()
simulation.freeze("simulated-1")
under_way = hanging.info()
assert bridge.run(until=lambda: simulation.hung, timeout=PATIENCE)
bridge.run(timeout=0.05)
passes = bridge.stats().passes
pid = os.fork()
if not pid:
    try:
        child()
    except BaseException:
        import traceback
        traceback.print_exc()
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
bridge.run(timeout=0.05)
assert events == [] and bridge.stats().passes - passes <= 2, "the child has woken the loop"
simulation.thaw()
assert ok(under_way).domain.name == "simulated-1"
ok(domain.suspend())
assert stream.take().kind == "suspended" and [event.sequence for event in events] == [1]
assert simulation.connections == 1
ok(hv.close())
ok(other.close())
assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)
bridge.close()
print("nothing was noticed")
"""


@pytest.mark.parametrize("host", HOSTS)
def test_a_childs_connection_refuses_and_the_parents_goes_on(host: str) -> None:
    command = [sys.executable, "-c", PROGRAM, host]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr, done.returncode) == ("nothing was noticed\n", "", 0)
