"""A domain that hangs costs its own calls their time, and nobody else anything."""

from __future__ import annotations

import pytest

from eventbridge import Job
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import State
from eventbridge.jobs import JobTimeout
from tests.connection.sim_rig import Rig, World

COUNT = 50
NAMES = [f"simulated-{number}" for number in range(COUNT)]
HUNG = NAMES[7]
SHORT = 0.05


@pytest.fixture
def fifty(rig: Rig) -> World:
    """They run, and one of them is frozen but for its end."""
    world = rig.world(f"domains={COUNT}").running(*NAMES)
    assert world.connection.state == "open"
    world.simulation.freeze(HUNG, but=["destroy"])
    return world


def test_the_others_answer_while_it_does_not(rig: Rig, fifty: World) -> None:
    hanging = fifty.domain(HUNG).suspend()
    for operation in ("suspend", "resume", "info", "reboot"):
        rig.ended(*(getattr(fifty.domain(name), operation)() for name in NAMES if name != HUNG))
    saved = [fifty.domain(name).save(f"/{name}") for name in NAMES if name != HUNG]
    rig.ended(*saved)
    assert [call.error for call in saved] == [None] * (COUNT - 1)
    assert not hanging.done and fifty.state(HUNG) is State.RUNNING


@pytest.mark.parametrize("operation", ["suspend", "reboot", "info", "shutdown"])
def test_its_own_calls_end_at_their_deadline_and_name_themselves(rig: Rig, fifty: World, operation: str) -> None:
    call = getattr(fifty.domain(HUNG), operation)(timeout=SHORT)
    others = [fifty.domain(name).info() for name in NAMES if name != HUNG]
    error = rig.error(call)
    assert isinstance(error, JobTimeout)
    assert str(error).startswith(f"{operation} of {HUNG}: no answer from {fifty.uri} within ")
    rig.ended(*others)
    assert [call.error for call in others] == [None] * (COUNT - 1)
    assert [request.operation for request in fifty.simulation.given_up] == [operation]


def test_who_waits_behind_it_ends_at_his_own_and_is_told_who_is_in_the_way(rig: Rig, fifty: World) -> None:
    domain = fifty.domain(HUNG)
    first, second = domain.suspend(timeout=SHORT), domain.reboot(timeout=SHORT)
    rig.ended(first, second)
    assert isinstance(second.error, JobTimeout) and second.error.holder == f"suspend of {HUNG}"
    assert len(fifty.simulation.hung) == 1, "the second was never asked"


def test_it_can_be_destroyed_and_lives_again(rig: Rig, fifty: World) -> None:
    domain = fifty.domain(HUNG)
    rig.error(domain.suspend(timeout=SHORT))
    assert domain.job is not None and [held.job for held in domain.job.abandoned] == [Job.SUSPEND]
    rig.ok(domain.destroy())
    assert fifty.state(HUNG) is State.STOPPED
    fifty.simulation.thaw()
    rig.until(lambda: domain.job is None)
    rig.ok(domain.start())
    assert rig.ok(domain.info()).state is State.RUNNING, "the old call was not done to the new run"
    assert fifty.told(Kind.SUSPENDED, of=HUNG) == []


def test_a_call_that_comes_back_late_is_heard_by_nobody_and_frees_it(rig: Rig, fifty: World) -> None:
    domain = fifty.domain(HUNG)
    ended: list[object] = []
    call = domain.suspend(timeout=SHORT)
    call.on_done(ended.append)
    rig.error(call)
    fifty.simulation.thaw()
    rig.until(lambda: domain.job is None)
    assert rig.ok(domain.info()).state is State.PAUSED, "it was done all the same"
    assert ended == [call] and isinstance(call.error, JobTimeout)


def test_a_save_that_hangs_leaves_it_to_be_destroyed_and_then_fails(rig: Rig, fifty: World) -> None:
    domain = fifty.domain(HUNG)
    save = domain.save("/hung")
    rig.until(lambda: bool(fifty.simulation.hung))
    rig.ok(domain.destroy())
    fifty.simulation.thaw()
    rig.error(save)
    assert fifty.told(Kind.STOPPED, of=HUNG) == [f"{HUNG} stopped (destroyed)"]


def test_all_hang_and_all_come_back(rig: Rig, fifty: World) -> None:
    domains = rig.ok(fifty.connection.domains())
    fifty.simulation.freeze()
    calls = [fifty.connection.domains(), *(domain.suspend() for domain in domains)]
    rig.until(lambda: len(fifty.simulation.hung) == len(calls))
    fifty.simulation.thaw(HUNG)
    fifty.simulation.thaw()
    rig.ended(*calls)
    assert [call.error for call in calls] == [None] * len(calls)
    assert {info.state for info in fifty.simulation.domains()} == {State.PAUSED}
