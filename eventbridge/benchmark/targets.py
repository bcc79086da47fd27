"""What is wanted of eventbridge, to be printed beside what was measured.  `TARGETS` is the table.

Those against a rival are ratios to that rival's median, or what it may be more than that; the others are in the
metric's own unit.  On asyncio unless said."""

from __future__ import annotations

from dataclasses import dataclass

from .hosts import HOSTS


@dataclass(frozen=True, slots=True)
class Target:
    """``bound`` is the least that is wanted, or the most of a metric of which less is better.  ``more``: it bounds the
    difference to ``rival``, in the metric's unit."""

    workload: str
    metric: str
    bound: float
    rival: str | None = None
    contender: str = "ours@asyncio"
    more: bool = False


_AIO, _C, _RATE = "libvirtaio@asyncio", "libvirt-c", "per_cpu_second"

_MANY = {
    "asyncio": 3, "tornado": 3, "trio": 17, "glib": 5, "twisted": 8, "qt": 5, "uvloop": 0.9, "libuv": 0.9, "gevent": 0.9
}  # fmt: skip
_HOST_AIMS: dict[str, dict[str, float]] = {
    "1": {"asyncio": 0.7},
    "10": {"asyncio": 1.7},
    "100": _MANY,
    "1000": _MANY,
    "idle": {"glib": 1141, "qt": 634},
}
"""By the workload, then the host: how many times the rate of the loop's own watches."""


def _of_host(workload: str, metric: str, host: str, bound: float, *, more: bool = False) -> Target:
    return Target(workload, metric, bound, f"watch@{host}", f"bridge@{host}", more)


TARGETS = (
    Target("ready-10", _RATE, 1.4, _AIO),
    Target("ready-100", _RATE, 1.7, _AIO),
    Target("ready-1000", _RATE, 1.7, _AIO),
    Target("ready-10000", _RATE, 1.7, _AIO),
    Target("handles", "toggle", 4, _AIO),
    Target("handles", "remove", 4, _AIO),
    Target("handles", "add", 3.5, _AIO),
    Target("ready-10", _RATE, 0.8, _C),
    Target("ready-10", _RATE, 1.0, _C, "ours@uvloop"),
    Target("ready-100", _RATE, 1.2, _C),
    Target("ready-1000", _RATE, 2.9, _C),
    Target("idle-5000", _RATE, 50, _C),
    Target("timers", "update", 3, _C),
    Target("timers", "refresh", 3, _C),
    Target("events-100", _RATE, 0.95, _C),
    Target("events-2", _RATE, 0.6, _C),
    Target("events-2", _RATE, 0.75, _C, "ours@uvloop"),
    Target("core-100", _RATE, 0.7, "epoll", "ours"),
    Target("rpc-loop", "times_off", 1.10),
    Target("rpc-loop", "times_on", 1.15),
    Target("rpc-thread", "times_off", 1.10),
    Target("rpc-thread", "times_on", 1.15),
    Target("burst", "early", 0),
    Target("burst", "p99", 1),
    Target("wake", "p50", 100),
    Target("memory", "handle", 350, None, "ours"),
    Target("tick", "p99", 1),
    *(_of_host("host-1", "wake", host, 1.3, more=True) for host in HOSTS),
    *(_of_host(f"host-{ready}", _RATE, *aim) for ready, aims in _HOST_AIMS.items() for aim in aims.items()),
)
