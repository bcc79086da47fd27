"""Your own socket beside libvirt's on one bridge: a little control port.

Whoever connects sends "suspend" or "resume"; libvirt's event of it goes back.  Both arrive through one dispatcher.
"""

import socket
import threading

import libvirt

from eventbridge import Bridge, Events
from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt

LIFECYCLE = "defined undefined started suspended resumed stopped shutdown pmsuspended crashed".split()
ORDERS = {"suspend": libvirt.virDomain.suspend, "resume": libvirt.virDomain.resume}


def client(address):
    """Somebody else; here a thread."""
    with socket.create_connection(address) as control, control.makefile("rw") as lines:
        for order in ("suspend", "resume"):
            print(order, file=lines, flush=True)
            print(f"{order}: {lines.readline().strip()}", flush=True)


def main(seconds=2.0):
    bridge = Bridge("select")
    bridged_libvirt.install(bridge)
    connection = libvirt.open("test:///default")
    domain = connection.lookupByName("test")
    server = socket.create_server(("127.0.0.1", 0))
    clients = []

    def on_client(id, fd, events, opaque):
        control, _ = server.accept()
        clients.append(control)
        bridge.add_handle(control, Events.READABLE, on_order, control)

    def on_order(id, fd, events, control):
        order = control.recv(100).decode().strip()
        if order:
            ORDERS[order](domain)
        else:  # it has hung up
            bridge.remove_handle(id)
            control.close()

    def on_lifecycle(connection, domain, event, detail, opaque):
        clients[-1].send(f"{domain.name()} is {LIFECYCLE[event]}\n".encode())

    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None)
    bridge.add_handle(server, Events.READABLE, on_client)
    threading.Thread(target=client, args=(server.getsockname(),)).start()
    bridge.run(until=lambda: clients and clients[-1].fileno() < 0, timeout=seconds)
    connection.close()
    bridge.close()  # it never closes an fd of yours:
    server.close()


if __name__ == "__main__":
    main()
