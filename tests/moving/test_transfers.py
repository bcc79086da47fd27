"""D9: what libvirt has registered goes from one bridge to another between two passes of the old one (D1), whichever
thread says so, and while both loops run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge, BridgeClosed
from eventbridge.adapters.hypervisors.libvirt import install, installed
from tests.moving.loops import Loop, loops
from tests.moving.stepped_host import StandIn, from_another_thread, in_a_callback
from tests.support.patience import PATIENCE


class Steps:
    """On a bridge of a stand-in; each says where it was taken."""

    def __init__(self, host: StandIn) -> None:
        self.bridge = Bridge(host)
        host.turn()
        self.taken: list[str] = []

    def leave(self, name: str) -> None:
        self.bridge.between_passes(lambda: self.taken.append(name))


def test_a_step_waits_for_the_loop_that_another_thread_runs(three: tuple[StandIn, ...]) -> None:
    """D1: in the order they were left, each once."""
    host, *_ = three
    steps = Steps(host)
    steps.leave("first")
    steps.leave("second")
    assert steps.taken == []
    host.turn()
    host.turn()
    assert steps.taken == ["first", "second"]
    steps.bridge.close()
    host.turn()


def test_a_step_is_taken_at_once_where_no_pass_can_be_under_way(three: tuple[StandIn, ...]) -> None:
    """On the loop's own thread, on a loop that is closed for good, on a bridge that is closed."""
    host, *_ = three
    steps = Steps(host)
    host.here = True
    steps.leave("its thread")
    assert steps.taken == ["its thread"]
    host.here, host.closed = False, True
    steps.leave("its loop is closed")
    assert steps.taken[1:] == ["its loop is closed"]
    steps.bridge.close()
    steps.leave("it is closed")
    assert steps.taken[2:] == ["it is closed"]


def test_a_step_that_a_callback_leaves_is_taken_after_its_pass(three: tuple[StandIn, ...]) -> None:
    """D1: nothing deadlocks, and no callback comes between."""
    host, *_ = three
    steps = Steps(host)

    def fire(id: int, opaque: object) -> None:
        steps.bridge.remove_timeout(id)
        steps.leave("step")
        steps.taken.append("callback")

    for _ in range(2):
        steps.bridge.add_timeout(0, fire)
    host.turn()
    assert steps.taken == ["callback", "callback", "step", "step"]
    steps.bridge.close()
    host.turn()


def test_a_step_follows_a_bridge_that_is_moved(three: tuple[StandIn, ...]) -> None:
    """D9: the thread that it was left to makes no passes any more."""
    first, second, _ = three
    steps = Steps(first)
    steps.leave("step")
    steps.bridge.move(second)
    first.soon.rotate(1)  # it leaves before the step's turn comes
    first.turn()
    assert not first.watched and steps.taken == []
    second.turn()
    first.turn()
    assert second.watched and steps.taken == ["step"]
    steps.bridge.close()
    second.turn()


def test_closing_a_bridge_takes_what_is_left_before_its_registrations_die(three: tuple[StandIn, ...]) -> None:
    """D8, D9: libvirtaio closes the old one right after it has installed the new one."""
    host, other, _ = three
    steps, new = Steps(host), Bridge(other)
    other.turn()
    freed: list[Any] = []
    free = freed.append
    id = steps.bridge.add_timeout(-1, print, "opaque", free)
    steps.bridge.between_passes(lambda: steps.taken.append(str(steps.bridge.transfer(new, free))))
    steps.bridge.close()
    assert steps.taken == [str(({}, {}))] and freed == []
    host.turn()
    assert len(steps.taken) == 1 and freed == []
    new.remove_timeout(id)
    other.turn()
    assert freed == ["opaque"]
    new.close()
    other.turn()


# -- libvirt's own


@pytest.fixture
def two() -> Iterator[tuple[tuple[Loop, Bridge], tuple[Loop, Bridge]]]:
    """Loops that both run, each with a bridge; libvirt is installed on the first."""
    with ExitStack() as stack:
        stage = stack.enter_context(loops("asyncio", "select"))
        both = [(loop, Bridge(loop.start().host)) for loop in stage.values()]
        for _, bridge in both:
            stack.callback(bridge._closed.wait, PATIENCE)
            stack.callback(bridge.close)
        install(both[0][1])
        both[0][0].do(lambda: None)
        yield both[0], both[1]


def passes(loop: Loop) -> None:
    """Whatever was to be done there by now is done."""
    for _ in range(3):
        loop.do(lambda: None)


def test_an_installation_waits_for_the_callback_that_is_under_way(two: Any) -> None:
    """D1, D9: the new loop calls nothing of libvirt's before it is over."""
    (old_loop, old), (new_loop, new) = two
    told: list[tuple[str, int]] = []
    ended = threading.Event()

    def second(timer: int, opaque: object) -> None:
        told.append(("second", threading.get_ident()))
        libvirt.virEventRemoveTimeout(timer)
        ended.set()

    def first(timer: int, opaque: object) -> None:
        libvirt.virEventRemoveTimeout(timer)
        libvirt.virEventAddTimeout(0, second, None)
        from_another_thread(lambda: install(new))
        passes(new_loop)
        assert installed() is old
        libvirt.virEventAddTimeout(-1, second, None)  # comes along, too
        told.append(("first", threading.get_ident()))

    libvirt.virEventAddTimeout(0, first, None)
    assert ended.wait(PATIENCE)
    passes(old_loop)
    assert told[0] == ("first", old_loop.thread) and [name for name, _ in told] == ["first", "second"]
    assert installed() is new and len(old._registry.timeouts) == 0 and len(new._registry.timeouts) == 1
    libvirt.virEventUpdateTimeout(next(iter(new._registry.timeouts)), 0)
    new_loop.do(lambda: None)


def test_a_callback_may_install_and_is_finished_first(two: Any) -> None:
    """D1, D9: on the loop's own thread, which must not wait for itself."""
    (old_loop, old), (_, new) = two
    told: list[Bridge | None] = []

    def installs() -> None:
        install(new)
        told.append(installed())

    in_a_callback(old, installs)
    passes(old_loop)
    assert told == [old] and installed() is new


def test_the_last_of_several_installations_counts(two: Any) -> None:
    """D9: also where it is the one that libvirt has not left yet; and one that is closed meanwhile is none."""
    (old_loop, old), (_, new) = two

    def there_and_back() -> None:
        install(new)
        install(old)

    in_a_callback(old, there_and_back)
    passes(old_loop)
    assert installed() is old

    def to_a_closed_one() -> None:
        gone = Bridge("select")
        install(gone)
        gone.close()

    in_a_callback(old, to_a_closed_one)
    passes(old_loop)
    assert installed() is old
    with pytest.raises(BridgeClosed):
        new.close()
        install(new)


def test_the_old_bridge_may_be_closed_right_after(two: Any) -> None:
    """D8, D9: from another thread, while it runs; nothing that libvirt has registered dies with it."""
    (_, old), (new_loop, new) = two
    fired = threading.Event()

    def fire(timer: int, opaque: object) -> None:
        libvirt.virEventRemoveTimeout(timer)
        assert threading.get_ident() == new_loop.thread
        fired.set()

    timer = libvirt.virEventAddTimeout(-1, fire, None)
    install(new)
    old.close()
    assert installed() is new
    libvirt.virEventUpdateTimeout(timer, 0)
    assert fired.wait(PATIENCE)
