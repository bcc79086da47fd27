"""Many QEMUs without a machine, and all of them suspended and resumed, round after round, under one dispatcher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from time import monotonic
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.qmp import QmpDriver
from eventbridge.hypervisor.events import DomainEvent
from eventbridge.hypervisor.request import Request
from tests.support import qmp_qemu
from tests.support.patience import PATIENCE
from tests.support.qmp_qemu import NONE, Qemu

IN_FLIGHT = 4
"""Commands that one QEMU has at the same time."""
AT_ONCE = 25
"""QEMUs that start at the same time."""


@contextlib.contextmanager
def herd(count: int) -> Iterator[list[Qemu]]:
    """So many, all of them up."""
    with qmp_qemu.directory() as directory, contextlib.ExitStack() as stack:
        qemus: list[Qemu] = []
        for first in range(0, count, AT_ONCE):
            some = [Qemu(directory, f"q{number}", *NONE) for number in range(first, min(first + AT_ONCE, count))]
            qemus += [stack.enter_context(contextlib.closing(qemu)) for qemu in some]
            for qemu in some:
                qemu.wait_until_up()
        yield qemus


class Head:
    """One of the herd: suspended when it was resumed, and the other way round, ``rounds`` times."""

    def __init__(self, driver: QmpDriver, bridge: Bridge, qemu: Qemu, rounds: int) -> None:
        self.events: list[DomainEvent] = []
        self.errors: list[BaseException] = []
        self.left = 2 * rounds
        self.session = driver.subscribe(qemu.uri, bridge, self.events.append)

    def go_on(self) -> None:
        if not self.left:
            return
        self.left -= 1
        self.session.begin(Request("suspend" if self.left % 2 else "resume", None, {}, self))

    def ended(self, request: Request, value: Any, error: BaseException | None) -> None:
        if error is not None:
            self.errors.append(error)
        else:
            self.go_on()

    def progressed(self, request: Request, progress: object) -> None:
        """Nothing takes long."""


def stampede(host: str, qemus: list[Qemu], rounds: int) -> tuple[list[Head], float]:
    """What each was told, and the seconds that it took."""
    bridge = Bridge(host)
    driver = QmpDriver(open_seconds=PATIENCE)
    heads: list[Head] = []
    try:
        heads += [Head(driver, bridge, qemu, rounds) for qemu in qemus]
        count = 2 * rounds * len(heads)
        began = monotonic()
        for head in heads * IN_FLIGHT:
            head.go_on()

        def over() -> bool:
            return sum(len(head.events) for head in heads) >= count or any(head.errors for head in heads)

        assert bridge.run(until=over, timeout=PATIENCE + count / 500), "it did not end"
        took = monotonic() - began
        bridge.run(timeout=0.05)  # for one too many
        return heads, took
    finally:
        for head in heads:
            head.session.close()
        bridge.run(until=bridge.is_empty, timeout=PATIENCE)
        bridge.close()


def mistakes(heads: list[Head], rounds: int) -> list[str]:
    """Every head of which an event was lost, told twice, or out of order."""
    right = ["suspended", "resumed"] * rounds
    return [
        f"{head.events[0].source if head.events else '?'}: {len(head.events)} events, {head.errors}"
        for head in heads
        if [event.kind for event in head.events] != right
        or [event.sequence for event in head.events] != list(range(1, 2 * rounds + 1))
    ]
