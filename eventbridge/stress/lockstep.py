"""Threads that act one at a time, when they are told to: the threads of a scripted round.

Whoever tells one to act waits until it has; so nothing interleaves but what the script says.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Act = Callable[[], None]


class Lockstep:
    """Numbered threads, each made when it is first told to act.  Leave it as a context manager to end them."""

    def __init__(self) -> None:
        self._threads: dict[int, tuple[threading.Thread, queue.SimpleQueue[Act | None]]] = {}

    def act(self, number: int, act: Act) -> None:
        """Have thread ``number`` act, and wait; 0 is whoever calls this.  What ``act`` raises is raised here."""
        if not number:
            act()
            return
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def there() -> None:
            try:
                act()
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)

        self._told(number).put(there)
        error = done.get()
        if error is not None:
            raise error

    def _told(self, number: int) -> queue.SimpleQueue[Act | None]:
        if number not in self._threads:
            acts: queue.SimpleQueue[Act | None] = queue.SimpleQueue()
            thread = threading.Thread(target=_obey, args=(acts,), name=f"script {number}", daemon=True)
            thread.start()
            self._threads[number] = thread, acts
        return self._threads[number][1]

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *exc: object) -> None:
        for thread, acts in self._threads.values():
            acts.put(None)
            thread.join()


def _obey(acts: queue.SimpleQueue[Act | None]) -> None:
    while (act := acts.get()) is not None:
        act()
