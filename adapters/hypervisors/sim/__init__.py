"""The simulated hypervisor: ``sim:///default?domains=100&seed=1``.  Nothing to install, nothing real about it.

It lives in this process and works over real fds and timeouts of the bridge it is given.  Its even-numbered domains
are served by the callback model, as libvirt and libxl 4.2 are; its odd-numbered ones by the direct-fd model, as
libxl 4.1 is.

    guests.py          who there is and what happens to whom by itself: the first table, no IO
    commands.py        what may be asked of whom: the second
    population.py      all guests of one world
    scenario.py        what happens, out of one random number generator
    wire.py            how a happening travels through an fd
    hypervisor.py      one simulated hypervisor: domains, clock, and who is connected
    session.py         a connection to it: what it is told, in order, and what it asks
    callback_model.py  a library that registers a pipe for each domain, and its timeouts, with the bridge
    direct_model.py    a library with one fd for up to a hundred domains, which the bridge asks and drains
    operations.py      what can be asked: one function an operation
    definition.py listing.py migration_out.py migration_in.py later.py  the longer ones of them
    simulation.py faults.py  a test's hold on a world
    uri.py             what may be asked for
    driver.py          what `eventbridge.hypervisor.driver` asks of a driver, and the room it needs
"""
