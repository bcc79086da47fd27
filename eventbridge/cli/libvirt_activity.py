"""Something for libvirt's test driver to tell: it does nothing by itself.

``test:///default`` is a driver inside libvirt's own library, one for a process, with one running domain, "test".  A
thread of its own does things to that domain by libvirt's own calls, as any other program might.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from itertools import cycle
from typing import Any

URI = "test:///default"
DOMAIN = "test"

# Each is a method of libvirt.virDomain, legal after the one before it, the first after the last.
OPERATIONS = ("suspend", "resume", "shutdown", "create", "destroy", "create")


@contextlib.contextmanager
def stirred(seconds: float) -> Iterator[None]:
    """Do the next thing to the test driver's domain every so many ``seconds``, until the block ends.  ImportError
    where libvirt-python is not installed.
    """
    import libvirt

    over = threading.Event()
    thread = threading.Thread(target=_stir, args=(libvirt, seconds, over), name="stir", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _stir(libvirt: Any, seconds: float, over: threading.Event) -> None:
    connection = libvirt.open(URI)
    try:
        domain = connection.lookupByName(DOMAIN)
        for operation in cycle(OPERATIONS):
            if over.wait(seconds):
                return
            with contextlib.suppress(libvirt.libvirtError):  # not legal in the state that somebody left it in
                getattr(domain, operation)()
    finally:
        connection.close()
