"""libvirt at work: domain events of its test driver, and the processor time of a call to a libvirtd.

In a worker's process; the loop is on its main thread.  ``budget`` is in seconds, for the part that is measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from statistics import median
from time import perf_counter, process_time
from typing import Any

from .eventfds import Unfit, settle
from .latency import meanwhile
from .rigs import Figures, Rig

LIBVIRTD_URI = "EVENTBRIDGE_BENCH_LIBVIRTD"
"""The environment variable that tells a worker its libvirtd's URI."""
SLICE, WARM_UP = 50, 2
"""Calls a slice; slices."""

_plain: list[Any] = []


async def domain_events(rig: Rig, budget: float, *, batch: int) -> Figures:
    """Domain events a second: suspend and resume a domain of test:///default until there are ``batch`` events, let
    the loop deliver them, and so on.  The domain's own work is in it."""
    libvirt: Any = import_module("libvirt")
    connection = libvirt.open("test:///default")
    domain = connection.lookupByName("test")
    delivered, expected, all_there = 0, 0, rig.signal()

    def event(*_: object) -> None:
        nonlocal delivered
        delivered += 1
        if delivered == expected:
            all_there.set()

    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, None)
    before, since, used = 0, perf_counter(), process_time()
    warm, until = since + budget / 3, since + budget * 4 / 3
    while (now := perf_counter()) < until:
        if not before and now > warm:
            before, since, used = delivered, now, process_time()
        expected += batch
        for _ in range(batch // 2):
            domain.suspend()
            domain.resume()
        await all_there.wait()
        all_there.clear()
    events, seconds = delivered - before, perf_counter() - since
    return {"per_second": events / seconds, "per_cpu_second": events / (process_time() - used)}


def open_plain() -> None:
    """Before there is an event implementation: a connection that does without one for its life."""
    _plain.append(_open())


def _open(keepalive: bool = False) -> Any:
    libvirt: Any = import_module("libvirt")
    uri = os.environ.get(LIBVIRTD_URI)
    if not uri:
        raise Unfit(f"{LIBVIRTD_URI} names no libvirtd")
    connection = libvirt.open(uri)
    if keepalive:
        connection.setKeepAlive(5, 5)
    return connection


async def rpc(rig: Rig, budget: float, *, in_thread: bool) -> Figures:
    """Processor time (user and system, all threads) of this process a call of ``getLibVersion`` to a libvirtd over
    its unix socket: made by the loop's thread itself, or by another while the loop sleeps.

    The same call on a connection without events, on one with, and on one with keepalive, a slice of each in turn:
    where the kernel puts the two processes makes a factor of two, and the slices next to each other have it alike."""
    calls = [connection.getLibVersion for connection in (*_plain, _open(), _open(keepalive=True))]
    slices: list[list[float]] = []

    until = perf_counter() + 2 * budget

    def one_of_each() -> bool:
        slices.append([_cpu_a_call(call) for call in calls])
        return len(slices) <= WARM_UP or perf_counter() < until

    def all_slices() -> None:
        while one_of_each():
            pass

    if in_thread:
        await meanwhile(rig, all_slices)
    else:
        while one_of_each():
            await settle(rig)
    del slices[:WARM_UP]
    none, off, on = (median(column) for column in zip(*slices, strict=True))
    return {
        "none": none,
        "off": off,
        "on": on,
        "times_off": median(one[1] / one[0] for one in slices),
        "times_on": median(one[2] / one[0] for one in slices),
    }


def _cpu_a_call(call: Callable[[], object]) -> float:
    """Microseconds of processor time, over one slice."""
    used = process_time()
    for _ in range(SLICE):
        call()
    return 1e6 * (process_time() - used) / SLICE
