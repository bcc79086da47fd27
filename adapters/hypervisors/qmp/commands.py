"""What a domain can be told to do that is done at once, as scripts."""

from __future__ import annotations

from eventbridge.hypervisor.model import State
from eventbridge.hypervisor.request import Request

from .events import STATES
from .scripts import Command, QemuEnded, Script, Wait
from .vm import Vm

_WAITS = "it waits for a migration to come in"
# Why a domain cannot be made to run that is in such a run state, and what can be done.
_CANNOT_RUN: dict[State, str] = {
    State.NO_MACHINE: _WAITS,
    State.SHUTDOWN: "its guest has shut down: reboot() first",
    State.CRASHED: "its guest has crashed: reboot() first",
    State.PM_SUSPENDED: "its guest has put its machine to sleep, and wakes it by itself",
}


def start(vm: Vm, request: Request) -> Script:
    """Of a machine that was started with -S, or is paused.  QEMU keeps no domain that does not exist."""
    status = yield from vm.status()
    if STATES.get(status) is State.RUNNING:
        raise vm.refusal("start", "it runs already")
    if not request.arguments.get("paused"):
        yield from _run(vm, "start", status)
    elif STATES.get(status) is not State.PAUSED:
        raise vm.refusal("start", _CANNOT_RUN.get(STATES.get(status, State.PAUSED), f"it is {status}"))


def resume(vm: Vm, request: Request) -> Script:
    if vm.life.can_run:
        yield Command("cont")
        vm.should_run = True
    else:
        yield from _run(vm, "resume", (yield from vm.status()))


def _run(vm: Vm, operation: str, status: str) -> Script:
    """Where it is told why not: QEMU takes "cont" of one that sleeps or waits, and does nothing."""
    why = _CANNOT_RUN.get(STATES.get(status, State.PAUSED))
    if why is not None:
        raise vm.refusal(operation, why)
    yield Command("cont")
    vm.should_run = True


def suspend(vm: Vm, request: Request) -> Script:
    if vm.life.incoming:  # "stop" would mean something else then: do not run when it has come in
        raise vm.refusal("suspend", _WAITS)
    vm.life.suspending = True
    try:
        yield Command("stop")
    finally:
        vm.life.suspending = False
    vm.should_run = False


def shutdown(vm: Vm, request: Request) -> Script:
    yield Command("system_powerdown")


def reboot(vm: Vm, request: Request) -> Script:
    yield Command("system_reset")


def destroy(vm: Vm, request: Request) -> Script:
    yield from end(vm)


def end(vm: Vm) -> Script:
    """Until it has ended."""
    try:
        yield Command("quit")
        while True:
            yield Wait()
    except QemuEnded:
        return
