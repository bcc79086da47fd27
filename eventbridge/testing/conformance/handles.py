"""Rules H1 to H10, on whatever host: handles."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
import threading
from typing import Any

from eventbridge.core.masks import Events
from eventbridge.errors import UnknownHandle

from .base import Rules
from .harness import raises

R, W, E, H, P = (int(event) for event in Events)


class HandleRules(Rules):
    """What a handle may rely on."""

    def test_ids_start_at_1_grow_and_are_never_reused(self) -> None:
        """H1."""
        reader, _ = self.rig.pipe()
        first = self.bridge.add_handle(reader, R, self.rig.noting("a"))
        second = self.bridge.add_handle(reader, R, self.rig.noting("b"))
        self.bridge.remove_handle(second)
        third = self.bridge.add_handle(reader, R, self.rig.noting("c"))
        assert first == 1
        assert first < second < third

    def test_a_callback_is_told_id_fd_events_and_opaque(self) -> None:
        """H1."""
        reader, _ = self.rig.pipe(b"x")
        id = self.bridge.add_handle(reader, R, lambda *told: self.rig.note(told), "opaque")
        self.rig.until(lambda: self.rig.notes)
        assert self.rig.notes[0] == (id, reader, R, "opaque")

    def test_unpack_passes_the_first_two_of_opaque(self) -> None:
        """H1."""
        reader, _ = self.rig.pipe(b"x")
        id = self.bridge.add_handle(reader, R, lambda *told: self.rig.note(told), ("a", "b", "c"), unpack=True)
        self.rig.until(lambda: self.rig.notes)
        assert self.rig.notes[0] == (id, reader, R, "a", "b")

    def test_what_is_asked_for_is_what_is_reported(self) -> None:
        """H2."""
        ours, theirs = self.rig.sockets()
        self.bridge.add_handle(ours.fileno(), W, self.rig.reading("writable"))
        self.rig.until(lambda: self.rig.noted(("writable", W)))
        theirs.send(b"x")
        self.rig.settle()
        assert set(self.rig.notes) == {("writable", W)}, "READABLE was not asked for"
        self.bridge.add_handle(theirs.fileno(), R | W, self.rig.reading("both"))
        ours.send(b"x")
        self.rig.until(lambda: self.rig.noted(("both", R | W)))
        ours.detach(), theirs.detach()

    def test_hangup_is_reported_unasked(self) -> None:
        """H2."""
        reader, writer = self.rig.pipe()
        self.bridge.add_handle(reader, R, self.rig.reading("pipe"))
        self.rig.close(writer)
        self.rig.until(lambda: self.rig.notes)
        assert self.rig.notes[0][1] & H

    def test_error_is_reported_unasked(self) -> None:
        """H2: the writing end of a pipe whose reader has gone."""
        reader, writer = self.rig.pipe()
        self.bridge.add_handle(writer, W, self.rig.reading("pipe"))
        self.rig.close(reader)
        self.rig.until(lambda: any(note[1] & E for note in self.rig.notes))

    def test_a_handle_that_asks_for_errors_alone_hears_of_a_hangup(self) -> None:
        """H2."""
        reader, writer = self.rig.pipe(b"x")
        self.bridge.add_handle(reader, E, self.rig.reading("pipe"))
        self.rig.settle()
        assert not self.rig.notes
        self.rig.close(writer)
        self.rig.until(lambda: self.rig.noted(("pipe", H)))

    def test_priority_is_out_of_band_data(self) -> None:
        """H2."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            peer, _ = server.accept()
        with client, peer:
            id = self.bridge.add_handle(peer.fileno(), P, self.rig.reading("urgent"))
            client.send(b"x")
            self.rig.settle()
            assert not self.rig.notes
            client.send(b"!", socket.MSG_OOB)
            self.rig.until(lambda: self.rig.noted(("urgent", P)))
            self.bridge.remove_handle(id)

    def test_a_handle_turned_off_hears_nothing_and_can_be_turned_on(self) -> None:
        """H2: not READABLE, not HANGUP."""
        reader, writer = self.rig.pipe(b"x")
        id = self.bridge.add_handle(reader, 0, self.rig.reading("pipe"))
        self.rig.close(writer)
        self.rig.settle()
        assert not self.rig.notes
        self.bridge.update_handle(id, R)
        self.rig.until(lambda: self.rig.noted(("pipe", R | H)))

    def test_a_peer_that_hung_up_does_not_spin_the_loop_of_a_handle_turned_off(self) -> None:
        """H2: a mask of 0 costs no CPU."""
        reader, writer = self.rig.pipe()
        id = self.bridge.add_handle(reader, R, self.rig.reading("pipe"))
        self.bridge.update_handle(id, 0)
        self.rig.close(writer)
        assert self.rig.quiet() < 20
        assert not self.rig.notes
        self.bridge.update_handle(id, R)
        self.rig.until(lambda: self.rig.noted(("pipe", H)))

    def test_what_is_not_drained_is_delivered_again(self) -> None:
        """H3."""
        reader, _ = self.rig.pipe(b"x")
        self.bridge.add_handle(reader, R, self.rig.noting("again"))
        self.rig.until(lambda: self.rig.noted("again") >= 3)

    def test_what_is_drained_is_not_delivered_again(self) -> None:
        """H3."""
        reader, _ = self.rig.pipe(b"x")
        self.bridge.add_handle(reader, R, self.rig.reading("once"))
        self.rig.until(lambda: self.rig.notes)
        self.rig.settle()
        assert self.rig.notes == [("once", R)]

    def test_several_handles_on_one_fd_each_get_what_they_asked_for(self) -> None:
        """H4."""
        ours, theirs = self.rig.sockets()
        fd = ours.fileno()
        self.bridge.add_handle(fd, R, self.rig.noting("reader"))
        self.bridge.add_handle(fd, W, lambda id, fd, events, opaque: self.rig.note(("writer", events)))
        self.bridge.add_handle(fd, 0, self.rig.noting("off"))
        self.rig.until(lambda: self.rig.noted(("writer", W)))
        assert not self.rig.noted("reader")
        theirs.send(b"x")
        self.rig.until(lambda: self.rig.noted("reader"))
        assert not self.rig.noted("off")
        assert {note for note in self.rig.notes if isinstance(note, tuple)} == {("writer", W)}
        ours.detach(), theirs.detach()

    def test_removing_one_of_several_leaves_the_others(self) -> None:
        """H4."""
        reader, writer = self.rig.pipe()
        ids = [self.bridge.add_handle(reader, R, self.rig.noting(name)) for name in "abc"]
        self.bridge.remove_handle(ids[1])
        os.write(writer, b"x")
        self.rig.until(lambda: self.rig.noted("a") and self.rig.noted("c"))
        self.bridge.remove_handle(ids[0])
        self.rig.settle()
        before = self.rig.noted("a")
        again = self.rig.noted("c")
        self.rig.until(lambda: self.rig.noted("c") > again)
        assert self.rig.noted("a") == before
        assert not self.rig.noted("b")

    def test_hangup_reaches_every_handle_of_the_fd_but_those_turned_off(self) -> None:
        """H4, H2."""
        reader, writer = self.rig.pipe()
        for name, mask in (("read", R), ("errors", E), ("off", 0)):
            self.bridge.add_handle(reader, mask, self.rig.noting(name))
        self.rig.close(writer)
        self.rig.until(lambda: self.rig.noted("read") and self.rig.noted("errors"))
        assert not self.rig.noted("off")

    def test_the_first_of_two_ready_may_remove_the_second(self) -> None:
        """H5, H6: whichever comes first, the other is never called."""
        fds = [self.rig.pipe(b"x")[0] for _ in range(2)]
        ids: dict[int, int] = {}

        def remove_the_other(id: int, fd: int, events: int, opaque: Any) -> None:
            (other,) = set(ids.values()) - {id}
            self.bridge.remove_handle(other)
            os.read(fd, 1)
            self.rig.note(id)

        def add() -> None:
            for fd in fds:
                ids[fd] = self.bridge.add_handle(fd, R, remove_the_other)

        self.rig.on_loop(add)
        self.rig.until(lambda: set(self.rig.notes) & set(ids.values()))
        self.rig.settle()
        assert len([note for note in self.rig.notes if note in ids.values()]) == 1

    def test_the_first_of_two_ready_may_turn_the_second_off(self) -> None:
        """H5."""
        fds = [self.rig.pipe(b"x")[0] for _ in range(2)]
        ids: list[int] = []

        def turn_the_other_off(id: int, fd: int, events: int, opaque: Any) -> None:
            (other,) = set(ids) - {id}
            self.bridge.update_handle(other, 0)
            os.read(fd, 1)
            self.rig.note(id)

        self.rig.on_loop(lambda: ids.extend(self.bridge.add_handle(fd, R, turn_the_other_off) for fd in fds))
        self.rig.until(lambda: set(self.rig.notes) & set(ids))
        self.rig.settle()
        assert len([note for note in self.rig.notes if note in ids]) == 1

    def test_a_handle_may_remove_itself(self) -> None:
        """H5."""
        reader, _ = self.rig.pipe(b"x")

        def callback(id: int, fd: int, events: int, opaque: Any) -> None:
            self.bridge.remove_handle(id)
            self.rig.note("once")

        self.bridge.add_handle(reader, R, callback, None, self.rig.noting("free"))
        self.rig.until(lambda: self.rig.noted("free"))
        self.rig.settle()
        assert self.rig.notes == ["once", "free"]

    def test_a_number_closed_and_registered_again_in_a_pass_does_not_get_the_old_event(self) -> None:
        """H5: two are ready; the first closes the second's fd, and opens and registers a quiet one on its number."""
        fds = [self.rig.pipe(b"x")[0] for _ in range(2)]
        ids: dict[int, int] = {}

        def replace_the_other(id: int, fd: int, events: int, opaque: Any) -> None:
            os.read(fd, 1)
            (other,) = set(fds) - {fd}
            self.bridge.remove_handle(ids[other])
            quiet, _ = self.rig.pipe()
            os.dup2(quiet, other)
            self.bridge.add_handle(other, R, self.rig.noting("stale"))
            self.rig.note("replaced")

        def add() -> None:
            ids.update({fd: self.bridge.add_handle(fd, R, replace_the_other) for fd in fds})

        self.rig.on_loop(add)
        self.rig.until(lambda: self.rig.noted("replaced"))
        self.rig.settle()
        assert self.rig.noted("replaced") == 1
        assert not self.rig.noted("stale")

    def test_a_change_on_another_thread_takes_effect_while_the_loop_runs(self) -> None:
        """H5, H6, D6."""
        reader, _ = self.rig.pipe(b"x")
        id = self.bridge.add_handle(reader, 0, self.rig.noting("called"))
        self.rig.from_thread(lambda: self.bridge.update_handle(id, R))
        self.rig.until(lambda: self.rig.noted("called"))
        self.rig.from_thread(lambda: self.bridge.remove_handle(id))
        self.rig.settle()
        before = self.rig.noted("called")
        self.rig.settle()
        assert self.rig.noted("called") == before

    def test_free_comes_once_on_the_loops_thread_with_a_clean_stack(self) -> None:
        """H7: after the last call has returned, and never inside remove or inside the callback."""
        reader, _ = self.rig.pipe(b"x")
        inside: list[str] = []
        threads: list[int] = []

        def callback(id: int, fd: int, events: int, opaque: Any) -> None:
            inside.append("callback")
            threads.append(threading.get_ident())
            self.bridge.remove_handle(id)
            self.rig.note("removed")
            inside.pop()

        def free(opaque: Any) -> None:
            threads.append(threading.get_ident())
            self.rig.note(("free", opaque, list(inside)))

        self.bridge.add_handle(reader, R, callback, "opaque", free)
        self.rig.until(lambda: self.rig.noted(("free", "opaque", [])))
        self.rig.settle()
        assert self.rig.notes == ["removed", ("free", "opaque", [])]
        assert set(threads) == {self.rig.loop_thread}

    def test_free_does_not_come_inside_remove(self) -> None:
        """H7: removed on the loop's thread, outside of its own callback."""
        reader, _ = self.rig.pipe()
        id = self.bridge.add_handle(reader, R, self.rig.noting("called"), None, self.rig.noting("free"))

        def remove() -> int:
            self.bridge.remove_handle(id)
            return self.rig.noted("free")

        assert self.rig.on_loop(remove) == 0
        self.rig.until(lambda: self.rig.noted("free"))
        self.rig.settle()
        assert self.rig.noted("free") == 1
        assert not self.rig.noted("called")

    def test_free_comes_on_the_loops_thread_when_another_removes(self) -> None:
        """H7, D1."""
        reader, _ = self.rig.pipe()
        free = lambda opaque: self.rig.note(threading.get_ident())  # noqa: E731  # one line says it all
        id = self.bridge.add_handle(reader, R, self.rig.noting("called"), None, free)
        self.rig.from_thread(lambda: self.bridge.remove_handle(id))
        loop = self.rig.loop_thread
        self.rig.until(lambda: self.rig.noted(loop))
        assert self.rig.notes.count(loop) == 1

    def test_unknown_ids_raise_and_change_nothing(self) -> None:
        """H8."""
        reader, _ = self.rig.pipe(b"x")
        id = self.bridge.add_handle(reader, R, self.rig.noting("called"))
        for unknown in (0, -1, id + 1, 10**9):
            with raises(UnknownHandle) as caught:
                self.bridge.remove_handle(unknown)
            assert isinstance(caught[0], KeyError)
            with raises(UnknownHandle):
                self.bridge.update_handle(unknown, R)
        self.rig.until(lambda: self.rig.noted("called"))
        self.bridge.remove_handle(id)
        with raises(UnknownHandle):
            self.bridge.remove_handle(id)

    def test_files_that_epoll_refuses_are_always_ready_for_what_was_asked(self) -> None:
        """H9: a regular file, a directory, /dev/null."""
        with tempfile.TemporaryDirectory() as folder, open(f"{folder}/file", "w+") as file:
            directory = os.open(folder, os.O_RDONLY)
            null = os.open("/dev/null", os.O_RDWR)
            self.rig.own(directory, null)
            for name, fd, mask in (("file", file.fileno(), R), ("directory", directory, R), ("null", null, R | W)):
                callback = lambda id, fd, events, name: self.rig.note((name, events))  # noqa: E731  # one line says it all
                self.bridge.add_handle(fd, mask, callback, name)
            wanted = {("file", R), ("directory", R), ("null", R | W)}
            self.rig.until(lambda: wanted <= set(self.rig.notes))
            assert set(self.rig.notes) <= {*wanted, "error"}
            assert not self.rig.errors

    def test_an_always_ready_file_can_be_turned_off_on_and_removed(self) -> None:
        """H9, H2, H5."""
        with tempfile.TemporaryFile() as file:
            id = self.bridge.add_handle(file.fileno(), R, self.rig.noting("file"))
            self.rig.until(lambda: self.rig.noted("file") >= 2)
            self.bridge.update_handle(id, 0)
            assert self.rig.quiet() < 20
            self.rig.notes.clear()
            self.rig.settle()
            assert not self.rig.noted("file")
            self.bridge.update_handle(id, W)
            self.rig.until(lambda: self.rig.noted("file"))
            self.bridge.remove_handle(id)
            self.rig.settle()
            self.rig.notes.clear()
            self.rig.settle()
            assert not self.rig.noted("file")

    def test_an_always_ready_file_may_have_several_handles(self) -> None:
        """H9, H4."""
        with tempfile.TemporaryFile() as file:
            first = self.bridge.add_handle(file.fileno(), R, self.rig.noting("first"))
            self.bridge.add_handle(file.fileno(), W, self.rig.noting("second"))
            self.rig.until(lambda: self.rig.noted("first") and self.rig.noted("second"))
            self.bridge.remove_handle(first)
            self.rig.settle()
            self.rig.notes.clear()
            self.rig.until(lambda: self.rig.noted("second") >= 2)
            assert not self.rig.noted("first")

    def test_fds_are_never_closed_and_their_flags_never_changed(self) -> None:
        """H10: O_NONBLOCK stays as it was, either way."""
        for blocking in (True, False):
            reader, writer = self.rig.pipe(b"x")
            os.set_blocking(reader, blocking)
            before = fcntl.fcntl(reader, fcntl.F_GETFL), fcntl.fcntl(reader, fcntl.F_GETFD)
            id = self.bridge.add_handle(reader, R, self.rig.noting("called"))
            self.rig.until(lambda: self.rig.noted("called"))
            self.bridge.update_handle(id, R | W)
            self.bridge.remove_handle(id)
            self.rig.settle()
            assert before == (fcntl.fcntl(reader, fcntl.F_GETFL), fcntl.fcntl(reader, fcntl.F_GETFD))
            os.write(writer, b"x")

    def test_a_failed_add_leaves_nothing_behind(self) -> None:
        """H8, H1: bad fds, masks and callbacks; a number may have been taken for them, and is no handle."""
        reader, _ = self.rig.pipe()
        gone, _ = self.rig.pipe()
        self.rig.close(gone)
        noting = self.rig.noting("called")
        bad: list[tuple[type[Exception], tuple[Any, ...]]] = [
            (OSError, (gone, R, noting)),
            (OSError, (gone, 0, noting)),
            (ValueError, (-1, R, noting)),
            (TypeError, ("0", R, noting)),
            (ValueError, (reader, 32, noting)),
            (ValueError, (reader, -1, noting)),
            (TypeError, (reader, "r", noting)),
            (TypeError, (reader, R, None)),
            (TypeError, (reader, R, noting, None, "free")),
        ]
        for kind, arguments in bad:
            with raises(kind) as caught:
                self.bridge.add_handle(*arguments)
            assert kind is not OSError or getattr(caught[0], "errno", 0) == errno.EBADF
        assert self.bridge.stats().handles == 0
        id = self.bridge.add_handle(reader, R, noting)
        for other in range(id):
            with raises(UnknownHandle):
                self.bridge.remove_handle(other)
        assert self.bridge.add_handle(reader, R, noting) == id + 1
