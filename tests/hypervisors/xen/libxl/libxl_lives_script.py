"""Some lives of domains on a context, for valgrind to look at; says "lived" at the end.  A stand-in's Xen."""

from __future__ import annotations

import warnings

from test_libxl_lives import live_through, with_a_nic

from eventbridge import Bridge
from tests.support.libxl_rig import Rig
from tests.support.xen.standin import XenStandIn

LIVES, ROUNDS = 8, 3


def main() -> None:
    warnings.simplefilter("error")
    with XenStandIn() as xen:
        xen.load()
        with Bridge("select") as bridge:
            rig = Rig(bridge)
            for round in range(ROUNDS):
                live_through(xen, rig, list(range(1, LIVES)))
                rig.events.clear()
                with_a_nic(xen, rig, LIVES, abort=bool(round % 2))
                rig.context.destroy(99)
                rig.context.list()
            rig.wait_for(lambda: not rig.context._hooks._timeouts)
            rig.close()
            rig.wait_for(bridge.is_empty)
    print("lived")


if __name__ == "__main__":
    main()
