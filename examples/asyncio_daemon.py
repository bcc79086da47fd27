"""A daemon on asyncio: libvirt served by the loop that it runs on anyway, and a clean end.

It watches libvirt's own test driver and, to have something to see, pauses that driver's domain and lets it go on.
Stop it with Ctrl-C or SIGTERM, or have it stop itself: python examples/asyncio_daemon.py --for 60
"""

import argparse
import asyncio
import signal

import libvirt

import eventbridge
from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt

LIFECYCLE = "defined undefined started suspended resumed stopped shutdown pmsuspended crashed".split()


def on_lifecycle(connection, domain, event, detail, opaque):
    print(f"{domain.name()} {LIFECYCLE[event]}", flush=True)


async def main(seconds):
    bridge = eventbridge.attach()  # to the loop that is running here
    bridged_libvirt.install(bridge)  # before any connection is opened
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    # libvirt's calls block until they are answered, so they are made on threads; its events come to this loop.
    connection = await asyncio.to_thread(libvirt.open, "test:///default")
    lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
    registered = connection.domainEventRegisterAny(None, lifecycle, on_lifecycle, None)
    domain = await asyncio.to_thread(connection.lookupByName, "test")
    await asyncio.to_thread(domain.suspend)
    await asyncio.to_thread(domain.resume)

    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        print(f"{seconds:g} s are over", flush=True)

    await asyncio.to_thread(connection.domainEventDeregisterAny, registered)
    await asyncio.to_thread(connection.close)
    del domain, connection  # a connection ends with the last object of it
    print("drained" if await bridge.drain(timeout=5) else "libvirt left something behind", flush=True)
    bridge.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Watch libvirt's test driver from an asyncio daemon.")
    parser.add_argument("--for", dest="seconds", type=float, default=1.0, help="stop after so long (%(default)s)")
    asyncio.run(main(parser.parse_args().seconds))
