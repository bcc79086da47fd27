"""A pyuv loop of your own, with libvirt on it beside your own pyuv handles.

The loop is yours to run.  It ends by itself when nothing is active on it, which a bridge that is closed is not.
"""

import threading

import libvirt
import pyuv

import eventbridge
from eventbridge.adapters.hosts.libuv import LibuvHost
from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt

LIFECYCLE = "defined undefined started suspended resumed stopped shutdown pmsuspended crashed".split()


def on_lifecycle(connection, domain, event, detail, opaque):
    print(f"{domain.name()} {LIFECYCLE[event]}", flush=True)


def stir(domain):
    """Another thread's doing: something for libvirt to tell."""
    domain.suspend()
    domain.resume()


def main(seconds=1.0):
    loop = pyuv.Loop()
    bridge = eventbridge.Bridge(LibuvHost(loop))
    bridged_libvirt.install(bridge)
    connection = libvirt.open("test:///default")
    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None)

    def begin(timer):
        print("a timer of your own", flush=True)
        threading.Thread(target=stir, args=(connection.lookupByName("test"),)).start()
        timer.close()

    def end(timer):
        connection.close()
        bridge.close()
        timer.close()

    pyuv.Timer(loop).start(begin, 0.1, 0)
    pyuv.Timer(loop).start(end, seconds, 0)
    loop.run()
    print("nothing is active on the loop any more", flush=True)


if __name__ == "__main__":
    main()
