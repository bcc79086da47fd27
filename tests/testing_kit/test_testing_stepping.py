"""The kit's stepping host: nothing happens between two steps, and a step is one pass."""

from __future__ import annotations

import os
import threading

import pytest

from eventbridge import Bridge, HostUnavailable
from eventbridge.core import dispatcher, mailbox
from eventbridge.core.host import HostLoop, RunnableHost
from eventbridge.testing import SteppingHost
from tests.support.patience import PATIENCE


def test_it_is_a_host_and_not_ours_to_run(stepping: SteppingHost) -> None:
    assert isinstance(stepping, HostLoop)
    assert not isinstance(stepping, RunnableHost)
    with Bridge(stepping) as bridge, pytest.raises(HostUnavailable):
        bridge.run()


def test_a_step_is_one_pass(stepping: SteppingHost) -> None:
    """D2: 300 that are ready take two."""
    calls: list[int] = []
    with Bridge(stepping) as bridge:
        for _ in range(300):
            bridge.add_timeout(0, lambda id, opaque: calls.append(id))
        assert calls == []
        assert stepping.step() is True
        assert len(calls) <= 256
        before = len(calls)
        assert stepping.step() is True
        assert len(calls) > before


def test_nothing_to_do_is_no_pass(stepping: SteppingHost) -> None:
    with Bridge(stepping) as bridge:
        stepping.step_until_idle()
        passes = bridge.stats().passes
        assert stepping.step() is False
        assert bridge.stats().passes == passes


def test_what_is_left_for_the_loop_is_called_in_its_step(stepping: SteppingHost) -> None:
    """D6: by another thread, and in order."""
    called: list[int] = []
    stepping.here = False
    for number in range(3):
        stepping.call_soon_threadsafe(lambda number=number: called.append(number))  # type: ignore[misc]
    assert called == [] and not stepping.is_loop_thread()
    stepping.step()
    assert called == [0, 1, 2]


def test_a_watch_taken_back_by_a_sibling_is_not_called(stepping: SteppingHost) -> None:
    readers = [os.eventfd(1), os.eventfd(1)]
    called: list[int] = []

    def take_back_the_other(fd: int) -> None:
        called.append(fd)
        for other in readers:
            if other != fd:
                stepping.unwatch(other)

    for fd in readers:
        stepping.watch(fd, lambda fd=fd: take_back_the_other(fd))  # type: ignore[misc]  # a default binds the fd
    stepping.step()
    assert len(called) == 1
    for fd in readers:
        os.close(fd)


def test_what_another_thread_does_can_be_waited_for(stepping: SteppingHost) -> None:
    reader, writer = os.pipe()
    seen: list[bytes] = []
    with Bridge(stepping) as bridge:
        bridge.add_handle(reader, 1, lambda id, fd, events, opaque: seen.append(os.read(fd, 10)))
        thread = threading.Thread(target=lambda: os.write(writer, b"x"))
        thread.start()
        assert stepping.step_until(lambda: bool(seen), patience=PATIENCE)
        thread.join()
        assert not stepping.step_until(lambda: len(seen) > 1, patience=0.01)
    assert seen == [b"x"]
    os.close(reader)
    os.close(writer)


def test_a_loop_that_never_comes_to_rest_is_told(stepping: SteppingHost) -> None:
    with Bridge(stepping) as bridge:
        bridge.add_timeout(0, lambda *_: None)
        with pytest.raises(AssertionError, match="still busy after 10 steps"):
            stepping.step_until_idle(most=10)


def test_what_is_reported_is_kept(stepping: SteppingHost) -> None:
    """D4: once."""
    error = ValueError("once")

    def fail(id: int, opaque: object) -> None:
        bridge.update_timeout(id, -1)
        raise error

    with Bridge(stepping) as bridge:
        bridge.add_timeout(0, fail)
        stepping.step_until_idle()
    ((reported, context),) = stepping.reported
    assert reported is error and "timeout 1" in context


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each callback took longer than a pass may."""
    for module in (dispatcher, mailbox):
        monkeypatch.setattr(module, "BUDGET_SECONDS", 0.0)


def test_a_step_is_a_whole_round_on_a_busy_machine(busy_machine: None, stepping: SteppingHost) -> None:
    """D2's limit of time is off: the docstring's example counts its steps."""
    called: list[int] = []
    with Bridge(stepping) as bridge:

        def once(id: int, opaque: object) -> None:
            called.append(id)
            bridge.remove_timeout(id)

        for _ in range(3):
            bridge.add_timeout(0, once)
        assert stepping.step_until_idle() == 1
    assert len(called) == 3
