"""A loop of your own over the standard library's `selectors`, with libvirt on it.

The loop is yours: you select, and call what is registered as `selectors`' own documentation does, ``key.data``.
"""

import selectors
import socket
import threading
import time

import libvirt

import eventbridge
from eventbridge.adapters.hosts.select import SelectHost
from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt

LIFECYCLE = "defined undefined started suspended resumed stopped shutdown pmsuspended crashed".split()


def on_lifecycle(connection, domain, event, detail, opaque):
    print(f"{domain.name()} {LIFECYCLE[event]}", flush=True)


def on_message(reader, mask):
    print(f"message of your own: {reader.recv(100).decode()}", flush=True)


def stir(domain, writer):
    """Another thread's doing: something for libvirt to tell, and something of your own."""
    domain.suspend()
    domain.resume()
    writer.send(b"hello")


def main(seconds=1.0):
    selector = selectors.DefaultSelector()
    bridge = eventbridge.Bridge(SelectHost(selector))
    bridged_libvirt.install(bridge)
    connection = libvirt.open("test:///default")
    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None)
    reader, writer = socket.socketpair()
    with reader, writer:
        selector.register(reader, selectors.EVENT_READ, on_message)
        threading.Thread(target=stir, args=(connection.lookupByName("test"), writer)).start()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, mask in selector.select(left):
                key.data(key.fileobj, mask)
        selector.unregister(reader)
    connection.close()
    bridge.close()
    print(f"left in your selector: {len(selector.get_map())}", flush=True)


if __name__ == "__main__":
    main()
