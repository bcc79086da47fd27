"""The drop-in `libvirtaio`: libvirt-python's own test of theirs, then what theirs cannot do: a second ``asyncio.run``,
registering again, several drains at once, all tasks cancelled.

On the standard library's loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirtaio as theirs
import pytest
import uvloop
from drop_in_upstream import unpack

from eventbridge.adapters.hypervisors import libvirtaio
from eventbridge.adapters.hypervisors.libvirt import installed
from eventbridge.errors import HostUnavailable
from tests.support import wanted
from tests.support.descriptors import open_fds
from tests.support.libvirt_python import NotDownloaded, source_distribution
from tests.support.patience import PATIENCE

LIFECYCLE = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
STOPPED = libvirt.VIR_DOMAIN_EVENT_STOPPED
STARTED = libvirt.VIR_DOMAIN_EVENT_STARTED
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]


@pytest.fixture
def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """As ``asyncio.run``: a new loop each time, closed at the end."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main)

    return run


class Lifecycle:
    """A connection to libvirt's test driver, and the lifecycle events of its domain."""

    def __init__(self) -> None:
        self.connection = libvirt.open("test:///default")
        self.domain = self.connection.lookupByName("test")
        self.events: list[int] = []
        self.arrived: Callable[[], object] = lambda: None
        self._id = self.connection.domainEventRegisterAny(self.domain, LIFECYCLE, self._event, None)

    def _event(self, connection: object, domain: object, event: int, detail: int, opaque: object) -> None:
        self.events.append(event)
        self.arrived()

    async def restart(self) -> list[int]:
        """Stop the domain and start it; the events that come of it."""
        self.events.clear()
        both = asyncio.Event()
        self.arrived = lambda: both.set() if len(self.events) == 2 else None
        self.domain.destroy()
        self.domain.create()
        await asyncio.wait_for(both.wait(), PATIENCE)
        return list(self.events)

    def close(self) -> None:
        if self._id is not None:
            self.connection.domainEventDeregisterAny(self._id)
            self._id = None
            self.connection.close()


@contextlib.contextmanager
def lifecycle() -> Iterator[Lifecycle]:
    opened = Lifecycle()
    try:
        yield opened
    finally:
        opened.close()


def test_libvirt_pythons_own_test_passes_with_only_the_import_changed(tmp_path: Path) -> None:
    """Each of its tests in a process of its own: they count registrations, of which libvirt takes one a process."""
    try:
        source = source_distribution()
    except NotDownloaded as error:
        wanted.absent(str(error))
    names = unpack(source, tmp_path)
    skipped = 0
    for name in names:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "unittest", name], cwd=tmp_path, capture_output=True, text=True
        )
        if "skipped=1" in done.stderr:  # what they say themselves is not for this Python; 3.12's unittest exits with 5
            skipped += 1
            continue
        assert (done.returncode, "Ran 1 test" in done.stderr) == (0, True), f"{name}:\n{done.stderr}"
    assert len(names) - skipped >= 3


def test_the_public_names_and_their_parameters_are_those_of_libvirt_pythons_module() -> None:
    assert sorted(libvirtaio.__all__) == sorted(theirs.__all__)
    for ours, other in [
        (libvirtaio.virEventRegisterAsyncIOImpl, theirs.virEventRegisterAsyncIOImpl),
        (libvirtaio.getCurrentImpl, theirs.getCurrentImpl),
        *(
            (getattr(libvirtaio.virEventAsyncIOImpl, name), getattr(theirs.virEventAsyncIOImpl, name))
            for name in ("__init__", "register", "drain", "is_idle")
        ),
    ]:
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(other).parameters)
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(other)


def test_a_second_asyncio_run_goes_on_with_the_first_ones_connection(run: Run) -> None:
    """D9."""

    async def open_and_restart() -> Lifecycle:
        libvirtaio.virEventRegisterAsyncIOImpl()
        opened = Lifecycle()
        assert await opened.restart() == [STOPPED, STARTED]
        return opened

    async def restart_and_close(opened: Lifecycle) -> None:
        impl = libvirtaio.virEventRegisterAsyncIOImpl()
        assert not impl.is_idle()
        assert await opened.restart() == [STOPPED, STARTED]
        opened.close()
        await impl.drain()
        assert impl.is_idle()

    run(restart_and_close(run(open_and_restart())))


def test_what_happens_between_two_runs_arrives_in_the_second(run: Run) -> None:
    """D9: libvirt's timeout was armed when no loop ran."""

    async def open_it() -> Lifecycle:
        libvirtaio.virEventRegisterAsyncIOImpl()
        return Lifecycle()

    async def receive(opened: Lifecycle) -> None:
        arrived = asyncio.Event()
        opened.arrived = arrived.set
        assert opened.events == []
        libvirtaio.virEventRegisterAsyncIOImpl()
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        opened.close()

    opened = run(open_it())
    opened.domain.destroy()
    try:
        run(receive(opened))
        assert opened.events == [STOPPED]
    finally:
        opened.domain.create()


def test_registering_again_and_again_works_and_keeps_no_files(run: Run) -> None:
    """D9: the one before gives back its fds; the last is the current one."""

    async def main() -> None:
        first = libvirtaio.virEventRegisterAsyncIOImpl()
        with lifecycle() as opened:
            before = len(open_fds())
            for _ in range(5):
                latest = libvirtaio.virEventRegisterAsyncIOImpl()
            assert libvirtaio.getCurrentImpl() is latest
            assert first.is_idle()
            assert first.register() is first
            assert first.register() is libvirtaio.getCurrentImpl()
            assert latest.is_idle()
            assert not first.is_idle()
            assert len(open_fds()) == before
            assert await opened.restart() == [STOPPED, STARTED]
        await asyncio.gather(first.drain(), latest.drain())

    run(main())


def test_several_tasks_may_drain_at_once(run: Run) -> None:
    """D8: none returns before the last handle is freed, and one that is cancelled holds up no other."""

    async def main() -> None:
        impl = libvirtaio.virEventRegisterAsyncIOImpl()
        await impl.drain()  # with nothing registered it returns at once
        with lifecycle():
            drains = [asyncio.create_task(impl.drain()) for _ in range(3)]
            given_up = asyncio.create_task(asyncio.wait_for(impl.drain(), 0.01))
            assert await asyncio.gather(given_up, return_exceptions=True) != [None]
            assert not any(drain.done() for drain in drains)
        await asyncio.wait_for(asyncio.gather(*drains), PATIENCE)
        assert impl.is_idle()

    run(main())


def test_events_keep_coming_when_all_tasks_are_cancelled(run: Run) -> None:
    """D1: no task of ours is there to be cancelled."""

    async def main() -> None:
        impl = libvirtaio.virEventRegisterAsyncIOImpl()
        with lifecycle() as opened:
            assert asyncio.all_tasks() == {asyncio.current_task()}
            bystander = asyncio.create_task(asyncio.Event().wait())
            assert await opened.restart() == [STOPPED, STARTED]
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.wait([bystander])
            assert await opened.restart() == [STOPPED, STARTED]
        await impl.drain()

    run(main())


def test_a_loop_may_be_named_before_it_runs_and_from_any_thread(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The loop is then run by a thread of its own, and libvirt called from it."""
    loop = new_loop()
    impl = libvirtaio.virEventRegisterAsyncIOImpl(loop=loop)
    assert impl.loop is loop
    assert impl.is_idle()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opened = asyncio.run_coroutine_threadsafe(_open(), loop).result(PATIENCE)
    assert asyncio.run_coroutine_threadsafe(opened.restart(), loop).result(PATIENCE) == [STOPPED, STARTED]
    opened.close()
    asyncio.run_coroutine_threadsafe(impl.drain(), loop).result(PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()
    assert impl.is_idle()


async def _open() -> Lifecycle:
    return Lifecycle()


def test_a_closed_loop_is_refused_and_the_one_before_goes_on(run: Run) -> None:
    """Nothing is half registered."""

    async def main() -> None:
        impl = libvirtaio.virEventRegisterAsyncIOImpl()
        closed = asyncio.new_event_loop()
        closed.close()
        before = len(open_fds()), installed()
        with pytest.raises(HostUnavailable, match="closed"):
            libvirtaio.virEventRegisterAsyncIOImpl(closed)
        assert (len(open_fds()), installed()) == before
        assert libvirtaio.getCurrentImpl() is impl
        with lifecycle() as opened:
            assert await opened.restart() == [STOPPED, STARTED]
        await impl.drain()

    run(main())


TOO_LATE = """
import asyncio, libvirt, libvirtaio as theirs
from eventbridge.adapters.hypervisors import libvirtaio
from eventbridge.errors import HypervisorError

async def main():
    {first}
    for _ in range(2):
        try:
            libvirtaio.virEventRegisterAsyncIOImpl()
        except HypervisorError as error:
            print(error.operation, libvirtaio.getCurrentImpl())

asyncio.run(main())
"""


@pytest.mark.parametrize("first", ["libvirt.virEventRegisterDefaultImpl()", "theirs.virEventRegisterAsyncIOImpl()"])
def test_registering_after_another_implementation_is_refused_each_time(first: str) -> None:
    """libvirt takes one for a process's life, and of a second only logs that it ignores it."""
    done = subprocess.run([sys.executable, "-c", TOO_LATE.format(first=first)], capture_output=True, text=True)
    assert done.stdout == "install None\n" * 2
    assert "Traceback" not in done.stderr
