"""trio: domains, events and calls of a hypervisor as tasks have them, with trio's own timeouts and cancellation.

The hypervisor is simulated; any URI of yours does the same: qemu:///system, libxl:///, qmp+unix:///path.
"""

import sys

import trio

import eventbridge


async def report(events):
    async for event in events:
        if event.kind not in ("job_started", "job_ended"):
            print(event, flush=True)


async def main(uri):
    async with trio.open_nursery() as nursery, eventbridge.connect(uri) as hv:
        nursery.start_soon(report, hv.events())
        first, second = (await hv.domains())[:2]

        with trio.fail_after(5):  # a call is given up when its task is cancelled
            await first.start()
            await first.suspend()
        print(f"{first.name} is {(await first.info()).state}", flush=True)

        async with trio.open_nursery() as both:  # calls of two domains do not wait for each other
            both.start_soon(call, first.resume)
            both.start_soon(call, second.start)
        for domain in (first, second):
            await domain.destroy()
    print("closed")  # and whoever reads events has come to their end


async def call(operation):
    await operation()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:] or ["sim:///default?domains=2&events=0"])
