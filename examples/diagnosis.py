"""How does the daemon fare?  Its figures, its slow callbacks, how late its loop is, and a trace of it all.

From outside, while it runs: EVENTBRIDGE_DIAGNOSIS=/run/daemon.sock daemon, and eventbridge trace /run/daemon.sock
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path

import eventbridge

URI = "sim:///default?domains=10&seed=1&rate=100"


def sleepy(id, opaque):
    """A callback as it should not be: everybody waits for it."""
    bridge, called = opaque
    time.sleep(0.6)
    bridge.remove_timeout(id)
    called.set()


def on_slow(slow):
    """On the loop's thread; or, while the callback blocks still, on one that watches."""
    if not slow.blocks:
        print(f"slow: a {slow.origin.kind} of {slow.origin.owner}, {slow.origin.callback}")


async def main():
    called = asyncio.Event()
    with eventbridge.attach() as bridge:
        with (
            bridge.report_slow(0.5, on_slow),  # stack=True: with what it is at
            bridge.diagnose(0.005) as pulse,
            bridge.trace() as trace,
        ):
            async with eventbridge.open(URI, bridge) as hv:
                domain = await hv.domain("simulated-3")
                print("it is", "known:", (await domain.info()).domain.name)
                bridge.add_timeout(1, sleepy, (bridge, called))
                await called.wait()
                await asyncio.sleep(0.05)
                stats = bridge.stats()
        print("whose they are:", ", ".join(stats.owners))
        print("the slowest was", stats.slowest_of.callback, "of", stats.slowest_of.owner)
        print("the loop was late by 0.5 s or more:", pulse.lag().most >= 0.5)
        with tempfile.TemporaryDirectory() as directory:
            trace.write(Path(directory, "trace.json"))  # open it at https://ui.perfetto.dev
            events = json.loads(Path(directory, "trace.json").read_text())["traceEvents"]
        kinds = {event["cat"].partition(",")[0] for event in events if "cat" in event}
        print("traced:", *sorted(kinds & {"pass", "callback", "host", "call", "job", "connection"}))


asyncio.run(main())
