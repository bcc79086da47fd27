"""Rules D7 to D9, and a host's own few duties: fork, close, drain, move, run."""

from __future__ import annotations

import functools
import gc
import os
import threading
from typing import Any

from eventbridge.bridge import Bridge
from eventbridge.core.host import AwaitingHost, HostLoop
from eventbridge.core.masks import Events
from eventbridge.errors import BridgeClosed, BridgeForked

from .base import Rules, in_the_tests_thread
from .harness import raises

R = int(Events.READABLE)


class LifetimeRules(Rules):
    """What a bridge does at its beginnings and its ends."""

    def test_it_is_a_host_with_a_name(self) -> None:
        """D1, D9: the HostLoop protocol, by which a bridge reaches whichever loop it is on."""
        assert isinstance(self.bridge.host, HostLoop)
        assert self.bridge.stats().host == self.bridge.host.name
        assert self.bridge.host.name in repr(self.bridge)

    def test_the_loops_thread_is_the_one_that_runs_it(self) -> None:
        """D1: not the one that made the bridge."""
        assert self.rig.on_loop(self.bridge.is_loop_thread)
        if self.rig.own_thread:
            assert not self.bridge.is_loop_thread()
        else:
            inside: list[bool] = []
            self.rig.on_loop(lambda: inside.append(self.rig.from_thread(self.bridge.is_loop_thread)))
            assert inside == [False]

    def test_the_hosts_own_calls_come_on_its_thread_in_order(self) -> None:
        """D1, D6: call_soon_threadsafe, of whoever calls it."""
        threads: set[int] = set()

        def called(number: int) -> None:
            threads.add(threading.get_ident())
            self.rig.note(number)

        for number in range(100):
            self.bridge.host.call_soon_threadsafe(functools.partial(called, number))
        self.bridge.add_timeout(1, lambda *_: None)  # these are no passes, after which `Rig.until` looks
        self.rig.until(lambda: len(self.rig.notes) == 100)
        assert self.rig.notes == list(range(100))
        assert threads == {self.rig.loop_thread}

    def test_without_an_error_handler_the_hosts_own_reports(self) -> None:
        """D4: report() must not raise."""
        self.rig.on_loop(lambda: self.bridge.host.report(ValueError("reported"), "in a test"))
        assert not self.rig.errors

    def test_registering_before_the_loop_first_runs_works_from_any_thread(self) -> None:
        """D6."""
        reader, _ = self.rig.pipe(b"x")
        host = self.another_host()
        bridge = Bridge(host, poller=self.make_poller())
        seen: list[str] = []
        self.rig.from_thread(lambda: bridge.add_handle(reader, R, lambda *_: seen.append("handle")))
        self.rig.from_thread(lambda: bridge.add_timeout(1, lambda *_: seen.append("timeout")))
        self.rig.from_thread(lambda: bridge.run(lambda: {"handle", "timeout"} <= set(seen), self.patience))
        assert {"handle", "timeout"} <= set(seen)
        bridge.close()

    def test_a_forked_child_is_refused_and_the_parent_notices_nothing(self) -> None:
        """D7: every call raises BridgeForked; the parent's fds are watched as before."""
        reader, writer = self.rig.pipe()
        handle = self.bridge.add_handle(reader, R, self.rig.reading("pipe"), None, self.rig.noting("free"))
        timeout = self.bridge.add_timeout(1, self.rig.noting("tick"))
        self.rig.settle()
        calls = (
            lambda: self.bridge.add_handle(reader, R, self.rig.noting("no")),
            lambda: self.bridge.update_handle(handle, 0),
            lambda: self.bridge.remove_handle(handle),
            lambda: self.bridge.add_timeout(0, self.rig.noting("no")),
            lambda: self.bridge.update_timeout(timeout, 0),
            lambda: self.bridge.remove_timeout(timeout),
        )
        child = os.fork()
        if not child:
            refused = 0
            for call in calls:
                try:
                    call()
                except BridgeForked:
                    refused += 1
                except BaseException:
                    os._exit(100)
            self.bridge.close()
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == len(calls)
        os.write(writer, b"x")
        ticks = self.rig.noted("tick")
        self.rig.until(lambda: self.rig.noted(("pipe", R)) and self.rig.noted("tick") > ticks)
        assert not self.rig.noted("free")

    def test_close_frees_everything_once_and_then_refuses(self) -> None:
        """D8."""
        reader, _ = self.rig.pipe(b"x")
        for number in range(10):
            self.bridge.add_handle(reader, 0, self.rig.noting("called"), number, lambda n: self.rig.note(("free", n)))
            self.bridge.add_timeout(-1, self.rig.noting("called"), -number, lambda n: self.rig.note(("free", n)))
        self.bridge.close()
        self.bridge.close()
        self.rig.wait_for(lambda: len(self.rig.notes) == 20)
        assert sorted(self.rig.notes) == sorted([("free", n) for n in range(10)] + [("free", -n) for n in range(10)])
        for call in (
            lambda: self.bridge.add_handle(reader, R, self.rig.noting("called")),
            lambda: self.bridge.update_handle(1, R),
            lambda: self.bridge.remove_handle(1),
            lambda: self.bridge.add_timeout(0, self.rig.noting("called")),
            lambda: self.bridge.update_timeout(1, 0),
            lambda: self.bridge.remove_timeout(1),
            lambda: self.bridge.move(self.another_host()),
        ):
            with raises(BridgeClosed):
                call()
        assert not self.rig.noted("called")

    def test_close_inside_a_callback_waits_for_the_pass(self) -> None:
        """D8, H7: the frees come with a clean stack."""
        reader, _ = self.rig.pipe(b"x")
        stack: list[str] = []

        def close(id: int, fd: int, events: int, opaque: Any) -> None:
            stack.append("callback")
            self.bridge.close()
            self.rig.note("closed")
            self.bridge.host.stop()  # type: ignore[attr-defined]  # every host of this suite is ours to run
            stack.pop()

        self.bridge.add_handle(reader, R, close, None, lambda _: self.rig.note(("free", list(stack))))
        if not self.rig.own_thread:
            self.bridge.run(timeout=self.patience)
        self.rig.wait_for(lambda: self.rig.noted(("free", [])))
        assert self.rig.notes == ["closed", ("free", [])]

    def test_close_leaves_no_fd_behind(self) -> None:
        """D8."""
        before = set(os.listdir("/proc/self/fd"))
        host = self.another_host()
        bridge = Bridge(host, poller=self.make_poller())
        bridge.add_timeout(1, lambda *_: None)
        bridge.run(timeout=0.005)
        bridge.close()
        self.close_host(host)
        del host, bridge
        left = set(os.listdir("/proc/self/fd")) - before
        if len(left) != self.leaks:
            gc.collect()  # pyuv closes a loop when it is collected
            left = set(os.listdir("/proc/self/fd")) - before
        assert len(left) == self.leaks, left

    def test_drain_waits_until_nothing_is_registered(self) -> None:
        """D8: on hosts without tasks, run(until=bridge.is_empty)."""
        freed: list[int] = []
        id = self.bridge.add_timeout(-1, self.rig.noting("no"), None, freed.append)
        assert not self.bridge.is_empty()
        self.rig.settle()
        self.bridge.remove_timeout(id)
        self.rig.until(self.bridge.is_empty)
        assert freed == [None]

    @in_the_tests_thread
    def test_run_ends_by_its_condition_its_timeout_or_stop(self) -> None:
        """D6, D8: Bridge.run, which is False for the timeout alone; `stop` from another thread."""
        assert self.bridge.run(timeout=0.01) is False
        assert self.bridge.run(lambda: True) is True
        self.bridge.add_timeout(1, self.rig.noting("tick"))
        assert self.bridge.run(lambda: self.rig.noted("tick") > 0, self.patience) is True

        def stop_from_another(id: int, opaque: object) -> None:
            self.bridge.remove_timeout(id)
            threading.Thread(target=self.bridge.stop).start()

        self.bridge.add_timeout(1, stop_from_another)
        assert self.bridge.run(timeout=self.patience) is True
        assert self.bridge.stats().timeouts == 1

    def test_move_carries_everything_to_another_loop(self) -> None:
        """D9: handles, timeouts and what is owed; the ids and the bridge are the same."""
        reader, writer = self.rig.pipe()
        handle = self.bridge.add_handle(reader, R, self.rig.reading("pipe"), None, self.rig.noting("free"))
        self.bridge.add_timeout(2, self.rig.noting("tick"))
        self.rig.until(lambda: self.rig.noted("tick"))
        old = self.bridge.host
        self.move()
        os.write(writer, b"x")
        ticks = self.rig.noted("tick")
        self.rig.until(lambda: self.rig.noted(("pipe", R)) and self.rig.noted("tick") > ticks)
        assert self.bridge.host is not old
        self.bridge.remove_handle(handle)
        self.rig.until(lambda: self.rig.noted("free"))
        assert self.rig.noted("free") == 1
        old.close()  # type: ignore[attr-defined]  # every host of this suite is ours to run

    def move(self) -> None:
        """To a fresh host, whose loop runs in this thread or in a thread of its own as the old one did."""
        old, new = self.bridge.host, self.another_host()
        self.bridge.move(new)
        if self.rig.own_thread:
            old.call_soon_threadsafe(old.stop)  # type: ignore[attr-defined]  # it is ours to run
            assert self.rig._thread is not None
            self.rig._thread.join(self.patience)
            self.rig.start()

    def test_move_inside_a_callback_ends_the_pass_first(self) -> None:
        """D9, D1: the old loop's last pass is over before the new one's first."""
        old, new = self.bridge.host, self.another_host()
        reader, _ = self.rig.pipe(b"x")
        hosts: list[HostLoop] = []

        def callback(id: int, fd: int, events: int, opaque: Any) -> None:
            if not hosts:
                self.bridge.move(new)
                old.stop()  # type: ignore[attr-defined]  # it is ours to run
            hosts.append(old if old.is_loop_thread() and not new_running else new)
            self.rig.note("called")

        new_running: list[int] = []
        self.bridge.add_handle(reader, R, callback)
        self.rig.until(lambda: self.rig.noted("called"))
        if self.rig.own_thread:
            assert self.rig._thread is not None
            self.rig._thread.join(self.patience)
        new_running.append(1)
        if self.rig.own_thread:
            self.rig.start()
        called = self.rig.noted("called")
        self.rig.until(lambda: self.rig.noted("called") > called)
        old.close()  # type: ignore[attr-defined]  # it is ours to run

    def test_hosts_with_tasks_can_wait(self) -> None:
        """D8: AwaitingHost, in which `drain` waits, is whole, or not there."""
        assert isinstance(self.bridge.host, AwaitingHost) == hasattr(self.bridge.host, "wait_for")
