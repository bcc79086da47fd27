"""Calls in several steps, over scripted operations: each step on a worker, the ends answered once, nothing left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen.call import Call, Steps, Wait
from eventbridge.adapters.hypervisors.xen.resolve import Resolver
from eventbridge.errors import ConnectionLost, HypervisorError
from eventbridge.hypervisor.model import DomainRef
from eventbridge.hypervisor.request import Request
from eventbridge.hypervisor.worker_pool import Workers
from eventbridge.jobs import JobAborted
from tests.support.patience import PATIENCE
from tests.support.xen.asking import Asked


class Scripted:
    """An operation that ends when the test says so: a stand-in."""

    def __init__(self) -> None:
        self.error: HypervisorError | None = None
        self.awaited = threading.Event()
        self._callbacks: list[Callable[[Any], object]] = []

    def on_done(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)
        self.awaited.set()

    def end(self, error: HypervisorError | None = None) -> None:
        assert self.awaited.wait(PATIENCE)
        self.error = error
        self._callbacks.pop()(self)


class Owner:
    """A session, as far as a call knows it."""

    def __init__(self) -> None:
        self.workers = Workers("scripted")
        self.overs: list[BaseException | None] = []

    def understood(self, request: Request, error: HypervisorError | ConnectionLost) -> Exception:
        return HypervisorError(f"understood: {error}")

    def over(self, call: Call, error: BaseException | None) -> None:
        self.overs.append(error)
        if error is not None:
            call.request.refuse(error)


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.workers.close()


def begun(owner: Owner, work: Callable[[Request], Any]) -> Asked:
    asked = Asked("save", None, {}, None)
    Call(owner, asked.request, work).begin()
    return asked


def ended(asked: Asked) -> Any:
    assert asked.done.wait(PATIENCE)
    return asked.value()


def test_what_blocks_is_answered_with_what_it_returns(owner: Owner) -> None:
    assert ended(begun(owner, lambda request: threading.current_thread().name)) == "worker of scripted"
    assert owner.overs == [None]


def test_steps_follow_one_another_on_workers_which_wait_for_nothing_between(owner: Owner) -> None:
    first, second = Scripted(), Scripted()
    threads = []

    def work(request: Request) -> Steps:
        for operation in (first, second):
            threads.append(threading.current_thread().name)
            yield operation
        return "both"

    asked = begun(owner, work)
    first.end()
    assert second.awaited.wait(PATIENCE)
    assert not asked.done.is_set()
    second.end()
    assert ended(asked) == "both"
    assert threads == ["worker of scripted"] * 2
    assert len(asked.ends) == 1


def test_an_operations_failure_is_raised_where_it_was_awaited(owner: Owner) -> None:
    operation, undone = Scripted(), []

    def work(request: Request) -> Steps:
        try:
            yield operation
        except HypervisorError as error:
            undone.append(str(error))
            raise

    asked = begun(owner, work)
    operation.end(HypervisorError("libxl would not"))
    with pytest.raises(HypervisorError, match="understood: libxl would not"):
        ended(asked)
    assert undone == ["libxl would not"]


def test_what_the_steps_hold_is_given_back_where_no_further_one_can_be_taken(owner: Owner) -> None:
    operation, given_back = Scripted(), threading.Event()

    def work(request: Request) -> Steps:
        try:
            yield operation
        finally:
            given_back.set()

    asked = begun(owner, work)
    assert operation.awaited.wait(PATIENCE)
    owner.workers.close()
    operation.end()
    with pytest.raises(ConnectionLost):
        ended(asked)
    assert given_back.is_set()


def test_one_that_was_aborted_before_it_had_begun_does_nothing(owner: Owner) -> None:
    asked, calls = Asked("save", None, {}, None), []
    asked.request.abort()
    Call(owner, asked.request, calls.append).begin()
    with pytest.raises(JobAborted, match="save: aborted before it had begun"):
        ended(asked)
    assert calls == []


@pytest.mark.parametrize("host", ["asyncio", "libuv", "select"])
def test_time_may_be_awaited_too(owner: Owner, host: str) -> None:
    with Bridge(host) as bridge:

        def work(request: Request) -> Steps:
            yield Wait(bridge, 0.001)
            return "later"

        asked = begun(owner, work)
        tick = bridge.add_timeout(5, lambda id, opaque: None)  # makes passes: what is waited for, a worker makes true
        assert bridge.run(until=asked.done.is_set, timeout=PATIENCE)
        bridge.remove_timeout(tick)
        assert asked.value() == "later"
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


# -- who is meant, while there are two


HERE, COMING = DomainRef("web", "u-1", 4), DomainRef("web--incoming", "u-1", 3)


@pytest.mark.parametrize("named", [DomainRef("web", "u-1", 4), DomainRef(None, "U-1"), DomainRef("web")], ids=str)
def test_while_a_guest_moves_within_its_host_the_one_that_runs_is_meant(named: DomainRef) -> None:
    domains = {ref.id: ref for ref in (COMING, HERE)}
    resolver = Resolver(
        "libxl:///", domains.get, lambda: [DomainRef(None, ref.uuid, ref.id) for ref in domains.values()]
    )
    assert resolver.find(named) == HERE


def test_once_it_has_come_in_it_is_found_by_its_uuid() -> None:
    resolver = Resolver("libxl:///", {3: COMING}.get, lambda: [COMING])
    assert resolver.find(DomainRef("web", "u-1", 4)) == COMING
