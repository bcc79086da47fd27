"""One measurement, in a process of its own:  ``python -m eventbridge.benchmark.worker WORKLOAD CONTENDER BUDGET``.

Prints one line of JSON: ``{"figures": {metric: value or null}}`` (null: it never came about), or
``{"left_out": reason}``.  Whatever goes wrong is a traceback on standard error, and exit code 1."""

from __future__ import annotations

import json
import os
import signal
import sys

from .contenders import CONTENDERS
from .eventfds import Unfit, raise_limit
from .workloads import WORKLOADS


def measure(workload: str, contender: str, budget: float) -> dict[str, object]:
    """The line that is printed."""
    raise_limit()
    try:
        chosen = WORKLOADS[workload]
        if chosen.before is not None:
            chosen.before()
        return {"figures": CONTENDERS[contender].make().run(lambda rig: chosen.measure(rig, budget))}
    except Unfit as reason:
        return {"left_out": str(reason)}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who started it tells what an interrupt means
    workload, contender, budget = sys.argv[1:]
    print(json.dumps(measure(workload, contender, float(budget))), flush=True)
    os._exit(0)  # with thousands of handles registered, taking them down takes longer than what was measured


if __name__ == "__main__":
    main()
