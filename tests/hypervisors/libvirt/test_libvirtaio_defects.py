"""What goes wrong with libvirt-python's libvirtaio must not with ours: each of its defects, tried through libvirt's C
API on each host.

Those that are about the module itself, not about what it does for libvirt, are in test_libvirtaio_drop_in.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import libvirt
import pytest
from capi_calls import (
    ERROR,
    HANGUP,
    READABLE,
    WRITABLE,
    in_threads,
    noting_and_removing,
    noting_once,
    still_works,
    stream,
)
from capi_direct import Direct
from capi_rig import ThroughLibvirt

from eventbridge.adapters.hypervisors.libvirt import install, installed
from eventbridge.testing.conformance.harness import PATIENCE, Rig

ROUNDS = 20
NO_SUCH_ID = 1_000_000_000


class TestOtherThreads(ThroughLibvirt):
    def test_what_another_thread_registers_wakes_the_sleeping_loop(self, rig: Rig) -> None:
        """D6, T2: twenty times, each when all before is done, so that the loop has gone to sleep."""
        reader, _ = rig.pipe(b"!")
        seen: SimpleQueue[str] = SimpleQueue()

        def ready(watch: int, fd: int, events: int, opaque: object) -> None:
            libvirt.virEventUpdateHandle(watch, 0)
            seen.put("ready")

        def due(timer: int, opaque: object) -> None:
            libvirt.virEventUpdateTimeout(timer, -1)
            seen.put("due")

        def act() -> None:
            watch = libvirt.virEventAddHandle(reader, READABLE, ready, None)
            assert seen.get(timeout=PATIENCE) == "ready"
            timer = libvirt.virEventAddTimeout(0, due, None)
            assert seen.get(timeout=PATIENCE) == "due"
            for _ in range(ROUNDS):
                libvirt.virEventUpdateHandle(watch, READABLE)
                assert seen.get(timeout=PATIENCE) == "ready"
                libvirt.virEventUpdateTimeout(timer, 1)
                assert seen.get(timeout=PATIENCE) == "due"
            libvirt.virEventRemoveHandle(watch)
            libvirt.virEventRemoveTimeout(timer)

        in_threads(rig, act)
        rig.settle()
        assert seen.empty()

    def test_what_another_thread_removes_is_freed_while_nothing_else_happens(self, rig: Rig) -> None:
        """D6, H7."""
        direct = Direct(rig)
        loop_thread = rig.on_loop(threading.get_ident)
        timers = [direct.add_timeout(-1, opaque) for opaque in range(1, ROUNDS + 1)]
        in_threads(rig, lambda: [direct.remove_timeout(timer) for timer in timers])
        rig.until(lambda: direct.freed(ROUNDS))
        rig.settle()
        for opaque in range(1, ROUNDS + 1):
            assert direct.freed(opaque) == [("freed", opaque, loop_thread, True)]

    def test_three_threads_adding_and_removing_leave_everything_right(self, rig: Rig) -> None:
        """D6, H1, H7: every id is its own, every free is called once, nothing is left, and it works on."""
        direct = Direct(rig)
        pipes = [rig.pipe(b"!") for _ in range(3)]
        handles: list[int] = []
        timers: list[int] = []

        def act(n: int) -> None:
            for opaque in range(1 + n, 301, 3):
                watch = direct.add_handle(pipes[n][0], READABLE, opaque)
                timer = direct.add_timeout(0, -opaque & 0xFFFF)
                libvirt.virEventUpdateTimeout(timer, opaque)
                libvirt.virEventUpdateHandle(watch, 0)
                assert (direct.remove_handle(watch), direct.remove_timeout(timer)) == (0, 0)
                handles.append(watch)
                timers.append(timer)

        in_threads(rig, *(lambda n=n: act(n) for n in range(3)))
        still_works(rig)
        assert rig.bridge.is_empty()
        assert min(handles + timers) >= 1
        assert len(set(handles)) == len(set(timers)) == 300
        freed = [note[1] for note in rig.notes if note[0] == "freed"]
        assert len(freed) == len(set(freed)) == 600


class TestTimers(ThroughLibvirt):
    def test_an_update_of_a_running_timer_takes_effect(self, rig: Rig) -> None:
        """T2: from 3000 ms to 50, and it is called before one of 2500 that has been running as long."""
        timer = libvirt.virEventAddTimeout(3000, noting_and_removing(rig, "updated"), None)
        witness = libvirt.virEventAddTimeout(2500, noting_and_removing(rig, "witness"), None)
        rig.settle()
        libvirt.virEventUpdateTimeout(timer, 50)
        rig.until(lambda: rig.noted("updated") or rig.noted("witness"))
        assert rig.noted("updated")
        assert not rig.noted("witness")
        libvirt.virEventRemoveTimeout(witness)

    def test_a_timer_that_is_refreshed_in_time_does_not_fire(self, rig: Rig) -> None:
        """T2: refreshed each 5 ms for thrice its 100 ms, as libvirt does to its keepalive at every packet."""
        refreshed = libvirt.virEventAddTimeout(100, noting_and_removing(rig, "fired"), None)

        def refresh(timer: int, opaque: object) -> None:
            libvirt.virEventUpdateTimeout(refreshed, 100)
            rig.note("refreshed")

        refresher = libvirt.virEventAddTimeout(5, refresh, None)
        rig.until(lambda: rig.noted("refreshed") >= 60)
        assert not rig.noted("fired")
        libvirt.virEventRemoveTimeout(refresher)
        rig.until(lambda: rig.noted("fired"))

    def test_an_exception_in_one_callback_leaves_all_timers_and_handles_alive(
        self, rig: Rig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """D4."""

        def fails(timer: int, opaque: object) -> None:
            rig.note("failed")
            raise ZeroDivisionError("on purpose")

        timer = libvirt.virEventAddTimeout(1, fails, None)
        rig.until(lambda: rig.noted("failed") >= 3)
        still_works(rig)
        libvirt.virEventRemoveTimeout(timer)
        rig.settle()
        assert capfd.readouterr().err.count("ZeroDivisionError: on purpose") == rig.noted("failed")


class TestEvents(ThroughLibvirt):
    def test_a_peer_that_hangs_up_is_reported_though_nobody_asked(self, rig: Rig) -> None:
        """H2."""
        ours, theirs = stream(rig)
        watch = libvirt.virEventAddHandle(ours, READABLE, noting_once(rig, "socket"), None)
        rig.settle()
        assert rig.notes == []
        rig.close(theirs)
        rig.until(lambda: rig.notes)
        rig.settle()
        assert rig.notes == [("socket", READABLE | HANGUP)]
        libvirt.virEventRemoveHandle(watch)

    def test_an_error_is_reported_again_and_again_until_it_is_turned_off_and_the_rest_goes_on(self, rig: Rig) -> None:
        """H2, H3: the writing end of a full pipe whose reader is closed, asked for both ways."""
        reader, writer = rig.pipe()
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, bytes(65536)):
                pass

        def broken(watch: int, fd: int, events: int, opaque: object) -> None:
            rig.note(("pipe", events & ERROR))
            if rig.noted(("pipe", ERROR)) == 3:
                libvirt.virEventUpdateHandle(watch, 0)

        watch = libvirt.virEventAddHandle(writer, READABLE | WRITABLE, broken, None)
        rig.settle()
        assert rig.notes == []
        rig.close(reader)
        rig.until(lambda: rig.noted(("pipe", ERROR)) == 3)
        still_works(rig)
        assert rig.notes[:3] == [("pipe", ERROR)] * 3
        assert rig.noted(("pipe", ERROR)) == 3
        libvirt.virEventRemoveHandle(watch)

    def test_one_fd_ready_both_ways_is_one_call_with_both_bits(self, rig: Rig) -> None:
        """H2."""
        ours, theirs = stream(rig)
        os.write(theirs, b"!")
        watch = libvirt.virEventAddHandle(ours, READABLE | WRITABLE, noting_once(rig, "socket"), None)
        rig.until(lambda: rig.notes)
        rig.settle()
        assert rig.notes == [("socket", READABLE | WRITABLE)]
        libvirt.virEventRemoveHandle(watch)

    def test_a_regular_file_is_always_ready(self, rig: Rig, tmp_path: Path) -> None:
        """H9, H3."""
        file = tmp_path / "disk.img"
        file.write_bytes(b"contents")
        fd = os.open(file, os.O_RDONLY)
        rig.own(fd)

        def read(watch: int, fd: int, events: int, opaque: object) -> None:
            rig.note((events, os.read(fd, 4)))
            if rig.notes[-1][1] == b"":
                libvirt.virEventRemoveHandle(watch)

        libvirt.virEventAddHandle(fd, READABLE, read, None)
        rig.until(lambda: (READABLE, b"") in rig.notes)
        rig.settle()
        assert rig.notes == [(READABLE, b"cont"), (READABLE, b"ents"), (READABLE, b"")]
        assert rig.bridge.is_empty()


class TestRegistering(ThroughLibvirt):
    def test_a_failed_add_leaves_nothing_behind_and_frees_nothing(self, rig: Rig) -> None:
        """H8, H7: on a closed fd and on a negative one; libvirt works on."""
        direct = Direct(rig)
        closed, _ = rig.pipe()
        rig.close(closed)
        assert direct.add_handle(closed, READABLE, 1) == -1
        assert direct.add_handle(closed, 0, 1) == -1
        assert direct.add_handle(-1, READABLE, 1) == -1
        assert rig.bridge.is_empty()
        with pytest.raises(libvirt.libvirtError):
            libvirt.virEventAddHandle(closed, READABLE, noting_once(rig, "closed"), None)
        still_works(rig)
        assert direct.freed(1) == []
        assert rig.bridge.is_empty()
        connection = libvirt.open("test:///default")
        assert connection.close() == 0

    def test_ids_are_never_0(self, rig: Rig) -> None:
        """H1: libvirt's fd streams take 0 for "none"."""
        reader, _ = rig.pipe()
        watch = libvirt.virEventAddHandle(reader, READABLE, noting_once(rig, "pipe"), None)
        timer = libvirt.virEventAddTimeout(-1, noting_and_removing(rig, "timer"), None)
        assert watch >= 1
        assert timer >= 1
        libvirt.virEventRemoveHandle(watch)
        libvirt.virEventRemoveTimeout(timer)

    def test_unknown_ids_fail_without_harm(self, rig: Rig) -> None:
        """H8: an update has no result, libvirt's remove says -1; what is there is left alone."""
        reader, writer = rig.pipe()
        watch = libvirt.virEventAddHandle(reader, READABLE, noting_once(rig, "pipe"), None)
        for unknown in (0, -1, NO_SUCH_ID):
            libvirt.virEventUpdateHandle(unknown, READABLE)
            libvirt.virEventUpdateTimeout(unknown, 0)
        direct = Direct(rig)
        removed = direct.add_handle(reader, 0, 1), direct.add_timeout(-1, 2)
        assert (direct.remove_handle(removed[0]), direct.remove_timeout(removed[1])) == (0, 0)
        for handle, timeout in (removed, (NO_SUCH_ID, NO_SUCH_ID)):
            assert (direct.remove_handle(handle), direct.remove_timeout(timeout)) == (-1, -1)
            with pytest.raises(libvirt.libvirtError):
                libvirt.virEventRemoveHandle(handle)
            with pytest.raises(libvirt.libvirtError):
                libvirt.virEventRemoveTimeout(timeout)
        os.write(writer, b"!")
        rig.until(lambda: rig.notes)
        still_works(rig)
        assert rig.noted(("pipe", READABLE)) == 1
        assert (len(direct.freed(1)), len(direct.freed(2))) == (1, 1)
        libvirt.virEventRemoveHandle(watch)

    @pytest.mark.parametrize("shared", [False, True], ids=["on fds of their own", "on one fd"])
    def test_a_watch_removed_by_its_sibling_is_not_called(self, rig: Rig, shared: bool) -> None:
        """H5, H4: both were ready."""
        first, _ = rig.pipe(b"!")
        second = first if shared else rig.pipe(b"!")[0]
        watches: dict[int, int] = {}

        def remove_the_other(watch: int, fd: int, events: int, n: int) -> None:
            libvirt.virEventRemoveHandle(watches[1 - n])
            libvirt.virEventUpdateHandle(watch, 0)
            rig.note("called")

        def add_both() -> None:
            for n, fd in enumerate((first, second)):
                watches[n] = libvirt.virEventAddHandle(fd, READABLE, remove_the_other, n)

        rig.on_loop(add_both)
        rig.until(lambda: rig.noted("called"))
        rig.settle()
        assert rig.noted("called") == 1
        assert rig.bridge.stats().handles == 1

    @pytest.mark.parametrize("kept_alive", [False, True], ids=["closed", "closed with a dup alive"])
    def test_an_fd_closed_without_removal_does_not_silence_the_next_watch_on_its_number(
        self, rig: Rig, kept_alive: bool
    ) -> None:
        """H11: both are on the number, and see its new file; of the closed one nobody hears."""
        reader, writer = rig.pipe()
        if kept_alive:
            rig.own(os.dup(reader))
        dead = libvirt.virEventAddHandle(reader, READABLE, noting_once(rig, "dead"), None)
        rig.settle()
        rig.close(reader)
        again, next_writer = rig.pipe()
        assert again == reader
        watch = libvirt.virEventAddHandle(again, READABLE, noting_once(rig, "next"), None)
        if kept_alive:
            os.write(writer, b"!")
        rig.settle()
        assert rig.notes == []
        os.write(next_writer, b"!")
        rig.until(lambda: rig.noted(("next", READABLE)))
        rig.settle()
        assert sorted(rig.notes) == [("dead", READABLE), ("next", READABLE)]
        libvirt.virEventRemoveHandle(dead)
        libvirt.virEventRemoveHandle(watch)


class TestFree(ThroughLibvirt):
    def test_a_handle_is_freed_once_on_the_loops_thread_after_its_last_call(self, rig: Rig) -> None:
        """H7: not inside remove, not inside its own callback, which removes it."""
        reader, _ = rig.pipe(b"!")
        direct = Direct(rig)
        loop_thread = rig.on_loop(threading.get_ident)
        rig.notes.clear()
        watches = SimpleQueue[int]()
        direct.then = lambda: direct.remove_handle(watches.get(timeout=PATIENCE))
        watches.put(direct.add_handle(reader, READABLE, 7))
        rig.until(lambda: direct.freed(7))
        rig.settle()
        assert rig.notes == [("called", 7), ("returned", 7), ("freed", 7, loop_thread, True)]

    def test_a_timeout_is_freed_once_on_the_loops_thread_after_its_last_call(self, rig: Rig) -> None:
        """T5, H7."""
        direct = Direct(rig)
        loop_thread = rig.on_loop(threading.get_ident)
        rig.notes.clear()
        timers = SimpleQueue[int]()
        direct.then = lambda: direct.remove_timeout(timers.get(timeout=PATIENCE))
        timers.put(direct.add_timeout(1, 7))
        rig.until(lambda: direct.freed(7))
        rig.settle()
        assert rig.notes == [("called", 7), ("returned", 7), ("freed", 7, loop_thread, True)]

    def test_what_is_removed_from_another_thread_is_freed_on_the_loops(self, rig: Rig) -> None:
        """H7: the remove itself frees nothing; the loop does."""
        reader, _ = rig.pipe()
        direct = Direct(rig)
        loop_thread = rig.on_loop(threading.get_ident)
        watch = direct.add_handle(reader, READABLE, 7)
        timer = direct.add_timeout(-1, 8)
        assert rig.from_thread(lambda: (direct.remove_handle(watch), direct.remove_timeout(timer))) == (0, 0)
        rig.until(lambda: direct.freed(7) and direct.freed(8))
        rig.settle()
        assert direct.freed(7) == [("freed", 7, loop_thread, True)]
        assert direct.freed(8) == [("freed", 8, loop_thread, True)]

    def test_closing_the_bridge_frees_what_is_left_once(self, rig: Rig) -> None:
        """D8: what libvirt asks of it later does no harm, and can register nothing."""
        reader, _ = rig.pipe()
        direct = Direct(rig)
        watch = direct.add_handle(reader, READABLE, 7)
        direct.add_timeout(-1, 8)
        rig.bridge.close()
        if rig.own_thread:
            rig.until(lambda: direct.freed(7) and direct.freed(8))
        direct.remove_handle(watch)
        assert direct.add_handle(reader, READABLE, 9) == -1
        assert [len(direct.freed(opaque)) for opaque in (7, 8, 9)] == [1, 1, 0]


class TestAnotherLoop(ThroughLibvirt):
    def test_events_keep_coming_when_a_second_loop_follows_the_first(
        self, rig: Rig, another: Callable[[], Rig]
    ) -> None:
        """D9: handle, timeout and an owed free move; each is called by the second loop, once."""
        reader, writer = rig.pipe()
        direct = Direct(rig)
        watch = direct.add_handle(reader, READABLE, 1)
        timer = direct.add_timeout(-1, 2)
        direct.then = lambda: (os.read(reader, 1), libvirt.virEventUpdateTimeout(timer, -1))
        os.write(writer, b"!")
        rig.until(lambda: rig.noted(("returned", 1)) == 1)
        second = direct.rig = another()
        second.until(lambda: installed() is second.bridge)  # where the first one runs, once its pass is over
        assert rig.bridge.is_empty()
        os.write(writer, b"!")
        second.until(lambda: second.noted(("returned", 1)) == 1)
        direct.then = lambda: libvirt.virEventUpdateTimeout(timer, -1)
        libvirt.virEventUpdateTimeout(timer, 1)
        second.until(lambda: second.noted(("returned", 2)) == 1)
        assert (direct.remove_handle(watch), direct.remove_timeout(timer)) == (0, 0)
        second.until(lambda: direct.freed(1) and direct.freed(2))
        assert rig.noted(("called", 1)) == second.noted(("called", 1)) == 1
        assert second.bridge.is_empty()

    def test_installing_the_same_bridge_again_changes_nothing(self, rig: Rig, another: Callable[[], Rig]) -> None:
        """D9: there and back again."""
        reader, writer = rig.pipe()
        watch = libvirt.virEventAddHandle(reader, READABLE, noting_once(rig, "pipe"), None)
        install(rig.bridge)
        second = another()
        install(rig.bridge)
        rig.until(lambda: installed() is rig.bridge)
        assert second.bridge.is_empty()
        os.write(writer, b"!")
        rig.until(lambda: rig.notes)
        still_works(rig)
        assert rig.noted(("pipe", READABLE)) == 1
        libvirt.virEventRemoveHandle(watch)


FIRST_IDS = """
import libvirt
import eventbridge
from eventbridge.adapters.hypervisors.libvirt import install
install(eventbridge.Bridge("select"))
print(libvirt.virEventAddHandle(0, 0, print, None), libvirt.virEventAddTimeout(-1, print, None))
"""


def test_the_first_ids_of_a_process_are_1() -> None:
    """H1: nothing was given out before, and 0 is never."""
    ids = subprocess.run([sys.executable, "-c", FIRST_IDS], stdin=subprocess.PIPE, capture_output=True, text=True)
    assert (ids.stdout, ids.stderr) == ("1 1\n", "")
