"""What a connection costs above its driver, and above none:  ``python -m tests.measurements.connection_bench``.

On the simulated hypervisor, whose story is the same each time.  Events: counted by the driver's own subscription, by a
connection's subscriber, and by a task that iterates its stream; CPU an event, so that the story's own rate does not
count.  Calls: `info` of a hundred domains in turn, awaited one at a time, beside the driver's session asked directly.
Contenders take turns within a round, each in a process of its own; figures are medians of the rounds, ratios medians
of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import eventbridge
from eventbridge import Bridge
from eventbridge.hypervisor import lookup
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.hypervisor.request import Request
from tests.support.command import ROOT

ROUNDS = 5
EVENTS = 40_000
CALLS = 5_000
STORY = f"sim:///default?domains={{domains}}&rate=50000&events={EVENTS}"
QUIET = "sim:///default?domains=100&events=0"


def _cpu() -> float:
    return time.process_time()


# -- contenders: each returns its figures


def driver_events(domains: int) -> dict[str, float]:
    count = 0

    def told(event: DomainEvent) -> None:
        nonlocal count
        count += 1

    uri = STORY.format(domains=domains)
    with Bridge("asyncio") as bridge:
        began = _cpu()
        session = lookup.find(uri).subscribe(uri, bridge, told)
        bridge.run(until=lambda: count >= EVENTS)
        used = _cpu() - began
        session.close()
    return {"us": used / EVENTS * 1e6}


def connection_events(domains: int) -> dict[str, float]:
    count = 0

    def told(event: DomainEvent) -> None:
        nonlocal count
        count += 1

    with Bridge("asyncio") as bridge:
        began = _cpu()
        connection = eventbridge.open(STORY.format(domains=domains), bridge)
        connection.subscribe(told)
        bridge.run(until=lambda: count >= EVENTS)
        used = _cpu() - began
        closed = connection.close()
        bridge.run(until=lambda: closed.done)
    return {"us": used / EVENTS * 1e6}


def stream_events(domains: int) -> dict[str, float]:
    async def main() -> float:
        began = _cpu()
        connection = eventbridge.connect(STORY.format(domains=domains))
        stream = connection.events()
        async with connection:
            async for event in stream:
                if event.sequence >= EVENTS:
                    break
            return _cpu() - began

    return {"us": asyncio.run(main()) / EVENTS * 1e6}


class _Direct:
    """A `request.Reply` that wakes a task."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        self.future.set_result(value)

    def progressed(self, request: Request, progress: object) -> None: ...


def driver_calls(domains: int) -> dict[str, float]:
    async def main() -> float:
        with eventbridge.attach() as bridge:
            session = lookup.find(QUIET).subscribe(QUIET, bridge, lambda event: None)
            listed = _Direct()
            session.begin(Request("list", None, {}, listed))
            refs = [info.domain for info in await listed.future]
            began = time.perf_counter()
            for number in range(CALLS):
                reply = _Direct()
                session.begin(Request("info", refs[number % len(refs)], {}, reply))
                await reply.future
            took = time.perf_counter() - began
            session.close()
            return took

    return {"us": asyncio.run(main()) / CALLS * 1e6}


def connection_calls(domains: int) -> dict[str, float]:
    async def main() -> float:
        async with eventbridge.connect(QUIET) as hv:
            each = await hv.domains()
            began = time.perf_counter()
            for number in range(CALLS):
                await each[number % len(each)].info()
            return time.perf_counter() - began

    return {"us": asyncio.run(main()) / CALLS * 1e6}


def memory(domains: int) -> dict[str, float]:
    """Bytes that a domain adds, the simulation's own included."""

    async def main() -> float:
        async with eventbridge.connect("sim:///default?domains=10&events=0"):
            before = _resident()
            async with eventbridge.connect(f"sim:///default?domains={domains}&events=0") as hv:
                assert len(hv.known) == domains
                return _resident() - before

    return {"bytes": asyncio.run(main()) / domains}


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


CONTENDERS: dict[str, Callable[[int], dict[str, float]]] = {
    "events: the driver's subscription": driver_events,
    "events: a connection's subscriber": connection_events,
    "events: a task on its stream": stream_events,
    "calls: the driver's session": driver_calls,
    "calls: a connection": connection_calls,
    "memory a domain": memory,
}
BASES = {"events": "events: the driver's subscription", "calls": "calls: the driver's session"}


def _in_a_process(name: str, domains: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--only", name, "--domains", str(domains)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, default=1000, help="simulated ones, for the events (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=CONTENDERS, help="one contender, once, as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(CONTENDERS[args.only](args.domains)))
        return
    rounds = []
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        names = list(CONTENDERS) if number % 2 else list(CONTENDERS)[::-1]
        rounds.append({name: _in_a_process(name, args.domains) for name in names})
    for name in CONTENDERS:
        for unit in rounds[0][name]:
            values = [figures[name][unit] for figures in rounds]
            base = BASES.get(name.partition(":")[0])
            ratio = (
                "" if base is None else f"{median(f[name][unit] / f[base][unit] for f in rounds):6.2f} of the driver"
            )
            print(f"{name:36} {median(values):9.1f} {unit:6} {ratio}")


if __name__ == "__main__":
    main()
