"""Rules T1 to T6, on whatever host: timeouts."""

from __future__ import annotations

import os
import threading
from time import monotonic_ns
from typing import Any

from eventbridge.core.masks import Events
from eventbridge.errors import UnknownHandle

from .base import Rules
from .harness import busy, raises

R = int(Events.READABLE)
MS = 1_000_000


class TimeoutRules(Rules):
    """What a timeout may rely on."""

    def test_ids_are_a_space_of_their_own_from_1(self) -> None:
        """T1."""
        reader, _ = self.rig.pipe()
        self.bridge.add_handle(reader, R, self.rig.noting("handle"))
        first = self.bridge.add_timeout(-1, self.rig.noting("a"))
        second = self.bridge.add_timeout(-1, self.rig.noting("b"))
        self.bridge.remove_timeout(second)
        assert first == 1
        assert first < second < self.bridge.add_timeout(-1, self.rig.noting("c"))

    def test_a_callback_is_told_id_and_opaque(self) -> None:
        """T1."""
        id = self.bridge.add_timeout(1, lambda *told: self.rig.note(told), "opaque")
        self.rig.until(lambda: self.rig.notes)
        assert self.rig.notes[0] == (id, "opaque")

    def test_disabled_it_never_fires(self) -> None:
        """T1: -1."""
        self.bridge.add_timeout(-1, self.rig.noting("disabled"))
        id = self.bridge.add_timeout(1, self.rig.noting("was enabled"))
        self.bridge.update_timeout(id, -1)
        self.rig.settle()
        self.rig.notes.clear()
        assert self.rig.quiet() < 20
        assert not self.rig.notes

    def test_0_is_every_pass_until_changed(self) -> None:
        """T1."""
        id = self.bridge.add_timeout(0, self.rig.noting("pass"))
        self.rig.until(lambda: self.rig.noted("pass") >= 5)
        self.bridge.update_timeout(id, -1)
        self.rig.settle()
        self.rig.notes.clear()
        assert self.rig.quiet() < 20
        assert not self.rig.notes

    def test_0_does_not_starve_the_host_nor_the_handles(self) -> None:
        """T1, D2."""
        reader, _ = self.rig.pipe(b"x")
        self.bridge.add_handle(reader, R, self.rig.noting("handle"))
        for _ in range(300):
            self.bridge.add_timeout(0, self.rig.noting("pass"))
        self.bridge.host.call_soon_threadsafe(lambda: self.rig.note("host"))
        self.rig.until(lambda: self.rig.noted("host") and self.rig.noted("handle") > 3)
        self.rig.until(lambda: self.rig.noted("pass") >= 300)

    def test_n_fires_every_n_ms(self) -> None:
        """T1."""
        self.bridge.add_timeout(2, self.rig.noting("tick"))
        self.rig.until(lambda: self.rig.noted("tick") >= 5)

    def test_earlier_takes_effect_at_once(self) -> None:
        """T2: it was an hour away."""
        id = self.bridge.add_timeout(3_600_000, self.rig.noting("fired"))
        self.rig.settle()
        self.bridge.update_timeout(id, 1)
        self.rig.until(lambda: self.rig.noted("fired"))

    def test_later_takes_effect_at_once(self) -> None:
        """T2: refreshed again and again it never fires at an old deadline; then it does, once."""
        started = [monotonic_ns()]
        fires: list[int] = []

        def fired(id: int, opaque: Any) -> None:
            fires.append(monotonic_ns() - started[-1])
            self.bridge.update_timeout(id, -1)

        timeout = self.bridge.add_timeout(10, fired)
        fired_before = 0

        def refresh() -> None:
            nonlocal fired_before
            fired_before = len(fires)  # where the machine is so busy that 10 ms have gone by
            started.append(monotonic_ns())
            self.bridge.update_timeout(timeout, 10)

        while monotonic_ns() < started[0] + 30 * MS:
            self.rig.on_loop(refresh)
        self.rig.until(lambda: len(fires) > fired_before)
        self.rig.settle()
        assert len(fires) == fired_before + 1
        assert min(fires) >= 10 * MS

    def test_another_thread_re_arms_while_the_loop_sleeps(self) -> None:
        """T2, D6: earlier, from disabled, to 0; and a new one."""
        hour = self.bridge.add_timeout(3_600_000, self.rig.noting("hour"))
        disabled = self.bridge.add_timeout(-1, self.rig.noting("disabled"))
        every = self.bridge.add_timeout(-1, self.rig.noting("every"))
        self.rig.settle()

        def later() -> None:
            self.bridge.update_timeout(hour, 1)
            self.bridge.update_timeout(disabled, 1)
            self.bridge.update_timeout(every, 0)
            self.bridge.add_timeout(1, self.rig.noting("new"))

        threading.Thread(target=later, daemon=True).start()
        self.rig.until(lambda: all(self.rig.noted(name) for name in ("hour", "disabled", "every", "new")))

    def test_never_early(self) -> None:
        """T3: not by a microsecond on CLOCK_MONOTONIC; the n-th call of a periodic one not before n periods."""
        earliest: dict[int, int] = {}

        def fired(id: int, ms: int) -> None:
            self.rig.note(monotonic_ns() - earliest[id])
            if ms % 2:  # re-armed: from now
                earliest[id] = monotonic_ns() + ms * MS
                self.bridge.update_timeout(id, ms)
            else:  # periodic: no sooner than a period after the last was due
                earliest[id] += ms * MS

        def add() -> None:
            for ms in (1, 2, 3, 4, 5, 6) * 10:
                now = monotonic_ns()
                earliest[self.bridge.add_timeout(ms, fired, ms)] = now + ms * MS

        self.rig.on_loop(add)
        self.rig.until(lambda: len(self.rig.notes) > 500)
        assert min(note for note in self.rig.notes if note != "on_loop") >= 0

    def test_a_late_loop_fires_a_periodic_timeout_once(self) -> None:
        """T4: not once for each period missed."""
        order: list[str] = []
        self.bridge.add_timeout(2, lambda id, opaque: order.append("tick"))

        def block(id: int, opaque: Any) -> None:
            self.bridge.remove_timeout(id)
            busy(0.02)
            order.append("blocked")
            self.bridge.host.call_soon_threadsafe(lambda: order.append("after"))
            self.bridge.add_timeout(1, self.rig.noting("end"))

        self.bridge.add_timeout(1, block)
        self.rig.until(lambda: self.rig.noted("end"))
        late = order[order.index("blocked") : order.index("after")]
        assert late.count("tick") <= 1

    def test_the_first_of_two_due_together_may_remove_the_second(self) -> None:
        """T5, H5."""
        ids: list[int] = []

        def remove_the_other(id: int, opaque: Any) -> None:
            (other,) = set(ids) - {id}
            self.bridge.remove_timeout(other)
            self.bridge.remove_timeout(id)
            self.rig.note("fired")

        def add() -> None:
            ids.extend(self.bridge.add_timeout(1, remove_the_other) for _ in range(2))
            busy(0.003)

        self.rig.on_loop(add)
        self.rig.until(lambda: self.rig.noted("fired"))
        self.rig.settle()
        assert self.rig.noted("fired") == 1

    def test_the_first_of_two_due_together_may_put_the_second_off(self) -> None:
        """T2 inside a pass: disabled, or an hour later."""
        for ms in (-1, 3_600_000):
            self.rig.notes.clear()
            ids: list[int] = []

            def put_off(id: int, opaque: Any, ids: list[int] = ids, ms: int = ms) -> None:
                (other,) = set(ids) - {id}
                self.bridge.update_timeout(other, ms)
                self.bridge.update_timeout(id, -1)
                self.rig.note("fired")

            def add(ids: list[int] = ids, put_off: Any = put_off) -> None:
                ids.extend(self.bridge.add_timeout(1, put_off) for _ in range(2))
                busy(0.003)

            self.rig.on_loop(add)
            self.rig.until(lambda: self.rig.noted("fired"))
            self.rig.settle()
            assert self.rig.noted("fired") == 1

    def test_a_timeout_may_remove_itself(self) -> None:
        """T5."""

        def fired(id: int, opaque: Any) -> None:
            self.bridge.remove_timeout(id)
            self.rig.note("fired")

        for ms in (0, 1):
            self.rig.notes.clear()
            self.bridge.add_timeout(ms, fired, None, self.rig.noting("free"))
            self.rig.until(lambda: self.rig.noted("free"))
            self.rig.settle()
            assert self.rig.notes == ["fired", "free"]

    def test_free_comes_once_on_the_loops_thread(self) -> None:
        """T5, H7: removed from another thread."""
        free = lambda opaque: self.rig.note((opaque, threading.get_ident()))  # noqa: E731  # one line says it all
        id = self.bridge.add_timeout(3_600_000, self.rig.noting("fired"), "opaque", free)
        self.rig.from_thread(lambda: self.bridge.remove_timeout(id))
        loop = self.rig.loop_thread
        self.rig.until(lambda: self.rig.noted(("opaque", loop)))
        self.rig.settle()
        assert self.rig.noted(("opaque", loop)) == 1
        assert not self.rig.noted("fired")

    def test_unknown_ids_and_bad_times_raise_and_change_nothing(self) -> None:
        """T5, H8."""
        id = self.bridge.add_timeout(1, self.rig.noting("fired"))
        for unknown in (0, -1, id + 1):
            with raises(UnknownHandle):
                self.bridge.remove_timeout(unknown)
            with raises(UnknownHandle):
                self.bridge.update_timeout(unknown, 1)
        for bad, kind in ((-2, ValueError), (2**31, ValueError), (1.5, TypeError), ("1", TypeError)):
            with raises(kind):
                self.bridge.update_timeout(id, bad)  # type: ignore[arg-type]  # that is the test
            with raises(kind):
                self.bridge.add_timeout(bad, self.rig.noting("bad"))  # type: ignore[arg-type]  # as it is to be refused
        with raises(TypeError):
            self.bridge.add_timeout(1, None)  # type: ignore[arg-type]  # as it is to be refused
        assert self.bridge.stats().timeouts == 1
        self.rig.until(lambda: self.rig.noted("fired"))
        assert not self.rig.noted("bad")

    def test_ten_thousand_armed_timeouts_come_up_only_when_due(self) -> None:
        """T6: far ones are not looked at in the passes of near ones."""
        for _ in range(10_000):
            self.bridge.add_timeout(3_600_000, self.rig.noting("far"))
        self.bridge.add_timeout(1, self.rig.noting("near"))
        self.rig.until(lambda: self.rig.noted("near") >= 5)
        assert not self.rig.noted("far")

    def test_the_longest_timeout_is_accepted(self) -> None:
        """T1: 2**31-1 ms, libvirt's INT_MAX."""
        self.bridge.add_timeout(2**31 - 1, self.rig.noting("far"))
        self.rig.settle()
        assert not self.rig.noted("far")

    def test_timeouts_and_handles_wake_the_same_sleep(self) -> None:
        """T1, H3: each in its turn, neither losing the other."""
        reader, writer = self.rig.pipe()
        self.bridge.add_handle(reader, R, self.rig.reading("pipe"))

        def tick(id: int, opaque: Any) -> None:
            os.write(writer, b"x")
            self.rig.note("tick")

        self.bridge.add_timeout(1, tick)
        self.rig.until(lambda: self.rig.noted(("pipe", R)) >= 5)
        assert self.rig.noted("tick") >= 5
