"""eventbridge's host on a tinyloop; setup.cfg announces it in the entry-point group ``eventbridge.hosts``."""

from __future__ import annotations

import tinyloop

from eventbridge.core.loop_host import Callback, LoopHost


class TinyloopHost(LoopHost):
    """``TinyloopHost(loop)`` on a loop of yours; without one on the loop that is running here, or on a new one."""

    name = "tinyloop"

    def __init__(self, loop: tinyloop.Loop | None = None) -> None:
        super().__init__()
        loop = loop or tinyloop.current()
        self._ours = loop is None
        self.loop = tinyloop.Loop() if loop is None else loop

    @classmethod
    def running(cls) -> TinyloopHost | None:
        loop = tinyloop.current()
        return None if loop is None else cls(loop)

    def watch(self, fd: int, callback: Callback) -> None:
        self.loop.add_reader(fd, lambda: self.call(callback))

    def unwatch(self, fd: int) -> None:
        self.loop.remove_reader(fd)

    def wake(self) -> None:
        self.loop.call_soon(self.run_soon)

    def run_loop(self) -> None:
        self.loop.run()

    def stop_loop(self) -> None:
        self.loop.stop()

    def give_back(self) -> None:
        if self._ours:
            self.loop.close()
