"""The face for tasks, on trio: connect, calls, events and jobs of simulated hypervisors, and what cancelling leaves."""

from __future__ import annotations

import gc
import itertools
import sys
import textwrap
import warnings
from collections.abc import Awaitable, Callable, Iterator

import pytest

import eventbridge
from eventbridge import Job
from eventbridge.adapters.hypervisors.sim import simulation as control
from eventbridge.connection import shared_bridge
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobAborted, JobTimeout
from tests.support import wanted
from tests.support.command import run as program
from tests.support.patience import PATIENCE

trio = wanted.module("trio")
wanted.adapter("trio")

S0, S1 = "simulated-0", "simulated-1"
JOBS = (Kind.JOB_STARTED, Kind.JOB_ENDED)
SLOW = 100
"""Bytes/s: what is moved so slowly does not end by itself."""

_numbers = itertools.count()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    trio.run(limited)
    assert shared_bridge._leases == {}


@pytest.fixture
def uri() -> Iterator[str]:
    name = f"trio-{next(_numbers)}"
    yield f"sim:///default?world={name}&events=0&domains=4"
    control.forget(name)


def test_the_readmes_way(uri: str) -> None:
    async def main() -> None:
        async with eventbridge.connect(uri) as hv:
            assert hv.host.name == "trio"
            domain = await hv.domain(S0)
            stream = hv.events()
            await domain.start()
            await domain.suspend()
            assert (await domain.info()).state is State.PAUSED
            kinds = []
            async for event in stream:
                if event.kind not in JOBS:
                    kinds.append(event.kind)
                if len(kinds) == 2:
                    break
            assert kinds == [Kind.STARTED, Kind.SUSPENDED]
            await domain.destroy()

    run(main)
    run(main)  # a trio.run of its own each time, and a bridge


def test_all_of_one_trio_run_share_a_bridge_that_ends_with_the_last(uri: str) -> None:
    async def main() -> None:
        async with eventbridge.connect(uri) as first:
            async with eventbridge.connect(uri) as second:
                assert first.bridge is second.bridge
            assert not first.bridge.closed
        assert first.bridge.closed

    run(main)


def test_an_error_comes_out_of_the_await(uri: str) -> None:
    async def main() -> None:
        async with eventbridge.connect(uri) as hv:
            domain = await hv.domain(S0)
            with pytest.raises(HypervisorError):
                await domain.resume()

    run(main)


def test_a_scope_that_is_cancelled_gives_its_call_up_and_cleans_up_with_answers(uri: str) -> None:
    """What closes the connection is answered still: the bridge's task outlives every cancellation but trio's end."""

    async def main() -> None:
        simulation = control.simulation_of(uri)
        with trio.CancelScope() as scope:
            async with eventbridge.connect(uri) as hv:
                domain = await hv.domain(S0)
                simulation.freeze(S0)
                call = domain.start()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_wait, call)
                    while not simulation.hung:
                        await trio.sleep(0)
                    scope.cancel()
        assert scope.cancelled_caught
        assert isinstance(call.error, JobAborted)
        simulation.thaw()
        while shared_bridge._leases:
            await trio.sleep(0)

    run(main)


def test_trios_own_timeout_gives_a_call_up_and_nothing_else(uri: str) -> None:
    async def main() -> None:
        simulation = control.simulation_of(uri)
        async with eventbridge.connect(uri) as hv:
            first, second = await hv.domain(S0), await hv.domain(S1)
            simulation.freeze(S0)
            call = first.start()
            with trio.move_on_after(0.01) as scope:
                await call
            assert scope.cancelled_caught
            assert isinstance(call.error, JobAborted)
            await second.start()
            simulation.thaw()

    run(main)


def test_a_cancelled_reader_leaves_the_others_reading(uri: str) -> None:
    async def main() -> None:
        seen: list[Kind] = []

        async def read(stream: eventbridge.EventStream) -> None:
            async for event in stream:
                if event.kind not in JOBS:
                    seen.append(event.kind)

        async with eventbridge.connect(uri) as hv, trio.open_nursery() as nursery:
            nursery.start_soon(read, hv.events())
            with trio.move_on_after(0.001):
                await read(hv.events())
            await (await hv.domain(S0)).start()
            while not seen:
                await trio.sleep(0)
            nursery.cancel_scope.cancel()
        assert seen == [Kind.STARTED]

    run(main)


def test_a_job_is_followed_and_cut_short(uri: str) -> None:
    async def main() -> None:
        other = uri.replace("world=", "world=to-")
        control.simulation_of(other).do("undefine", S0)
        async with eventbridge.connect(uri) as here, eventbridge.connect(other) as there:
            domain = await here.domain(S0)
            await domain.start()
            with pytest.raises(JobAborted):
                async with domain.migrate(there, bandwidth=SLOW) as job:
                    async for progress in job:
                        assert progress.remaining
                        job.abort()
            assert (await domain.info()).state is State.RUNNING
        control.forget(f"to-{uri.partition('world=')[2].partition('&')[0]}")

    run(main)


def test_whoever_stops_following_a_job_leaves_nothing_behind(uri: str) -> None:
    """Neither a generator that trio would have to close (a ResourceWarning), nor a listener."""

    async def main() -> None:
        other = uri.replace("world=", "world=to-")
        control.simulation_of(other).do("undefine", S0)
        async with eventbridge.connect(uri) as here, eventbridge.connect(other) as there:
            domain = await here.domain(S0)
            await domain.start()
            job = domain.migrate(there, bandwidth=SLOW)
            async for _ in job:
                break
            gc.collect()
            assert job._listeners == []
            assert not job.done
            assert await job.abort()
        control.forget(f"to-{uri.partition('world=')[2].partition('&')[0]}")

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(main)
        gc.collect()
    assert [str(warning.message) for warning in warned if warning.category is ResourceWarning] == []


def test_a_held_job_lets_tasks_in_one_after_the_other(uri: str) -> None:
    async def main() -> None:
        order: list[int] = []

        async def hold(number: int) -> None:
            async with domain.hold(Job.MODIFY):
                order.append(number)

        async with eventbridge.connect(uri) as hv, trio.open_nursery() as nursery:
            domain = await hv.domain(S0)
            async with domain.hold(Job.MODIFY):
                for number in range(5):
                    nursery.start_soon(hold, number)
                    while domain.job is None or domain.job.queue <= number:
                        await trio.sleep(0)
                with pytest.raises(JobTimeout):
                    async with domain.hold(Job.MODIFY, timeout=0.01):
                        raise AssertionError("it was let in")
                with trio.move_on_after(0.01) as scope:
                    await hold(5)
                assert scope.cancelled_caught
                assert not order
        assert order == list(range(5))

    run(main)


def test_a_nursery_of_the_callers_takes_the_passes_with_it() -> None:
    """``TrioHost(nursery)``: its task watches, and ends with it."""
    host = wanted.adapter("trio").TrioHost

    async def main() -> None:
        ticks: list[int] = []
        async with trio.open_nursery() as nursery:
            bridge = eventbridge.Bridge(host(nursery))
            bridge.add_timeout(1, lambda *_: ticks.append(1))
            while len(ticks) < 3:
                await trio.sleep(0)
            nursery.cancel_scope.cancel()
        before = len(ticks)
        await trio.sleep(0.01)  # for what must not come
        assert len(ticks) == before
        bridge.close()

    run(main)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_must_propagate_comes_out_of_the_callers_nursery(kind: type[BaseException]) -> None:
    def fail(id: int, opaque: object) -> None:
        raise kind

    async def main() -> None:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                bridge = eventbridge.Bridge(wanted.adapter("trio").TrioHost(nursery))
                bridge.add_timeout(1, fail)
                await trio.sleep_forever()
        assert [type(error) for error in caught.value.exceptions] == [kind]
        bridge.close()

    run(main)


def test_ctrl_c_is_the_main_tasks_and_not_in_the_middle_of_a_pass() -> None:
    done = program(sys.executable, "-c", textwrap.dedent(CTRL_C))
    assert done.stdout.splitlines() == ["main task: KeyboardInterrupt", "errors: []"]
    assert done.returncode == 0, done.stderr


CTRL_C = """
    import signal, trio, eventbridge
    errors = []
    async def main():
        with eventbridge.Bridge(on_error=lambda *told: errors.append(told)) as bridge:
            bridge.add_timeout(0, lambda id, opaque: None)
            bridge.add_timeout(5, lambda id, opaque: signal.raise_signal(signal.SIGINT))
            try:
                await trio.sleep_forever()
            except KeyboardInterrupt:
                print("main task: KeyboardInterrupt")
    trio.run(main)
    print("errors:", errors)
    """


async def _wait(call: eventbridge.Call[None]) -> None:
    await call
