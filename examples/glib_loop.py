"""GLib: libvirt served by the main context that a GTK program runs anyway; nested loops (a dialog's) included.

It watches libvirt's own test driver and, to have something to see, pauses that driver's domain and lets it go on.
"""

import threading

import libvirt
from gi.repository import GLib

import eventbridge
from eventbridge.adapters.hypervisors import libvirt as bridged_libvirt

LIFECYCLE = "defined undefined started suspended resumed stopped shutdown pmsuspended crashed".split()
loop = GLib.MainLoop()  # or Gtk.main(), or Gtk.Application.run()


def on_lifecycle(connection, domain, event, detail, opaque):
    print(f"{domain.name()} {LIFECYCLE[event]}", flush=True)
    if LIFECYCLE[event] == "suspended":
        dialog()
    elif LIFECYCLE[event] == "resumed":
        loop.quit()


def dialog():
    """A loop inside a callback, as Gtk.Dialog.run() is; the rest goes on meanwhile."""
    nested = GLib.MainLoop()
    GLib.timeout_add(20, nested.quit)
    nested.run()
    print("a nested loop has run", flush=True)


def pause_and_resume(domain):  # libvirt's calls block until they are answered, so they are made on a thread
    domain.suspend()
    domain.resume()


with eventbridge.Bridge("glib") as bridge:
    bridged_libvirt.install(bridge)  # before any connection is opened
    connection = libvirt.open("test:///default")
    registered = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None)
    thread = threading.Thread(target=pause_and_resume, args=[connection.lookupByName("test")])
    thread.start()
    loop.run()
    thread.join()
    connection.domainEventDeregisterAny(registered)
    connection.close()
    print("drained" if bridge.run(until=bridge.is_empty, timeout=5) else "libvirt left something behind", flush=True)
