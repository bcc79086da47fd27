"""A program written for libvirt-python's libvirtaio, with one line changed: where the module comes from.

Run twice in one process, each time on a loop of its own, which the original cannot do.
"""

import asyncio

import libvirt

from eventbridge.adapters.hypervisors import libvirtaio  # was: import libvirtaio

LIFECYCLE = "defined undefined started suspended resumed stopped shutdown pmsuspended crashed".split()


async def main():
    implementation = libvirtaio.virEventRegisterAsyncIOImpl()
    connection = libvirt.open("test:///default")
    seen = asyncio.Queue()

    def on_lifecycle(connection, domain, event, detail, opaque):
        seen.put_nowait(f"{domain.name()} {LIFECYCLE[event]}")

    lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
    registered = connection.domainEventRegisterAny(None, lifecycle, on_lifecycle, None)
    domain = connection.lookupByName("test")
    domain.suspend()
    domain.resume()
    for _ in range(2):
        print(await asyncio.wait_for(seen.get(), 2), flush=True)

    connection.domainEventDeregisterAny(registered)
    connection.close()
    del domain, connection
    await implementation.drain()
    print("idle" if implementation.is_idle() else "not idle", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    asyncio.run(main())
