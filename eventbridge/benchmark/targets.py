"""What is wanted of eventbridge, to be printed beside what was measured.  `TARGETS` is the table.

Those against a rival are ratios to that rival's median, the others are in the metric's own unit.  On asyncio unless
said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """``bound`` is the least that is wanted, or the most of a metric of which less is better."""

    workload: str
    metric: str
    bound: float
    rival: str | None = None
    contender: str = "ours@asyncio"


_AIO, _C, _RATE = "libvirtaio@asyncio", "libvirt-c", "per_cpu_second"

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
)
