"""The hosts' table: a row a host loop, a column a workload: a bridge's rate against that of the loop's own watches.

Beside them what one wake costs on either side, and how much more it is with a bridge.  Pure: text out of `Results`."""

from __future__ import annotations

from .cells import align, number, ratio
from .hosts import HOSTS
from .results import Results
from .workloads import HOST_WORKLOADS

RATE, WAKE = "per_cpu_second", "wake"


def block(results: Results) -> list[str]:
    """Empty where no host was measured."""
    columns = {name: title for name, title in HOST_WORKLOADS.items() if results.contenders(name, RATE)}
    if not columns:
        return []
    rows = [["", *columns.values(), "a wake, us", "its own", "more"]]
    for host in HOSTS:
        bridge, watch = f"bridge@{host}", f"watch@{host}"
        ratios = [results.ratio(name, RATE, bridge, watch) for name in columns]
        wakes = [results.median("host-1", WAKE, side) for side in (bridge, watch)]
        if any(one is not None for one in (*ratios, *wakes)):
            more = results.more("host-1", WAKE, bridge, watch)
            rows.append([host, *map(ratio, ratios), *map(number, (*wakes, more))])
    title = "every host, eventbridge's own API: callbacks/CPU s against a watch of the loop's own for each fd"
    return ["", title, *(f"  {line}" for line in align(rows))]
