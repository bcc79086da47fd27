"""A worker thread inside libxl, which calls the hooks on that thread, while the loop polls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ctypes import byref, c_uint32
from typing import Any

from eventbridge import Bridge
from eventbridge.hypervisor.events import DomainEvent
from tests.e2e.xen.dom0 import guests
from tests.e2e.xen.dom0.rig import Rig, native_of
from tests.e2e.xen.dom0.toolstack import free_config, load_config
from tests.support.patience import PATIENCE

ROUNDS = 4


class Worker:
    """Makes, lists and destroys a guest, again and again, synchronously, and each time waits until the loop has told
    of it."""

    def __init__(self, rig: Rig) -> None:
        self.domids: list[int] = []
        self.failure: BaseException | None = None
        self._rig = rig
        self._told = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="synchronous calls")
        self.start, self.join = self._thread.start, self._thread.join

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def told(self, event: DomainEvent) -> None:
        """The loop's thread."""
        with self._told:
            self._told.notify_all()

    def _run(self) -> None:
        try:
            for number in range(ROUNDS):
                self._round(f"worker-{number}")
        except BaseException as error:
            self.failure = error
        finally:
            self._rig.bridge.stop()

    def _round(self, name: str) -> None:
        domid = self._create(guests.small(name))
        self.domids.append(domid)
        self._wait_until(lambda: self._rig.told(domid) == [("started", None)])
        listed = [info.domain for info in self._rig.context.list()]
        assert (domid, name) in [(domain.id, domain.name) for domain in listed]
        self._rig.context.call("libxl_domain_destroy", domid, None)
        self._wait_until(lambda: len(self._rig.told(domid)) == 2)

    def _create(self, config: dict[str, Any]) -> int:
        native, ctx = native_of(self._rig.context)
        buffer, domid = load_config(native, ctx, config), c_uint32()
        try:
            self._rig.context.call("libxl_domain_create_new", buffer, byref(domid), None, None)
        finally:
            free_config(native, buffer)
        self._rig.context.call("libxl_domain_unpause", domid.value, None)
        return domid.value

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        with self._told:
            assert self._told.wait_for(condition, PATIENCE), "the loop tells nothing while this thread is at it"


def test_a_thread_calls_libxl_synchronously_while_the_loop_polls_and_tells(bridge: Bridge) -> None:
    """xen.md 10 to 12, D6: what a hook registers on that thread takes effect while the loop sleeps."""
    workers: list[Worker] = []
    rig = Rig(bridge, on_event=lambda event: workers[0].told(event))
    workers.append(Worker(rig))
    try:
        workers[0].start()
        rig.until(lambda: workers[0].done, "the worker's rounds")
        workers[0].join()
        assert workers[0].failure is None, repr(workers[0].failure)
        assert len(workers[0].domids) == ROUNDS
        for domid in workers[0].domids:
            rig.until_told(domid, ("started", None), ("stopped", "destroyed"))
        assert [event.sequence for event in rig.events] == list(range(1, 2 * ROUNDS + 1))
    finally:
        rig.close()
