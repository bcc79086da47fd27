"""What a hypervisor's driver implements, and the words that it speaks with a connection.

`driver` has the protocols, `operations` the table of all that can be asked of a hypervisor, `request` one such question
on its way, `events` what a driver reports, `model` the domain that it is about, and `worker_pool` the threads on which
a driver waits for a library that blocks.
"""
