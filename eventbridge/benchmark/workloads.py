"""The workloads: what is measured, in which unit, and with which contenders.  `WORKLOADS` is the table."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import latency, libvirt_workloads, memory, throughput
from .hosts import HOSTS
from .rigs import Figures

Measure = Callable[..., Coroutine[Any, Any, Figures]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a workload.  ``less``: less of it is better.  One that is not ``shown`` is in the JSON only."""

    key: str
    title: str
    unit: str
    less: bool = False
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Workload:
    """``measure(rig, budget)`` gives a figure for each of ``metrics``.  ``before()`` is called before there is an
    event implementation."""

    measure: Measure
    metrics: tuple[Metric, ...]
    contenders: tuple[str, ...]
    before: Callable[[], None] | None = None

    @property
    def needs_libvirtd(self) -> bool:
        return self.before is libvirt_workloads.open_plain

    def metric(self, key: str) -> Metric:
        return next(metric for metric in self.metrics if metric.key == key)


def label(workload: str, metric: Metric) -> str:
    """A metric's short name: its workload's, and its key where that shows several."""
    several = sum(one.shown for one in WORKLOADS[workload].metrics) > 1
    return f"{workload} {metric.key}" if several else workload


_HOSTS = tuple(f"{what}@{host}" for host in HOSTS for what in ("bridge", "watch"))
_OURS = ("ours@asyncio", "ours@uvloop", "ours@libuv", "ours@select")
_LIBVIRTAIO = ("libvirtaio@asyncio", "libvirtaio@uvloop")
_DIRECT = ("direct@asyncio", "direct@uvloop", "direct@libuv", "direct@select")
_LIBVIRT = (*_OURS, *_LIBVIRTAIO, "libvirt-c")
_ALL = (*_LIBVIRT, *_DIRECT)
_LOOPS = (*_OURS[:2], *_LIBVIRTAIO, *_DIRECT[:2])


def _rates(title: str, unit: str = "callbacks") -> tuple[Metric, ...]:
    """All of these keep one processor busy: on an idle machine the two are the same, on another the second is still
    true."""
    return (
        Metric("per_cpu_second", title, f"{unit}/CPU s"),
        Metric("per_second", title, f"{unit}/s", shown=False),
    )


def _dispatch(active: int, idle: int = 0, *, alone: bool = False) -> Workload:
    title = f"{active:,} ready" + (f" among {idle:,} idle" if idle else "") + (", the core alone" if alone else "")
    return Workload(
        partial(throughput.dispatch, active=active, idle=idle),
        _rates(title),
        ("ours", "epoll") if alone else _ALL,
    )


def _on_hosts(active: int, idle: int = 0) -> Workload:
    return replace(_dispatch(active, idle), contenders=_HOSTS)


def _operations(subject: str, **titles: str) -> tuple[Metric, ...]:
    return tuple(Metric(key, f"{title} {subject}", "calls/CPU s") for key, title in titles.items())


def _lateness(title: str, unit: str) -> tuple[Metric, ...]:
    return tuple(Metric(key, f"{title}, {text}", unit, less=True) for key, text in _QUANTILES)


def _rpc(how: str, *, in_thread: bool) -> Workload:
    title = f"an RPC (getLibVersion) {how}, processor time"
    return Workload(
        partial(libvirt_workloads.rpc, in_thread=in_thread),
        (
            Metric("off", title, "us", less=True),
            Metric("times_off", f"{title}, relative", _TIMES, less=True),
            Metric("times_on", f"{title}, relative, keepalive on", _TIMES, less=True),
            Metric("on", f"{title}, keepalive on", "us", less=True, shown=False),
            Metric("none", f"{title}, no implementation", "us", less=True, shown=False),
        ),
        _LIBVIRT,
        before=libvirt_workloads.open_plain,
    )


HOST_WORKLOADS = {
    "host-1": "1 ready", "host-10": "10", "host-100": "100", "host-1000": "1000", "host-idle": "10 of 18,910"
}  # fmt: skip
"""Those that compare on every host loop; and what heads their column in a table of them."""
_TIMES = "x without any"
_QUANTILES = (("p50", "median"), ("p99", "99th percentile"))

WORKLOADS: dict[str, Workload] = {
    **{f"ready-{active}": _dispatch(active) for active in (1, 10, 100, 1000, 10_000)},
    "idle-5000": _dispatch(10, 5000),
    "idle-18000": _dispatch(10, 18_000),
    "handles": Workload(
        partial(throughput.handles, others=5000, count=2000),
        _operations(
            "with 5,000 other handles",
            add="add",
            update="change the mask",
            toggle="turn off and on (what an RPC does)",
            remove="remove",
        ),
        _ALL,
    ),
    "timers": Workload(
        partial(throughput.timers, count=10_000),
        _operations(
            "10,000 timeouts",
            add="add",
            update="update, some earlier, some later,",
            refresh="push later (what keepalive does)",
            remove="remove",
        ),
        _ALL,
    ),
    "burst": Workload(
        partial(latency.burst, count=1000, ms=50),
        (
            *_lateness("1,000 timeouts due together: late", "ms"),
            Metric("early", "of them early", "timeouts", less=True),
        ),
        _ALL,
    ),
    "wake": Workload(latency.wake, _lateness("another thread's timeout, the loop asleep: after", "us"), _LIBVIRT),
    "tick": Workload(
        partial(latency.tick, active=10_000), _lateness("the host's 1 ms timer, 10,000 ready: late", "ms"), _LOOPS
    ),
    "memory": Workload(
        partial(memory.memory, count=10_000),
        (Metric("handle", "a handle", "bytes", less=True), Metric("timeout", "a timeout", "bytes", less=True)),
        (*_LIBVIRT, "ours"),
    ),
    "events-2": Workload(
        partial(libvirt_workloads.domain_events, batch=2),
        _rates("domain events, test driver, batches of 2", unit="events"),
        _LIBVIRT,
    ),
    "events-100": Workload(
        partial(libvirt_workloads.domain_events, batch=100),
        _rates("domain events, test driver, batches of 100", unit="events"),
        _LIBVIRT,
    ),
    "rpc-loop": _rpc("made by the loop's thread", in_thread=False),
    "rpc-thread": _rpc("made by another thread, the loop asleep", in_thread=True),
    **{f"core-{active}": _dispatch(active, alone=True) for active in (1, 10, 100, 1000)},
    "host-1": Workload(
        throughput.wake,
        (*_rates("1 ready, every host"), Metric("wake", "a wake, every host", "us", less=True)),
        _HOSTS,
    ),
    **{f"host-{active}": _on_hosts(active) for active in (10, 100, 1000)},
    "host-idle": _on_hosts(10, 18_900),
}
