"""The simulated hypervisor: ``sim:///default?domains=100&seed=1``.  Nothing to install, nothing real about it.

It lives in this process and works over real fds and timeouts of the bridge it is given.  Its even-numbered domains
are served by the callback model, as libvirt and libxl 4.2 are; its odd-numbered ones by the direct-fd model, as
libxl 4.1 is.

    guests.py          what happens to whom: tables and one random number generator, no IO
    wire.py            how a happening travels through an fd
    callback_model.py  a library that registers a pipe for each domain, and its timeouts, with the bridge
    direct_model.py    a library with one fd for up to a hundred domains, which the bridge asks and drains
    simulation.py      the two together, in the order of the story
    uri.py             what may be asked for
    driver.py          what `eventbridge.drivers` asks of a driver, and the room it needs
"""
