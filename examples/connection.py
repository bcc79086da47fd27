"""A hypervisor, from a task: what happens there, calls that keep nobody waiting, and a save with its progress.

Of the simulated one, which needs nothing; or of yours, and of a domain of yours that is off, which is started, saved,
restored and destroyed: python examples/connection.py qemu:///system web-1 /var/tmp/web-1.save
"""

import argparse
import asyncio

import eventbridge


async def tell(events):
    async for event in events:  # until the connection is closed
        print(f"event: {event}", flush=True)


async def show(domain, path):
    await domain.start()
    print(f"it is {(await domain.info()).state}", flush=True)
    async with domain.save(path) as job:
        moved = [progress.processed async for progress in job]
        print(f"{moved[-1] >> 20} MiB saved" if moved else "saved before anything was told", flush=True)
    await domain.connection.restore(path)
    try:
        async with domain.save(path) as job:
            print(f"meanwhile it is {(await domain.info()).state}", flush=True)
            raise TimeoutError("we are in a hurry")
    except TimeoutError as error:  # it was aborted on the way here, and goes on
        print(f"{error}: {job.error is not None and type(job.error).__name__}", flush=True)
    await domain.destroy()


async def main(uri, name, path):
    async with eventbridge.connect(uri) as hv:
        telling = asyncio.create_task(tell(hv.events()))
        print(f"{len(await hv.domains())} domains", flush=True)
        await show(await hv.domain(name), path)
    await telling


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start, save, restore and destroy a domain.")
    parser.add_argument("uri", nargs="?", default="sim:///default?events=0", help="the hypervisor (%(default)s)")
    parser.add_argument("domain", nargs="?", default="simulated-0", help="its name or UUID (%(default)s)")
    parser.add_argument("path", nargs="?", default="/var/tmp/eventbridge-example.save", help="a file on its host")
    given = parser.parse_args()
    asyncio.run(main(given.uri, given.domain, given.path))
