"""The order of the measurements: round by round, and within a round every contender of a workload one after the other.

So whatever else the machine does meets all contenders alike; every second round goes the other way, so that none is
always the one after the slowest.  Each measurement is a worker's process, given to `interleave` as a function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .contenders import CONTENDERS
from .libvirt_workloads import LIBVIRTD_URI
from .results import Results
from .workloads import WORKLOADS

Cell = tuple[str, str]
"""A workload's name and a contender's."""
Launch = Callable[[str, str, float], dict[str, Any]]
"""``launch(workload, contender, budget)``: what `worker.measure` gives, or ``{"failed": reason}``."""
WORKER_WITHIN = 60.0
"""Seconds after which a worker is ended: the slowest, libvirt's loop with 18,000 fds, takes 3."""


def plan(workloads: Iterable[str], contenders: Iterable[str], results: Results) -> list[Cell]:
    """The cells to measure; what cannot be measured here is noted in ``results`` as left out, with the reason."""
    wanted, missing = set(contenders), {name: one.missing() for name, one in CONTENDERS.items()}
    cells: list[Cell] = []
    for workload in workloads:
        for contender in WORKLOADS[workload].contenders:
            if contender not in wanted:
                continue
            reason = missing[contender]
            if reason is None:
                cells.append((workload, contender))
            else:
                results.left_out[contender] = reason
    return cells


def interleave(
    cells: list[Cell],
    rounds: int,
    budget: float,
    launch: Launch,
    results: Results,
    progress: Callable[[int, int, int, Cell], None],
) -> None:
    """Measure every cell ``rounds`` times; ``progress(done, of, round, cell)`` is told before each.  An interrupt
    (Ctrl-C) ends it with what there is so far."""
    todo, done = list(cells), 0
    try:
        for round in range(rounds):
            for cell in todo if round % 2 == 0 else list(reversed(todo)):
                progress(done, rounds * len(todo), round, cell)
                found = launch(*cell, budget)
                done += 1
                if "figures" in found:
                    results.add(*cell, round, found["figures"])
                else:
                    results.left_out[" ".join(cell)] = found.get("left_out") or f"failed: {found.get('failed')}"
            todo = [cell for cell in todo if " ".join(cell) not in results.left_out]
            results.rounds = round + 1
    except KeyboardInterrupt:
        results.interrupted = True


def launch_worker(workload: str, contender: str, budget: float, libvirtd: str | None = None) -> dict[str, Any]:
    """One measurement in a process of its own; whatever goes wrong with it is ``{"failed": reason}``."""
    environment = os.environ if libvirtd is None else {**os.environ, LIBVIRTD_URI: libvirtd}
    command = [sys.executable, "-m", f"{__package__}.worker", workload, contender, str(budget)]
    try:
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=WORKER_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within {WORKER_WITHIN:g} s"}
    try:
        found: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        return {"failed": said[-1] if said else f"exit code {ended.returncode}, and not a word"}
    return found
