"""Rule H11, on whatever host: handles are on numbers, epoll is on files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from typing import Any

from eventbridge.core.masks import Events

from .base import Rules
from .harness import raises

R = int(Events.READABLE)
W = int(Events.WRITABLE)


class ReuseRules(Rules):
    """What an owner may do that closes an fd before it removes the handle."""

    def reused(self, old: int) -> int:
        """Close ``old`` and put a new pipe's reader on its number; returns the writer."""
        reader, writer = self.rig.pipe()
        os.dup2(reader, old)
        self.rig.close(reader)
        return writer

    def ghost_of(self, fd: int) -> int:
        """A dup: it keeps the file alive, and the poller watching it, when ``fd`` is closed."""
        ghost = os.dup(fd)
        self.rig.own(ghost)
        return ghost

    def test_closing_before_removing_is_harmless(self) -> None:
        """H11: no crash, no busy loop, and a free as ever."""
        reader, _ = self.rig.pipe(b"x")
        id = self.bridge.add_handle(reader, 0, self.rig.noting("called"), None, self.rig.noting("free"))
        self.bridge.update_handle(id, R)
        self.rig.close(reader)
        self.bridge.remove_handle(id)
        self.rig.until(lambda: self.rig.noted("free"))
        assert self.rig.quiet() < 20
        assert not self.rig.errors

    def test_the_next_file_on_the_number_is_watched(self) -> None:
        """H11: closed, removed, opened again, registered again."""
        reader, _ = self.rig.pipe()
        id = self.bridge.add_handle(reader, R, self.rig.noting("old"))
        writer = self.reused(reader)
        self.bridge.remove_handle(id)
        self.bridge.add_handle(reader, R, self.rig.reading("new"))
        os.write(writer, b"x")
        self.rig.until(lambda: self.rig.noted(("new", R)))
        assert not self.rig.noted("old")

    def test_handles_still_on_a_reused_number_see_the_new_file(self) -> None:
        """H11: the stale handle and a new one."""
        reader, _ = self.rig.pipe()
        self.bridge.add_handle(reader, R, self.rig.noting("stale"))
        writer = self.reused(reader)
        self.bridge.add_handle(reader, R, self.rig.noting("new"))
        self.rig.settle()
        assert not self.rig.noted("stale")
        os.write(writer, b"x")
        self.rig.until(lambda: self.rig.noted("stale") and self.rig.noted("new"))

    def test_an_update_finds_the_new_file(self) -> None:
        """H11: MOD meets ENOENT and adds."""
        reader, _ = self.rig.pipe()
        id = self.bridge.add_handle(reader, 0, self.rig.reading("handle"))
        self.bridge.update_handle(id, R)
        writer = self.reused(reader)
        self.bridge.update_handle(id, R | W)
        self.bridge.update_handle(id, R)
        os.write(writer, b"x")
        self.rig.until(lambda: self.rig.noted(("handle", R)))

    def test_an_update_of_a_closed_number_says_so_and_the_next_file_is_watched(self) -> None:
        """H11, H8."""
        reader, _ = self.rig.pipe()
        id = self.bridge.add_handle(reader, R, self.rig.reading("handle"))
        os.close(reader)
        with raises(OSError):
            self.bridge.update_handle(id, R | W)
        fresh, fresh_writer = os.pipe()
        if fresh_writer == reader:  # a thread that ends, Qt's say, has given back a lower number meanwhile
            fresh_writer = os.dup(fresh_writer)
        self.rig.own(fresh_writer)
        if fresh != reader:
            os.dup2(fresh, reader)
            os.close(fresh)
        self.bridge.update_handle(id, R | W)
        self.bridge.update_handle(id, R)
        os.write(fresh_writer, b"x")
        self.rig.until(lambda: self.rig.noted(("handle", R)))

    def test_a_closed_file_that_a_dup_keeps_alive_reaches_nobody_once_removed(self) -> None:
        """H11: an event for a number that nobody holds; the poller is rebuilt, and does not spin."""
        reader, writer = self.rig.pipe()
        self.ghost_of(reader)
        id = self.bridge.add_handle(reader, R, self.rig.noting("old"))
        self.rig.settle()
        self.rig.close(reader)
        self.bridge.remove_handle(id)
        os.write(writer, b"ghost")
        assert self.rig.quiet() < 20
        assert not self.rig.noted("old")
        other, _ = self.rig.pipe(b"x")
        self.bridge.add_handle(other, R, self.rig.reading("other"))
        self.rig.until(lambda: self.rig.noted(("other", R)))

    def test_a_ghost_does_not_reach_the_next_handle_on_the_number(self) -> None:
        """H11: ADD succeeds for a number that was held; removed before, and not."""
        for remove_first in (True, False):
            reader, writer = self.rig.pipe()
            self.ghost_of(reader)
            id = self.bridge.add_handle(reader, R, self.rig.noting("old"))
            self.rig.settle()
            new_writer = self.reused(reader)
            if remove_first:
                self.bridge.remove_handle(id)
            new = self.bridge.add_handle(reader, R, self.rig.reading("new"))
            if not remove_first:
                self.bridge.remove_handle(id)
            os.write(writer, b"ghost")
            self.rig.settle()
            assert not self.rig.noted("old")
            assert not self.rig.noted(("new", R))
            assert self.rig.quiet() < 20
            os.write(new_writer, b"x")
            self.rig.until(lambda: self.rig.noted(("new", R)))
            self.bridge.remove_handle(new)
            self.rig.notes.clear()

    def test_a_ghost_found_by_an_update_reaches_nobody(self) -> None:
        """H11: MOD meets ENOENT for a number whose old file lives on."""
        reader, writer = self.rig.pipe()
        self.ghost_of(reader)
        id = self.bridge.add_handle(reader, R, self.rig.reading("handle"))
        self.rig.settle()
        new_writer = self.reused(reader)
        self.bridge.update_handle(id, 0)
        self.bridge.update_handle(id, R)
        os.write(writer, b"ghost")
        self.rig.settle()
        assert self.rig.noted(("handle", R)) == 0
        assert self.rig.quiet() < 20
        os.write(new_writer, b"x")
        self.rig.until(lambda: self.rig.noted(("handle", R)))

    def test_a_ghost_kept_alive_by_a_child_does_not_spin_the_loop(self) -> None:
        """H11: the child has inherited the fd, and nobody in this process has it any more."""
        reader, writer = self.rig.pipe()
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[reader]
        ) as child:
            id = self.bridge.add_handle(reader, R, self.rig.noting("old"))
            self.rig.settle()
            self.rig.close(reader)
            self.bridge.remove_handle(id)
            os.write(writer, b"ghost")
            assert self.rig.quiet() < 20
            assert not self.rig.noted("old")
            assert child.stdin is not None
            child.stdin.close()

    def test_a_ghost_that_keeps_firing_under_a_held_number_is_found(self) -> None:
        """H11: the owner has closed the fd, removed nothing, and its callback fails on the closed number."""
        reader, writer = self.rig.pipe()
        self.ghost_of(reader)
        self.bridge.add_handle(reader, R, lambda id, fd, events, opaque: os.read(fd, 1))
        self.rig.settle()
        self.rig.close(reader)
        os.write(writer, b"ghost")
        self.rig.settle()
        self.rig.errors.clear()
        assert self.rig.quiet() < 20
        assert not self.rig.errors

    def test_a_ghost_that_is_not_read_is_found_by_the_audit(self) -> None:
        """H11: the callback fails at nothing, so that only the looks now and then can tell."""
        reader, writer = self.rig.pipe()
        self.ghost_of(reader)
        self.bridge.add_handle(reader, R, self.rig.noting("ghost"))
        self.rig.close(reader)
        os.write(writer, b"ghost")
        self.rig.settle(rounds=70)
        assert self.rig.quiet() < 20

    def test_rebuilding_keeps_everything_else(self) -> None:
        """H11: handles, timeouts and their masks are as before."""
        on, on_writer = self.rig.pipe()
        off, _ = self.rig.pipe(b"x")
        self.bridge.add_handle(on, R, self.rig.reading("on"))
        self.bridge.add_handle(off, 0, self.rig.noting("off"))
        self.bridge.add_timeout(1, self.rig.noting("tick"))
        reader, writer = self.rig.pipe()
        self.ghost_of(reader)
        id = self.bridge.add_handle(reader, R, self.rig.noting("old"))
        self.rig.close(reader)
        self.bridge.remove_handle(id)
        os.write(writer, b"ghost")
        self.rig.settle()
        ticks = self.rig.noted("tick")
        self.rig.until(lambda: self.rig.noted("tick") > ticks + 2)
        os.write(on_writer, b"x")
        self.rig.until(lambda: self.rig.noted(("on", R)))
        assert not self.rig.noted("off")
        assert not self.rig.noted("old")

    def test_a_number_may_become_a_regular_file_and_a_pipe_again(self) -> None:
        """H11, H9."""
        reader, writer = self.rig.pipe()
        id = self.bridge.add_handle(reader, R, self.rig.reading("handle"))
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), reader)
        self.bridge.update_handle(id, W)
        self.rig.until(lambda: self.rig.noted(("handle", W)))
        self.bridge.remove_handle(id)
        writer = self.reused(reader)
        self.bridge.add_handle(reader, R, self.rig.reading("pipe"))
        os.write(writer, b"x")
        self.rig.until(lambda: self.rig.noted(("pipe", R)))

    def test_many_numbers_closed_by_others_meanwhile_lose_nothing(self) -> None:
        """H11: an owner that closes first and reuses numbers all the time; each new file's bytes arrive."""
        arrived: dict[int, int] = {}

        def take(id: int, fd: int, events: int, opaque: Any) -> None:
            arrived[opaque] = len(os.read(fd, 100))
            self.rig.note("taken")

        reader, writer = self.rig.pipe()
        id = self.bridge.add_handle(reader, R, take, 0)
        for turn in range(1, 20):
            if turn % 2:
                self.ghost_of(reader)
            fresh = self.reused(reader)
            self.bridge.remove_handle(id)
            id = self.bridge.add_handle(reader, R, take, turn)
            with contextlib.suppress(BrokenPipeError):  # where no dup keeps it alive
                os.write(writer, b"ghost")
            os.write(fresh, b"x" * turn)
            self.rig.until(lambda turn=turn: turn in arrived)  # type: ignore[misc]  # a default binds the turn
            writer = fresh
        assert arrived == {turn: turn for turn in range(1, 20)}
