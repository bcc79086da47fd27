"""What libvirt checks of its own event loop in tests/eventtest.c, asked of ours through libvirt's C API.

On each board of 31 pipes and 31 timers one thing is done; what must be called is called with the right arguments, and
nothing else is, given three more rounds of the loop for it.
"""

from __future__ import annotations

import libvirt
import pytest
from capi_board import COUNT, LAST, READABLE, Board
from capi_rig import ThroughLibvirt

from eventbridge.testing.conformance.harness import Rig, busy


class TestEventtest(ThroughLibvirt):
    @pytest.fixture
    def board(self, rig: Rig) -> Board:
        return Board(rig)

    def test_a_byte_in_one_pipe_calls_its_handle_alone(self, board: Board) -> None:
        """H1, H2."""
        board.write(1)
        board.called(board.handle(1))

    def test_a_handle_removed_before_the_poll_is_not_called(self, board: Board) -> None:
        """H5."""
        board.remove_handle(0)
        board.write(0, 1)
        board.called(board.handle(1))

    def test_a_handle_removed_by_another_thread_while_the_loop_polls_is_not_called(self, board: Board) -> None:
        """H6, D6."""

        def act() -> None:
            board.remove_handle(0)
            board.write(0, 1)

        with board.while_polling(act):
            board.called(board.handle(1))

    def test_of_two_ready_handles_the_first_removes_the_second(self, board: Board) -> None:
        """H5: though the kernel had reported both in the same poll."""
        board.then[("handle", 0)] = lambda: board.remove_handle(1)
        board.then[("handle", 1)] = lambda: board.remove_handle(0)
        board.rig.on_loop(lambda: board.write(0, 1))
        board.called_one_of([board.handle(0), board.handle(1)])

    def test_a_handle_that_removes_itself_is_not_called_again(self, board: Board) -> None:
        """H5, H3: a second byte is still in the pipe."""
        board.then[("handle", 0)] = lambda: board.remove_handle(0)
        board.rig.on_loop(lambda: board.write(0, 0))
        board.called(board.handle(0))

    def test_a_disabled_timer_fires_once_it_is_given_a_time(self, board: Board) -> None:
        """T1, T2."""
        board.fire(100, 0)
        board.called(board.timer(0))

    def test_a_timer_removed_before_the_poll_does_not_fire(self, board: Board) -> None:
        """T5."""

        def act() -> None:
            board.fire(1, 0)
            board.remove_timer(0)
            board.fire(2, 1)

        board.rig.on_loop(act)
        board.called(board.timer(1))

    def test_a_timer_removed_by_another_thread_while_the_loop_polls_does_not_fire(self, board: Board) -> None:
        """T5, D6: timer 1 is due after timer 0 would have been."""

        def act() -> None:
            board.fire(300, 0)
            board.remove_timer(0)
            board.fire(301, 1)

        with board.while_polling(act):
            board.called(board.timer(1))

    def test_of_two_timers_due_together_the_first_removes_the_second(self, board: Board) -> None:
        """T5: both are past their deadlines when the loop next looks."""
        board.then[("timer", 0)] = lambda: board.remove_timer(1)
        board.then[("timer", 1)] = lambda: board.remove_timer(0)

        def act() -> None:
            board.fire(1, 0, 1)
            busy(0.005)

        board.rig.on_loop(act)
        board.called_one_of([board.timer(0), board.timer(1)])

    def test_a_timer_that_removes_itself_does_not_fire_again(self, board: Board) -> None:
        """T5: timer 1 is due when timer 0 would be for the fourth time."""

        def remove_and_try() -> None:
            board.remove_timer(0)
            board.fire(2, 0)  # unknown by now: libvirt's update has no way to fail
            board.fire(8, 1)

        board.then[("timer", 0)] = remove_and_try
        board.fire(2, 0)
        board.called(board.timer(0), board.timer(1))

    def test_the_last_handle_and_timer_go_on_when_all_others_are_removed(self, board: Board) -> None:
        """H5, T5: four times."""
        for n in range(LAST):
            board.remove_handle(n)
            board.remove_timer(n)
        for _ in range(4):
            board.write(*range(COUNT))
            board.called(board.handle(LAST))
            board.fire(1, LAST)
            board.called(board.timer(LAST))

    def test_of_two_handles_on_one_fd_the_one_that_asks_for_nothing_is_not_called(self, board: Board) -> None:
        """H2, H4: whichever of the two came first."""
        asks_nothing = libvirt.virEventAddHandle(board.pipes[0][0], 0, board._readable, -1)
        board.write(0)
        board.called(board.handle(0))
        libvirt.virEventUpdateHandle(board.handles[0], 0)
        libvirt.virEventUpdateHandle(asks_nothing, READABLE)
        board.write(0)
        board.called(("handle", -1, asks_nothing, board.pipes[0][0], READABLE))
