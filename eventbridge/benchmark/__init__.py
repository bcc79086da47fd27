"""``eventbridge bench``: what a dispatcher costs, beside its rivals, on this machine now.

Theory of operation.  A *workload* (`workloads.py`) is a coroutine that registers things through a contender's six
functions and measures what follows; it is written once.  A *contender* (`contenders.py`) is an event loop with an
event implementation on it; its *rig* (`rigs.py`) runs such a coroutine.  One pair of the two is a *cell*, and each
measurement of a cell is a process of its own (`worker.py`), for libvirt takes one event implementation in a
process's life.  `interleave.py` goes round all cells several times, so that whatever else the machine does meets all
contenders alike; `results.py` makes medians and ratios of it, `targets.py` says what is wanted, and `table.py` and
`plot.py` show it.

Two families of contenders.  Those of libvirt's event implementations go through its C API.  `hosts.py` compares, on
every host loop and without libvirt, a bridge with that loop's own watches; they have a table of their own
(`hosts_table.py`).

Libraries of others are imported by name, inside the worker's process, when the contender that needs them starts."""
