"""A daemon's figures, and what its threads are at, as text for a person."""

from __future__ import annotations

import time
from typing import Any

from . import terminal


def stats_text(answer: dict[str, Any]) -> str:
    """What `server` answers to "stats"."""
    bridges = answer["bridges"]
    head = f"process {answer['process']}: {terminal.plural(len(bridges), 'bridge')}"
    return "\n".join([head, *(line for bridge in bridges for line in _bridge(bridge))])


def _bridge(stats: dict[str, Any]) -> list[str]:
    owners = [f"{owner} {of['handles']} + {of['timeouts']}" for owner, of in stats["owners"].items()]
    lag, callback = stats["host_lag"], stats["callback"]
    rows = {
        "handles + timeouts": f"{stats['handles']} + {stats['timeouts']}: {', '.join(owners) or 'none'}",
        "passes": f"{stats['passes']}",
        "callbacks": f"{stats['callbacks']}, {terminal.plural(stats['errors'], 'error')}",
        "slowest": f"{_ms(stats['slowest'])}: {_origin(stats['slowest_of'])}" if stats["slowest"] else "all were quick",
        "timeouts late by": f"{_ms(stats['lag'])} at most, {_ms(stats['lag_lately'])} the last",
        "host late by": f"{_ms(lag['p50'])} p50, {_ms(lag['p99'])} p99, {_ms(lag['most'])} at most, of {lag['calls']}"
        if lag["calls"]
        else "not measured now",
        "moves, rebuilds": f"{stats['moves']}, {stats['rebuilds']}",
        "frees owed": f"{stats['frees_owed']}",
        "now in": _now(callback),
    }
    width = max(map(len, rows))
    return [
        f"on {stats['host']}",
        *(f"  {name.ljust(width)}  {terminal.printable(text)}" for name, text in rows.items()),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"


def _origin(origin: dict[str, Any]) -> str:
    if not origin["kind"]:
        return str(origin["callback"])
    fd = "" if origin["fd"] is None else f" on fd {origin['fd']}"
    return f"{origin['kind']} {origin['id']}{fd} of {origin['owner']} ({origin['callback']})"


def _now(callback: dict[str, Any] | None) -> str:
    if callback is None:
        return "no callback"
    since = callback["since"]
    return str(callback["origin"]) + (f", since {time.monotonic() - since:.3f} s" if since else "")


def stacks_text(answer: dict[str, Any]) -> str:
    """What `server` answers to "stacks"."""
    lines = [f"process {answer['process']}"]
    lines += [f"now in {_now(callback)}" for callback in answer["callbacks"]]
    for thread in answer["threads"]:
        lines.append(f"thread {terminal.printable(thread['name'])}{', which runs a loop' if thread['is_loop'] else ''}")
        lines.append(thread["stack"].rstrip())
    return "\n".join(lines)
