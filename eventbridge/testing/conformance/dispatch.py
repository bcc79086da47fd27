"""Rules D1 to D6, on whatever host: the dispatcher."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from eventbridge.core.dispatcher import BUDGET_CALLBACKS
from eventbridge.core.masks import Events

from .base import Rules, in_the_tests_thread
from .harness import busy, raises

R = int(Events.READABLE)


class DispatchRules(Rules):
    """What a pass may rely on, and the host with it."""

    def ready(self, count: int, callback: Callable[[int, int, int, Any], object]) -> list[int]:
        """So many handles that are ready and stay so.

        Each on a file of its own: of one file under many numbers, Linux refuses the 501st in an epoll object that
        another watches (fs/eventpoll.c, path_limits).
        """
        fds = [os.eventfd(1) for _ in range(count)]
        self.rig.own(*fds)
        return [self.bridge.add_handle(fd, R, callback) for fd in fds]

    def passes(self, id: int, fd: int, events: int, opaque: Any) -> None:
        """A callback that notes in which pass it was called."""
        self.rig.note(self.rig.passes)

    def test_callbacks_come_on_the_loops_thread_alone(self) -> None:
        """D1: handles, timeouts and frees, whoever registers them."""
        threads: set[int] = set()

        def seen(name: str) -> Callable[..., None]:
            def callback(*_: Any) -> None:
                threads.add(threading.get_ident())
                self.rig.note(name)

            return callback

        def register() -> None:
            reader, _ = self.rig.pipe(b"x")
            self.bridge.add_handle(reader, R, seen("handle"))
            self.bridge.add_timeout(1, seen("timeout"))
            self.bridge.remove_timeout(self.bridge.add_timeout(-1, seen("no"), None, seen("free")))

        self.rig.from_thread(register)
        register()
        self.rig.on_loop(register)
        self.rig.until(
            lambda: self.rig.noted("handle") > 5 and self.rig.noted("timeout") > 5 and self.rig.noted("free") == 3
        )
        assert threads == {self.rig.loop_thread}

    def test_a_pass_makes_at_most_its_budget_of_callbacks(self) -> None:
        """D2: 256, then the host has its turn; 1000 are ready, as handles and as timeouts."""
        self.ready(500, self.passes)
        for _ in range(500):
            self.bridge.add_timeout(0, lambda id, opaque: self.rig.note(self.rig.passes))
        self.rig.until(lambda: len(self.rig.notes) > 5000)
        assert max(Counter(self.rig.notes).values()) <= BUDGET_CALLBACKS

    def test_a_shared_number_keeps_to_the_budget_too(self) -> None:
        """D2, H4: 600 handles on one fd."""
        reader, _ = self.rig.pipe(b"x")
        self.rig.on_loop(lambda: [self.bridge.add_handle(reader, R, self.passes) for _ in range(600)])
        self.rig.until(lambda: len(self.rig.notes) > 1800)
        assert max(Counter(self.rig.notes).values()) <= BUDGET_CALLBACKS

    def test_frees_keep_to_the_budget_too(self) -> None:
        """D2, H7: 1000 owed at once."""
        ids = [
            self.bridge.add_timeout(-1, self.rig.noting("no"), None, lambda _: self.rig.note(self.rig.passes))
            for _ in range(1000)
        ]
        self.rig.on_loop(lambda: [self.bridge.remove_timeout(id) for id in ids])
        self.rig.until(lambda: len(self.rig.notes) == 1001)
        frees = [note for note in self.rig.notes if note != "on_loop"]
        assert max(Counter(frees).values()) <= BUDGET_CALLBACKS

    def test_a_pass_of_slow_callbacks_ends_after_its_time(self) -> None:
        """D2: about 2 ms; each takes 1, after many that took none."""
        self.ready(20, self.rig.noting("quick"))
        self.rig.until(lambda: self.rig.noted("quick") > 5000)
        self.rig.notes.clear()

        def slow(id: int, fd: int, events: int, opaque: Any) -> None:
            busy(0.001)
            self.passes(id, fd, events, opaque)

        self.ready(50, slow)
        self.rig.until(lambda: len([note for note in self.rig.notes if note != "quick"]) > 60)
        counts = [note for note in self.rig.notes if note != "quick"]
        assert max(Counter(counts).values()) <= 5

    def test_nobody_starves(self) -> None:
        """D2: all of 700 handles and 300 timeouts of every pass are called before any is called a fifth time."""
        calls: dict[object, int] = {}

        def called(key: object) -> None:
            calls[key] = calls.get(key, 0) + 1
            if calls[key] == 5:
                self.rig.note("fifth")

        def add() -> None:
            self.ready(700, lambda id, fd, events, opaque: called(("handle", id)))
            for _ in range(300):
                self.bridge.add_timeout(0, lambda id, opaque: called(("timeout", id)))

        self.rig.on_loop(add)
        self.rig.until(lambda: self.rig.noted("fifth"))
        assert len(calls) == 1000

    def test_the_host_has_its_turn_between_passes(self) -> None:
        """D2: however much is ready."""
        self.ready(1000, self.rig.noting("callback"))
        self.rig.until(lambda: self.rig.noted("callback"))
        self.bridge.host.call_soon_threadsafe(lambda: self.rig.note(("host", len(self.rig.notes))))
        before = len(self.rig.notes)
        self.rig.until(lambda: any(isinstance(note, tuple) for note in self.rig.notes))
        (turn,) = [note[1] for note in self.rig.notes if isinstance(note, tuple)]
        assert self.rig.own_thread or turn - before <= 3 * BUDGET_CALLBACKS

    def test_timeouts_come_before_handles(self) -> None:
        """D3: in the pass in which both are due."""
        reader, writer = self.rig.pipe()
        self.bridge.add_handle(reader, R, self.rig.reading("handle"))

        def make_both_due() -> None:
            self.bridge.add_timeout(1, self.rig.noting("timeout"))
            os.write(writer, b"x")
            busy(0.002)

        self.rig.on_loop(make_both_due)
        self.rig.until(lambda: self.rig.noted(("handle", R)))
        notes = [note for note in self.rig.notes if note != "on_loop"]
        assert notes[0] == "timeout"

    def test_a_callbacks_exception_is_reported_once_and_the_pass_goes_on(self) -> None:
        """D4: of a handle, a timeout and a free; each stays registered."""
        reader, _ = self.rig.pipe(b"x")
        error = ValueError("handle")

        def fail(id: int, fd: int, events: int, opaque: Any) -> None:
            os.read(fd, 1)
            raise error

        self.bridge.add_handle(reader, R, fail)
        self.ready(3, self.rig.noting("other"))
        self.rig.until(lambda: self.rig.errors and self.rig.noted("other") > 5)
        self.rig.settle()
        assert [caught for caught, _ in self.rig.errors] == [error]
        assert f"fd {reader}" in self.rig.errors[0][1]
        assert self.bridge.stats().handles == 4
        assert self.bridge.stats().errors == 1

    def test_a_failing_timeout_fires_again(self) -> None:
        """D4."""

        def fail(id: int, opaque: Any) -> None:
            raise ValueError("timeout")

        self.bridge.add_timeout(1, fail)
        self.rig.until(lambda: len(self.rig.errors) >= 3)

    def test_a_failing_free_is_reported_once(self) -> None:
        """D4."""

        def fail(opaque: Any) -> None:
            raise ValueError("free")

        self.bridge.remove_timeout(self.bridge.add_timeout(-1, self.rig.noting("no"), None, fail))
        self.rig.until(lambda: self.rig.errors)
        self.rig.settle()
        assert len(self.rig.errors) == 1

    def test_any_exception_but_two_is_contained(self) -> None:
        """D4: those that are no Exception too, but for KeyboardInterrupt and SystemExit."""
        reader, _ = self.rig.pipe(b"x")

        def fail(id: int, fd: int, events: int, opaque: Any) -> None:
            os.read(fd, 1)
            raise GeneratorExit

        self.bridge.add_handle(reader, R, fail)
        self.rig.until(lambda: self.rig.errors)
        self.rig.settle()
        assert isinstance(self.rig.errors[0][0], GeneratorExit)

    @in_the_tests_thread
    def test_keyboard_interrupt_and_system_exit_propagate_through_the_host(self) -> None:
        """D4: and the loop can be run again, nothing lost."""
        for kind in (KeyboardInterrupt, SystemExit):
            reader, _ = self.rig.pipe(b"x")

            def fail(id: int, fd: int, events: int, kind: type[BaseException]) -> None:
                os.read(fd, 1)
                raise kind

            self.ready(3, self.rig.noting("other"))
            id = self.bridge.add_handle(reader, R, fail, kind)
            with raises(kind):
                self.rig.until(lambda: False)
            self.rig.notes.clear()
            self.rig.until(lambda: self.rig.noted("other") > 5)
            assert not self.rig.errors
            self.bridge.remove_handle(id)

    def test_an_event_taken_is_delivered_once_in_nested_passes(self) -> None:
        """D5: a callback runs the loop again; what its pass had taken is the nested one's to deliver, or its own."""
        ids = []
        calls: dict[int, int] = {}

        def nest(id: int, fd: int, events: int, opaque: Any) -> None:
            calls[id] = calls.get(id, 0) + 1
            self.bridge.remove_handle(id)
            if len(calls) < 5:
                self.nested_pass()
            self.rig.note("returned")

        self.rig.on_loop(lambda: ids.extend(self.ready(20, nest)))
        self.rig.until(lambda: self.rig.noted("returned") == 20)
        self.rig.settle()
        assert calls == dict.fromkeys(ids, 1)

    def test_a_callback_is_not_called_inside_itself(self) -> None:
        """D5: still ready, its handle and its timeout are not called by the passes that it runs; others are."""
        depth = 0
        other, _ = self.rig.pipe(b"x")
        self.bridge.add_handle(other, R, self.rig.noting("other"))

        def nest(*_: Any) -> None:
            nonlocal depth
            depth += 1
            self.rig.note(("depth", depth))
            before = self.rig.noted("other")
            for _turn in range(5):
                self.nested_pass()
            self.rig.note(("others", self.rig.noted("other") > before))
            depth -= 1

        self.ready(1, nest)
        self.bridge.add_timeout(1, nest)
        self.rig.until(lambda: self.rig.noted(("others", True)) >= 4)
        assert not self.rig.noted(("others", False))
        assert (
            max(note[1] for note in self.rig.notes if note[0] == "depth") <= 2
        )  # the handle in the timeout, or the reverse

    def test_a_free_waits_until_its_callback_has_returned_from_nested_passes(self) -> None:
        """D5, H7."""
        reader, _ = self.rig.pipe(b"x")

        def nest(id: int, fd: int, events: int, opaque: Any) -> None:
            self.bridge.remove_handle(id)
            for _ in range(3):
                self.nested_pass()
            self.rig.note("returned")

        self.bridge.add_handle(reader, R, nest, None, self.rig.noting("free"))
        self.rig.until(lambda: self.rig.noted("free"))
        self.rig.settle()
        assert self.rig.notes == ["returned", "free"]

    def nested_pass(self) -> None:
        """What a host does that is run again inside a callback: it finds the bridge's fd readable, and calls."""
        self.bridge._dispatcher.run_pass()

    def test_all_six_may_be_called_from_any_thread_while_the_loop_sleeps(self) -> None:
        """D6."""
        reader, writer = self.rig.pipe(b"x")
        self.rig.settle()
        handle = self.rig.from_thread(lambda: self.bridge.add_handle(reader, 0, self.rig.reading("handle")))
        timeout = self.rig.from_thread(lambda: self.bridge.add_timeout(-1, self.rig.noting("timeout")))
        self.rig.settle()
        assert not self.rig.notes
        self.rig.from_thread(lambda: self.bridge.update_handle(handle, R))
        self.rig.from_thread(lambda: self.bridge.update_timeout(timeout, 1))
        self.rig.until(lambda: self.rig.noted(("handle", R)) and self.rig.noted("timeout"))
        self.rig.from_thread(lambda: self.bridge.remove_handle(handle))
        self.rig.from_thread(lambda: self.bridge.remove_timeout(timeout))
        os.write(writer, b"x")
        self.rig.settle()
        self.rig.notes.clear()
        self.rig.settle()
        assert not self.rig.notes

    def test_a_callback_may_call_everything(self) -> None:
        """D6: no lock is held while foreign code runs, on this thread or on another that it waits for."""
        reader, _ = self.rig.pipe(b"x")

        def callback(id: int, fd: int, events: int, opaque: Any) -> None:
            def everything() -> None:
                handle = self.bridge.add_handle(reader, 0, self.rig.noting("no"))
                timeout = self.bridge.add_timeout(-1, self.rig.noting("no"))
                self.bridge.update_handle(handle, 0)
                self.bridge.update_timeout(timeout, 0)
                self.bridge.remove_handle(handle)
                self.bridge.remove_timeout(timeout)
                self.bridge.stats()

            everything()
            self.rig.from_thread(everything)
            self.bridge.remove_handle(id)
            self.rig.note("done")

        self.bridge.add_handle(reader, R, callback)
        self.rig.until(lambda: self.rig.noted("done"))
        assert not self.rig.noted("no")
        assert not self.rig.errors
