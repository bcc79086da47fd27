"""Over many lives of domains on one context nothing is left: all that is made is freed, once, and memory stays."""

from __future__ import annotations

import collections
import ctypes
import gc
import itertools
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest

from eventbridge import Bridge
from tests.support.descriptors import open_fds
from tests.support.libxl_rig import PATIENCE, Rig
from tests.support.wanted import program
from tests.support.xen.standin import CRASH, XenStandIn

LIVES, ROUND = 1000, 50
SLACK = 32 * 1000 - 1
"""Bytes that may be in use after the lives and were not before: malloc gives at least 32, so a piece a life is more."""
POOLS = 2
"""What libxl itself never frees of a ctx: the notes that it has handed out as for_libxl and got back, of fds and of
timeouts, each kind's on one list (hook_fd_nexi_idle, hook_timeout_nexi_idle of 4.17).  What we keep is on neither."""
SCRIPT = Path(__file__).with_name("libxl_lives_script.py")


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 (malloc.h)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def allocated() -> int:
    """Bytes that malloc has given out and not got back, in all of its arenas."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _MallInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def live_through(xen: XenStandIn, rig: Rig, domids: list[int]) -> None:
    """They are created, followed, paused and gone on; they crash, and die."""
    generators = rig.context.generators
    xen.create_many(domids)
    followed = {domid: generators.of_death(domid) for domid in domids}
    operations = [operation(domid) for domid in domids for operation in (rig.context.pause, rig.context.unpause)]
    xen.shutdown(*domids, reason=CRASH)
    rig.wait_for(lambda: len(rig.events) == len(domids))
    xen.die(*domids)
    rig.wait_for(lambda: len(rig.events) == 2 * len(domids))
    for generator in followed.values():
        generators.disable(generator)
    assert all(operation.code == 0 for operation in operations)
    assert sorted(rig.told()) == sorted(
        (kind, domid) for domid in domids for kind in ("DOMAIN_DEATH", "DOMAIN_SHUTDOWN")
    )


def with_a_nic(xen: XenStandIn, rig: Rig, domid: int, abort: bool) -> None:
    """One more whose network interface is removed, which needs fds, timeouts and a child; or that is aborted."""
    xen.create(domid)
    xen.nic(domid)
    operation = rig.nic_remove(domid)
    if abort:
        operation.abort()
    else:
        xen.nic_gone(domid)
    rig.wait_for(lambda: operation.done)
    xen.die(domid)


class Counts:
    """What the spy has seen, summed up, so that what it remembers does not grow."""

    def __init__(self) -> None:
        self.calls: collections.Counter[Any] = collections.Counter()
        self.hooks: collections.Counter[str] = collections.Counter()

    def take(self, rig: Rig) -> None:
        trace = rig.spy.trace
        self.calls.update(entry[0] for entry in trace)
        rig.events.clear()
        rig._kept.clear()
        trace.clear()


class Growth:
    """What is kept of each of some stretches of equal length.

    A leak grows in each.  What malloc keeps for a thread that may want it soon (the tcache, up to seven pieces of each
    size, which count as given out) grows in one: when that thread first frees as many.
    """

    def __init__(self) -> None:
        self._marks: list[int] = []

    def mark(self) -> None:
        """A stretch ends here, and the next begins."""
        self._marks.append(allocated())

    @property
    def bytes(self) -> int:
        """Of the stretch that has kept least."""
        return min(after - before for before, after in itertools.pairwise(self._marks))


def test_a_thousand_lives_free_everything_once_and_keep_no_memory(xen: XenStandIn, rig: Rig) -> None:
    """xen.md 1.4, 1.14: hooks, generators, events and operations."""
    counts, context, growth = Counts(), rig.context, Growth()
    domids = list(range(1, ROUND))
    fds = 0
    registered = rig.registered()
    rounds = LIVES // ROUND + 4
    for round in range(rounds):
        if round == 4:  # what is kept for good is there by now
            fds = len(open_fds())
        if round in (4, rounds // 2 + 2):
            growth.mark()
        live_through(xen, rig, domids)
        with_a_nic(xen, rig, ROUND, abort=bool(round % 2))
        rig.wait_for(lambda: not context._hooks._timeouts)
        counts.take(rig)
    growth.mark()
    assert growth.bytes < SLACK // 2, f"{growth.bytes} bytes"
    assert len(open_fds()) == fds
    assert rig.registered() == registered
    assert not context._operations._under_way and not context._operations._untold and not context.generators._enabled
    calls = counts.calls
    assert calls["evenable_domain_death"] == calls["evdisable_domain_death"] == rounds * len(domids)
    assert calls["event_occurs"] == calls["event_free done"] == 2 * calls["evenable_domain_death"]
    assert calls["timeout_register"] == calls["osevent_occurred_timeout done"] > 0
    assert calls["fd_register"] - calls["fd_deregister"] == 1, "the children's pipe"


def test_a_context_leaves_nothing_when_it_is_closed(xen: XenStandIn, bridge: Bridge) -> None:
    """Neither fds nor threads, and no memory, over a hundred of them."""
    fds = threads = 0
    growth = Growth()
    for round in range(120):
        if round == 20:
            fds, threads = len(open_fds()), threading.active_count()
        if round in (20, 70):
            growth.mark()
        rig = Rig(bridge)
        rig.context.generators.of_death(99)
        rig.wait_for(lambda rig=rig: bool(rig.events))  # type: ignore[misc]  # bound now
        rig.close()
        rig.wait_for(bridge.is_empty)
        del rig
    for thread in threading.enumerate():
        if thread.name.startswith("libxl"):  # it has freed the last ctx, which ends what is registered, and returns
            thread.join(PATIENCE)
    growth.mark()
    assert len(open_fds()) == fds
    assert threading.active_count() <= threads
    assert growth.bytes < SLACK // 2, f"{growth.bytes} bytes"


@pytest.mark.timeout(180)
def test_valgrind_finds_no_leak_and_no_misuse_of_libxls_memory(xen: XenStandIn, tmp_path: Path) -> None:
    """What libxl has allocated and nobody knows of any more, what it reads after it was freed, what is freed twice."""
    valgrind = program("valgrind", "valgrind")
    report = tmp_path / "valgrind.xml"
    options = "--leak-check=full --show-leak-kinds=definite --num-callers=40 --child-silent-after-fork=yes --xml=yes"
    done = subprocess.run(
        [valgrind, *options.split(), f"--xml-file={report}", sys.executable, SCRIPT],
        env={**os.environ, "PYTHONMALLOC": "malloc", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert (done.returncode, done.stdout) == (0, "lived\n"), done.stderr
    found = [error for error in xml.parse(report).iter("error") if _is_libxls(error)]
    leaks = [error for error in found if (error.findtext("kind") or "").startswith("Leak_")]
    assert [_told(error) for error in found if error not in leaks] == []
    lost = sum(int(error.findtext("xwhat/leakedblocks") or 0) for error in leaks)
    assert lost <= POOLS, "\n".join(map(_told, leaks))


def _is_libxls(error: xml.Element) -> bool:
    return any("libxenlight" in (frame.findtext("obj") or "") for frame in error.iter("frame"))


def _told(error: xml.Element) -> str:
    what = error.findtext("what") or error.findtext("xwhat/text")
    return "\n  ".join([str(what), *(frame.findtext("fn") or "?" for frame in error.iter("frame"))])
