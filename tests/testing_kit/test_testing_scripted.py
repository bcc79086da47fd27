"""The kit's scripted fd: what the test says has happened in the kernel, and what was read is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from eventbridge import Bridge, Events
from eventbridge.testing import ScriptedFd, SteppingHost
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE

Make = Callable[..., ScriptedFd]
R, W, H, P = Events.READABLE, Events.WRITABLE, Events.HANGUP, Events.PRIORITY


@pytest.fixture
def bridge(stepping: SteppingHost) -> Iterator[Bridge]:
    with Bridge(stepping) as bridge:
        yield bridge


@pytest.mark.parametrize("over", ["socketpair", "pipe", "tcp"])
def test_it_is_ready_when_the_far_side_has_sent(
    scripted_fd: Make, bridge: Bridge, stepping: SteppingHost, over: str
) -> None:
    """H3: and told once, for it was read."""
    fd = scripted_fd(over)
    bridge.add_handle(fd.fileno(), R, fd.callback)
    stepping.step_until_idle()
    assert fd.calls == []
    fd.send(b"hello")
    assert stepping.step_until_idle() == 1
    assert fd.calls == [(R, b"hello")]


def test_it_hangs_up_behind_what_was_sent(scripted_fd: Make, bridge: Bridge, stepping: SteppingHost) -> None:
    """H2."""
    fd = scripted_fd(content=b"last")
    fd.hang_up()
    bridge.add_handle(fd.fileno(), R, fd.callback)
    stepping.step()
    assert fd.calls == [(R | H, b"last")]
    stepping.step()
    assert fd.calls[1:] == [(R | H, b"")]
    assert fd.heard == b"last"


def test_it_is_writable_until_it_is_full(scripted_fd: Make, bridge: Bridge, stepping: SteppingHost) -> None:
    """H2."""
    fd = scripted_fd()
    written = fd.fill()
    bridge.add_handle(fd.fileno(), W, fd.callback)
    stepping.step_until_idle()
    assert fd.calls == [] and written > 0
    assert len(fd.drain()) == written
    stepping.step()
    assert fd.calls == [(W, b"")]


def test_it_has_priority(scripted_fd: Make, bridge: Bridge, stepping: SteppingHost) -> None:
    """H2: a byte out of band."""
    fd = scripted_fd("tcp")
    bridge.add_handle(fd.fileno(), P, fd.callback)
    fd.send_urgent(b"!")
    assert stepping.step_until(lambda: bool(fd.calls), patience=PATIENCE)
    assert fd.calls[0] == (P, b"")


def test_it_is_closed_and_the_next_file_takes_its_number(
    scripted_fd: Make, bridge: Bridge, stepping: SteppingHost
) -> None:
    """H11: the handle that is still there hears of the new file when that is registered; of the old, never."""
    old = scripted_fd()
    bridge.add_handle(old.fileno(), R, old.callback)
    old.ghost()
    old.send(b"old")
    old.close()
    new = old.reuse(content=b"new")
    assert new.fileno() == old.fileno()
    bridge.add_handle(new.fileno(), R, new.callback)
    stepping.step_until_idle()
    assert b"old" not in (old.heard, new.heard)
    assert old.heard + new.heard == b"new"
    new.end()


@pytest.mark.parametrize("over", ["socketpair", "pipe"])
@pytest.mark.parametrize("closed_first", [True, False])
def test_reused_it_is_another_file_with_a_far_side_of_its_own(over: str, closed_first: bool) -> None:
    before = open_fds()
    old = ScriptedFd(over, content=b"old")
    inode = os.fstat(old.fileno()).st_ino
    if closed_first:
        old.close()
    new = old.reuse()
    assert new.fileno() == old.fileno()
    assert os.fstat(new.fileno()).st_ino != inode
    assert new.read() == b""
    new.send(b"new")
    assert new.read() == b"new"
    old.end()
    new.send(b"alive")
    assert new.read() == b"alive", "the old one's end closes nothing of the new one's"
    new.end()
    new.end()
    assert not open_fds() - before


def test_the_far_ends_number_may_be_the_one_that_is_reused() -> None:
    """Closed, its number is the next but one to be given out, and the new far end has it."""
    lower = os.dup(0)
    fd = ScriptedFd()
    assert lower < fd.fileno()
    fd.close()
    os.close(lower)
    new = fd.reuse(content=b"x")
    assert new.fileno() == fd.fileno()
    assert new.read() == b"x"
    fd.end()
    new.end()


def test_it_can_be_read_by_hand_and_what_is_not_there_is_nothing(scripted_fd: Make) -> None:
    fd = scripted_fd(content=b"x")
    assert (fd.read(), fd.read()) == (b"x", b"")
    assert fd.calls == [] and fd.heard == b""
