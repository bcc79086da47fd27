"""A `Context` of libxl's under test, spied on, and what its tests make happen with it."""

from __future__ import annotations

import ctypes
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.libxl import Context, Event, Generator, Operation, types
from eventbridge.testing import SteppingHost
from tests.support.libxl_spy import Spy
from tests.support.patience import PATIENCE

Errors = list[tuple[BaseException, str]]
NIC_SIZE, NIC_DEVID = 4096, 16


class Rig:
    """``events`` and ``threads`` have what was told, and on which threads."""

    def __init__(self, bridge: Bridge, **options: Any) -> None:
        self.bridge = bridge
        self.spy = Spy(types.Library())
        self.events: list[Event] = []
        self.threads: set[int] = set()
        self.consumer: Callable[[Event], object] = lambda event: None
        options.setdefault("on_event", self._told)
        self.context = Context(bridge, library=self.spy, **options)
        self._kept: list[Any] = []

    def _told(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())
        self.consumer(event)

    def told(self) -> list[tuple[str, int]]:
        return [(event.kind.name, event.domid) for event in self.events]

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """The loop turns until then."""
        host = self.bridge.host
        if isinstance(host, SteppingHost):
            done = host.step_until(happened, PATIENCE)
        else:
            done = self.bridge.run(until=happened, timeout=PATIENCE)
        assert done, f"it did not happen; what did: {self.spy.trace}"

    def until_another_thread(self, has_done: Callable[[], bool]) -> None:
        """The loop runs until then; as nobody wakes it for that, it looks for itself."""
        looking = self.bridge.add_timeout(1, lambda id, opaque: None)
        self.wait_for(has_done)
        self.bridge.remove_timeout(looking)

    def settle(self) -> None:
        """A few passes more, for what must not come."""
        host = self.bridge.host
        if isinstance(host, SteppingHost):
            host.step_until_idle()
        else:
            self.bridge.run(timeout=0.02)

    def once_it_runs(self, work: Callable[[], object]) -> None:
        """``work()`` on the loop's thread, when that runs."""

        def due(id: int, opaque: object) -> None:
            self.bridge.remove_timeout(id)
            work()

        self.bridge.add_timeout(0, due)

    def follow(self, *domids: int) -> list[Generator]:
        """Their ends; the event that libxl's watch has at its very beginning, which says nothing, is taken already."""
        before = self.spy.count("osevent_occurred_fd done")
        generators = [self.context.generators.of_death(domid) for domid in domids]
        self.wait_for(lambda: self.spy.count("osevent_occurred_fd done") > before)
        return generators

    def nic_remove(self, domid: int, devid: int = 0) -> Operation:
        """The operation that needs fds, a timeout of 10 s, and perhaps a child."""
        nic = self._nic(devid)
        context = self.context
        return context.start(
            "nic_remove",
            domid,
            lambda how: context.library.libxl_device_nic_remove(context.pointer, ctypes.c_uint32(domid), nic, how),
        )

    def nic_remove_synchronously(self, domid: int, devid: int = 0) -> int:
        return self.context.call("libxl_device_nic_remove", domid, self._nic(devid), None, domid=domid)

    def _nic(self, devid: int) -> Any:
        nic = ctypes.create_string_buffer(NIC_SIZE)
        self.context.library.libxl_device_nic_init(nic)
        ctypes.c_int.from_buffer(nic, NIC_DEVID).value = devid
        self._kept.append(nic)
        return nic

    def registered(self) -> tuple[int, int, int]:
        """libxl's registrations, and the bridge's handles and timeouts."""
        stats = self.bridge.stats()
        return len(self.context._hooks), stats.handles, stats.timeouts

    def watched_fd(self) -> int:
        """The number of the fd that libxl has registered last and has still."""
        live: list[int] = []
        for name, *details in self.spy.trace:
            if name == "fd_register" and details[-1] == 0:
                live.append(details[0])
            elif name == "fd_deregister":
                live.remove(details[0])
        return live[-1]

    def until_readable(self, fd: int) -> None:
        """Nothing of it is taken."""
        assert select.select([fd], [], [], PATIENCE)[0] == [fd]

    def close(self) -> None:
        self.context.close()
        assert self.bridge.closed or not self.context._ctx.lifetime.busy
        assert self.context._freed.wait(PATIENCE)
        assert self.spy.violations == []


def until_asleep(thread: threading.Thread) -> None:
    """Until ``thread`` waits for something in the kernel; a loop that is run with nothing to do then sleeps."""
    give_up, pause = time.monotonic() + PATIENCE, threading.Event()
    stat = Path(f"/proc/self/task/{thread.native_id}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < give_up, f"{thread!r} never sleeps"
        pause.wait(0.001)


def on_another_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, done by a thread that is not this one, and waited for."""
    results: list[Any] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failures:
        raise failures[0]
    assert results, "the other thread hangs"
    return results[0]
