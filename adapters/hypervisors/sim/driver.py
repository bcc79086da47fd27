"""The `eventbridge.hypervisor.driver.Driver` of the simulated hypervisor, and the room it needs.

A domain of the callback model needs a pipe, two fds; a hundred of the direct-fd model share a socketpair.
"""

from __future__ import annotations

import os
import resource
from bisect import bisect_right

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.version import VERSION
from eventbridge.hypervisor.events import Emit

from .hypervisor import PER_SOURCE, world_of
from .session import Session
from .uri import LIMITS, parse, refusal

SPARE = 16
"""fds left for everybody else."""


def fds_needed(domains: int) -> int:
    callback = (domains + 1) // 2
    direct = -(-(domains // 2) // PER_SOURCE)
    return 2 * (callback + direct)


def _fits(fds: int) -> int:
    """How many domains so many fds are enough for."""
    return bisect_right(range(LIMITS["domains"][1] + 1), fds, key=fds_needed) - 1


def make_room(uri: str, domains: int) -> None:
    """Raise the soft limit of open files (ulimit -n) where it is too low and the hard one allows; `HypervisorError`
    where not.
    """
    needed = fds_needed(domains)
    open_now = len(os.listdir("/dev/fd"))
    wanted = open_now + needed + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise refusal(
            uri,
            f"{domains} domains need {needed} file descriptors beside the {open_now} that are open, and the hard "
            f"limit (ulimit -Hn) is {hard}: raise it to {wanted}, or ask for at most "
            f"{_fits(hard - open_now - SPARE)} domains",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class SimDriver:
    """See `driver`."""

    def subscribe(self, uri: str, bridge: BridgeCore, emit: Emit) -> Session:
        """As `eventbridge.hypervisor.driver.Driver.subscribe`; any thread, also the loop's, and never for long.

        Raises the process's soft limit of open files where the domains need it.
        """
        parameters = parse(uri)
        world = world_of(uri, parameters)
        if world.faults.refuses_a_connection():
            raise refusal(uri, "the simulated hypervisor refuses the connection, as its controls say")
        make_room(uri, len(world.cast))
        session = Session(uri, parameters, world, bridge, emit)
        try:
            session.open()
        except OSError as error:
            raise refusal(uri, f"its domains' pipes and sockets cannot be made: {error}") from error
        return session

    def version(self) -> str:
        return f"simulated, part of eventbridge {VERSION}"


driver = SimDriver()
